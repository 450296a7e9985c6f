# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the unit tests."""

import logging
from collections.abc import Callable

import pytest

from harness.provision import kernels
from harness.provision.buildroot import BuildRoot


@pytest.fixture(scope="session")
def buildroot() -> BuildRoot:
    """The build root of the default kernel: the compiler that the C parts are built with."""
    root = kernels.stock().headers_buildroot
    assert root is not None
    return root


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[], None]:
    """Holds that the library prints nothing by itself; pytest sets up logging, a user does not."""
    monkeypatch.setattr(logging.root, "handlers", [])

    def check() -> None:
        assert capfd.readouterr() == ("", "")

    return check

# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of several folders."""

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


@pytest.fixture(scope="session")
def libvirt_python(request: pytest.FixtureRequest) -> None:
    """Skip where libvirt-python is not installed, or fail where that is asked for."""
    try:
        import libvirt  # noqa: F401
    except ImportError as error:
        if "libvirt" in request.config.getoption("--tdharness-require"):
            raise
        pytest.skip(f"no libvirt-python: {error}")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[], None]:
    """Holds that the library prints nothing by itself; pytest sets up logging, a user does not."""
    monkeypatch.setattr(logging.root, "handlers", [])

    def check() -> None:
        assert capfd.readouterr() == ("", "")

    return check

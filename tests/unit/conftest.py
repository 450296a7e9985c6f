# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the unit tests."""

import pytest

from harness.provision import kernels
from harness.provision.buildroot import BuildRoot


@pytest.fixture(scope="session")
def buildroot() -> BuildRoot:
    """The build root of the default kernel: the compiler that the C parts are built with."""
    root = kernels.stock().headers_buildroot
    assert root is not None
    return root

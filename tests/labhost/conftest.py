# SPDX-License-Identifier: GPL-2.0-or-later
"""Lab hosts for tests: one that all share, or one to break."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.labhost.build import build
from harness.labhost.host import LabHost
from harness.labhost.launch import lab_host as launched


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> None:
    """The image; where it cannot be built, tests are skipped, or fail when that is asked for."""
    try:
        build()
    except HostError as error:
        if request.config.getoption("--tdharness-require"):
            raise
        pytest.skip(f"no lab host: {error.message}")


@pytest.fixture(scope="session")
def lab_host(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """A lab host that tests leave as they found it."""
    with launched(tmp_path_factory.mktemp("lab-host")) as host:
        yield host


@pytest.fixture
def own_lab_host(built: None, tmp_path: Path) -> Iterator[LabHost]:
    """A lab host of the test's own."""
    with launched(tmp_path) as host:
        yield host

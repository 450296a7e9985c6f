# SPDX-License-Identifier: GPL-2.0-or-later
"""A real libvirtd for the tests of a module; Debian's, in mounts and processes of its own."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import pytest

from harness.provision.cache import cache_dir
from harness.testing.libvirtd import Libvirtd, libvirtd


@pytest.fixture(scope="module")
def daemon(libvirt_python: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    visible = [Path(gettempdir()), cache_dir(), tmp_path_factory.getbasetemp()]
    # A socket's path has to be short.
    with TemporaryDirectory(prefix="tdh-") as home, libvirtd(Path(home), visible) as running:
        yield running

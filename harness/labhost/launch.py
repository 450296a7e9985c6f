# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab host for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.labhost.arguments import Start
from harness.labhost.build import build
from harness.labhost.host import LabHost
from harness.provision import qemu
from harness.provision.cache import Store


@contextmanager
def lab_host(
    directory: Path, *, store: Store | None = None, cold: bool = False
) -> Iterator[LabHost]:
    """A lab host that answers ssh, with its logs in `directory`; built when the cache has none.

    It goes on from the moment that its first boot was saved at: all have the boot id of that one,
    and its clock stands at the time of that moment. With `cold` it boots. Ended when the block
    ends, however it does. Raises HarnessError.
    """
    store = store or Store()
    host = LabHost(build(store), qemu.find_or_make(store), directory)
    try:
        host.start(Start.COLD if cold else Start.SAVED)
        yield host
    finally:
        host.stop()

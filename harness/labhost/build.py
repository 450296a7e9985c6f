# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab host in the cache: its disk, and the machine as it was when its first boot came up.

A whole boot takes a minute and more of emulation, and its rasdaemon makes its tables for another;
what was saved goes on within seconds.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from harness.errors import GuestError
from harness.labhost import disk
from harness.labhost.arguments import Start, fingerprint
from harness.labhost.definition import Definition, read
from harness.labhost.host import LabHost
from harness.labhost.image import Image
from harness.machine.tsc import host_tsc_khz
from harness.provision import cache, kernels, qemu
from harness.provision.apt import Pool
from harness.provision.cache import Store
from harness.provision.kernels import Kernel
from harness.provision.progress import shown
from harness.provision.qemu import Qemu
from harness.timeouts import Deadline

_NAME = "lab-host"
_INPUTS = "1"
# At the height of a build. Measured: packages 0.1 GB, tree 0.5 GB, disk 0.5 GB, saved state 0.5 GB.
_SPACE = 2_500_000_000
_SETTLE_TIMEOUT_S = 600.0
_SETTLE_POLL_S = 2.0
# The time stamp counter of the machine that resumes a state has to be the one it was saved with.
_MOST_DRIFT = 0.01
# Not before this the host is as it will be: the last unit is started, rasdaemon has its tables.
_SETTLED = (
    "systemctl is-system-running --quiet && "
    "sqlite3 /var/lib/rasdaemon/ras-mc_event.db 'select 1 from mce_record limit 1' && sync"
)


def build(store: Store | None = None, *, refresh: bool = False) -> Image:
    """The lab host as its definition has it: from the cache, or built into it.

    Raises HostError, BuildError with the log of the build.
    """
    store = store or Store()
    definition, kernel = read(), kernels.stock(store=store)
    program = qemu.find_or_make(store)
    recipe = _recipe(definition, kernel, program)
    with store.lock(_NAME):
        entry = None if refresh else store.find(_NAME, recipe)
        if entry is None or not _same_clock(entry.facts["tsc_khz"]):
            entry = _make(definition, kernel, program, store, refresh)
    return _image(entry.tree, kernel, entry.facts["boot_id"])


def find(store: Store) -> Image | None:
    """What build() would give if it is there already."""
    kernel, program = kernels.find(kernels.DEFAULT_SERIES, store), qemu.find(store)
    if kernel is None or program is None:
        return None
    entry = store.find(_NAME, _recipe(read(), kernel, program))
    if entry is None or not _same_clock(entry.facts["tsc_khz"]):
        return None
    return _image(entry.tree, kernel, entry.facts["boot_id"])


def _recipe(definition: Definition, kernel: Kernel, program: Qemu) -> str:
    return f"{_INPUTS}-{definition.digest}-{kernel.release}-{program.version}-{fingerprint()}"


def _same_clock(saved: str) -> bool:
    now = host_tsc_khz() or 0
    return abs(now - int(saved)) <= now * _MOST_DRIFT


def _image(tree: Path, kernel: Kernel, boot_id: str) -> Image:
    return Image(
        disk=tree / "disk",
        overlay=tree / "overlay",
        state=tree / "state",
        boot_id=boot_id,
        kernel=kernel.image,
        initrd=tree / "initrd",
        key=tree / "key",
        host_key=(tree / "host_key.pub").read_text().strip(),
    )


def _make(
    definition: Definition, kernel: Kernel, program: Qemu, store: Store, refresh: bool
) -> cache.Entry:
    cache.require_space(store.root, _SPACE, "the lab host")
    directory = store.downloads(_NAME)
    with Pool(definition.release, store.root).opened(refresh=refresh) as pool:
        first = pool.closure(definition.essential)
        debs = pool.closure(definition.wanted)
        pool.fetch(debs, directory, "the lab host")

    def fill(tree: Path) -> Mapping[str, str]:
        disk.assemble(definition, kernel, store, [deb.file for deb in first], directory, tree)
        boot_id = _first_boot(_image(tree, kernel, ""), program, directory)
        return {"boot_id": boot_id, "tsc_khz": str(host_tsc_khz() or 0)}

    entry = store.publish(_NAME, _recipe(definition, kernel, program), debs, fill)
    store.drop_downloads(_NAME)
    return entry


def _first_boot(image: Image, program: Qemu, directory: Path) -> str:
    """Boot once, and save the machine when it has settled; the boot id."""
    host = LabHost(image, program, directory)
    with shown("booting the lab host for the first time", 1) as done:
        try:
            host.start(Start.FIRST)
            deadline = Deadline(_SETTLE_TIMEOUT_S)
            while host.run("sh", "-c", _SETTLED).rc:
                if deadline.expired():
                    raise GuestError(
                        f"the lab host did not settle in {deadline.timeout_s:.0f} s",
                        log=host.console.log_path,
                    )
                time.sleep(_SETTLE_POLL_S)
            host.save()
        finally:
            host.stop()
        done(1)
    return host.boot_ids[0]

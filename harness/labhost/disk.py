# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the disk of the virtual lab host from Debian's packages.

They are installed by the dpkg of the new system itself, in mounts and processes of its own; nothing
of this machine is changed, and no service is started.
"""

import functools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import proc
from harness.cpio import Entry, pack
from harness.errors import BuildError, HostError
from harness.kernel.modules import ModuleTree
from harness.labhost.definition import Definition
from harness.provision import tools
from harness.provision.cache import Store
from harness.provision.kernels import Kernel
from harness.provision.progress import shown
from harness.text import printable

_TRIAL_TIMEOUT_S = 10.0
_BUILD_TIMEOUT_S = 1800.0


def assemble(
    definition: Definition,
    kernel: Kernel,
    store: Store,
    first: Sequence[str],
    debs: Path,
    tree: Path,
) -> None:
    """Have disk, overlay, initrd, key and host_key.pub in `tree`.

    All packages in `debs` are installed; `first` names those that dpkg needs to run. Raises
    HostError, BuildError.
    """
    (tree / "initrd").write_bytes(initrd(definition, kernel, tools.guest_files(store)))
    work = tree.with_name("work")
    work.mkdir()
    log = debs.with_name("lab-host.log")
    places = [work, debs, tree, definition.directory, kernel.modules]
    script = [definition.directory / "assemble", *places, kernel.release, definition.disk_mib]
    argv = [*_apart(), *map(str, script), *first]
    with shown("building the disk of the lab host", 1) as done:
        result = proc.run(argv, timeout_s=_BUILD_TIMEOUT_S, check=False, log_path=log)
        done(1)
    if result.returncode:
        said = (result.stderr.strip().splitlines() or ["no word"])[-1]
        raise BuildError(f"the lab host's disk was not built: {printable(said)}", log=log)


def initrd(definition: Definition, kernel: Kernel, guest_root: Path) -> bytes:
    """An archive with busybox, the modules that the root file system needs, and their list."""
    tree = ModuleTree(kernel.modules)
    names = tree.load_order(definition.early_modules)
    entries = [Entry.file(f"/{name}.ko", tree.content(name)) for name in names]
    entries.append(Entry.file("/modules", "".join(f"/{name}.ko\n" for name in names).encode()))
    entries.append(Entry.file("/init", (definition.directory / "early-init").read_bytes(), 0o755))
    busybox = (guest_root / "usr/bin/busybox").read_bytes()
    entries += [Entry.file("/bin/busybox", busybox, 0o755), Entry.directory("/root")]
    entries += [Entry.directory("/dev"), Entry.character_device("/dev/console", 5, 1)]
    return pack(entries)


@functools.cache
def _apart() -> tuple[str, ...]:
    """The command that gives its child mounts and processes of its own, and all users of a system.

    Raises HostError when there is none.
    """
    apart = ("--mount", "--pid", "--fork", "--kill-child")
    way = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user", "--map-auto")), *apart)
    with tempfile.TemporaryDirectory(prefix="tdharness-") as name:
        argv = [*way, "chown", "7:7", name]
        result = proc.run(argv, timeout_s=_TRIAL_TIMEOUT_S, check=False, hint="install util-linux")
        if result.returncode:
            said = (result.stderr.strip().splitlines() or ["no word"])[-1]
            raise HostError(
                f"the lab host cannot be built here: no namespace with users: {printable(said)}",
                hint="install uidmap and have subordinate ids in /etc/subuid, or run as root",
            )
        return way

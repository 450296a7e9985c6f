# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt for the tests: a daemon of its own, and the XML schema of a version that knows TDX."""

from pathlib import Path

from harness.provision.apt import OpenPool
from harness.provision.buildroot import BuildRoot
from harness.provision.cache import Deb, Store
from harness.provision.packages import Recipe, provide

_DAEMON_RELEASE = "trixie"
_DAEMON = ("bash", "coreutils", "dash", "libvirt-daemon", "libvirt-daemon-driver-qemu")
# The daemon starts the QEMU that it is told to; the one that its package depends on is not needed.
_LEFT_OUT = ("qemu-", "seabios", "ipxe-")
# Where it keeps what it writes: there have to be directories to mount something on.
STATE = (Path("/etc/libvirt"), *(Path("/var", at, "libvirt") for at in ("cache", "lib", "log")))
STATE += (Path("/run"), Path("/var/lock"))
# <launchSecurity type='tdx'> is in no stable release's schema.
_SCHEMA_RELEASE = "sid"
_SCHEMA = ("libvirt-common",)


def daemon_root(store: Store | None = None) -> BuildRoot:
    """A root directory with libvirtd in it. Raises HostError."""
    recipe = Recipe("libvirt", _DAEMON_RELEASE, ["5", *_DAEMON], _resolve, _finish)
    return BuildRoot(provide(recipe, store or Store()).tree)


def domain_schema(store: Store | None = None) -> Path:
    """The RELAX NG schema of a domain's XML, those that it includes beside it. Raises HostError."""
    recipe = Recipe("libvirt-schema", _SCHEMA_RELEASE, ["1", *_SCHEMA], _resolve_schema)
    return provide(recipe, store or Store()).tree / "usr/share/libvirt/schemas/domain.rng"


def _resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
    return [deb for deb in pool.closure(_DAEMON) if not deb.name.startswith(_LEFT_OUT)], {}


def _resolve_schema(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
    return pool.exact(_SCHEMA), {}


def _finish(tree: Path) -> None:
    for path in (*STATE, Path("/mnt")):
        (tree / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
    # The daemon looks these up.
    (tree / "etc/passwd").write_text(
        "root:x:0:0:root:/:/bin/sh\nlibvirt-qemu:x:64055:64055::/:/bin/false\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nlibvirt-qemu:x:64055:\nkvm:x:64056:\n")
    sh = tree / "usr/bin/sh"
    if not sh.is_symlink():
        sh.symlink_to("dash")

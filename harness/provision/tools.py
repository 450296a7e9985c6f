# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of the guest's user space, unpacked: busybox, an ssh server, and kexec."""

from pathlib import Path

from harness.provision.apt import OpenPool
from harness.provision.cache import Deb, Store
from harness.provision.packages import Recipe, found, provide

_RELEASE = "bookworm"
_PROGRAMS = ("busybox-static", "dropbear-bin")
# Of its own: few runs need it, and its installation scripts bring perl along.
_KEXEC = ("kexec-tools",)


def guest_files(store: Store | None = None, *, refresh: bool = False) -> Path:
    """A directory with Debian packages unpacked: /usr/bin/busybox, dropbear, and their libraries.

    Raises HostError.
    """
    return provide(_recipe(), store or Store(), refresh=refresh).tree


def kexec_files(store: Store | None = None) -> Path:
    """The same of kexec and its libraries. Raises HostError."""
    recipe = Recipe(
        "kexec-files", _RELEASE, ["1", *_KEXEC], lambda pool: (pool.closure(_KEXEC), {})
    )
    return provide(recipe, store or Store()).tree


def find(store: Store) -> Path | None:
    """What guest_files() would give if it is there already."""
    entry = found(_recipe(), store)
    return entry.tree if entry else None


def _recipe() -> Recipe:
    return Recipe("guest-files", _RELEASE, ["1", *_PROGRAMS], _resolve)


def _resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
    return pool.closure(_PROGRAMS), {}

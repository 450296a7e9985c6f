# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of the guest's user space: busybox and an ssh server, unpacked."""

from pathlib import Path

from harness.provision.apt import OpenPool
from harness.provision.cache import Deb, Store
from harness.provision.packages import Recipe, found, provide

_RELEASE = "bookworm"
_PROGRAMS = ("busybox-static", "dropbear-bin")


def guest_files(store: Store | None = None, *, refresh: bool = False) -> Path:
    """A directory with Debian packages unpacked: /usr/bin/busybox, dropbear, and their libraries.

    Raises HostError.
    """
    return provide(_recipe(), store or Store(), refresh=refresh).tree


def find(store: Store) -> Path | None:
    """What guest_files() would give if it is there already."""
    entry = found(_recipe(), store)
    return entry.tree if entry else None


def _recipe() -> Recipe:
    return Recipe("guest-files", _RELEASE, ["1", *_PROGRAMS], _resolve)


def _resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
    return pool.closure(_PROGRAMS), {}

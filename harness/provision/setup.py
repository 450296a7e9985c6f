# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that a run needs and that is not built from this repository."""

from dataclasses import dataclass
from pathlib import Path

from harness.provision import kernels, qemu, tools
from harness.provision.buildroot import BuildRoot
from harness.provision.cache import Store
from harness.provision.kernels import DEFAULT_SERIES, Kernel
from harness.provision.qemu import Qemu


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What setup() found or made."""

    qemu: Qemu
    kernel: Kernel
    # for the plugin; the kernel's own is kernel.headers_buildroot
    buildroot: BuildRoot
    # Debian packages unpacked, for the guest's image
    guest_root: Path


def setup(
    series: str = DEFAULT_SERIES,
    *,
    qemu_path: Path | None = None,
    store: Store | None = None,
    refresh: bool = False,
) -> Provisioned:
    """Have all of it in the cache; quick when it is there.

    With `refresh` newer packages of the distribution replace those in the cache. Raises HostError,
    ConfigError for a series or a QEMU that cannot be used.
    """
    store = store or Store()
    usable = qemu.from_path(qemu_path) if qemu_path else qemu.find_or_make(store, refresh=refresh)
    base = kernels.stock(DEFAULT_SERIES, store, refresh=refresh)
    same = series == DEFAULT_SERIES
    kernel = base if same else kernels.stock(series, store, refresh=refresh)
    return Provisioned(
        qemu=usable,
        kernel=kernel,
        buildroot=base.headers_buildroot,
        guest_root=tools.guest_files(store, refresh=refresh),
    )

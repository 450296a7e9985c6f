# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel is built with: one Debian release's compiler and tools, for every base.

The host's own tools are not used even where they are there: so the same patch gives the same
kernel on every machine, and the test module is built by the compiler of its kernel.
"""

from dataclasses import dataclass

from harness.provision import buildroot
from harness.provision.apt import OpenPool
from harness.provision.cache import Deb, Store
from harness.provision.packages import Recipe, provide

_RELEASE = "bookworm"
# bash to xz-utils as for modules; the rest is what Documentation/process/changes.rst asks for, and
# what a distribution's configuration needs on top: hashes, compressors, keys.
_TOOLS = (
    *("bash", "bc", "binutils", "bison", "ccache", "coreutils", "cpio", "dash", "diffutils"),
    *("findutils", "flex", "gawk", "gcc", "grep", "gzip", "kmod", "libc6-dev", "libelf-dev"),
    *("libssl-dev", "lz4", "make", "mawk", "openssl", "patch", "perl", "python3-minimal", "rsync"),
    *("sed", "tar", "xz-utils", "zstd"),
)
# Packages whose version decides what comes out.
_DECIDING = ("binutils", "gcc-12", "make")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """A build root for kernels; `version` names the compiler and the linker."""

    root: buildroot.BuildRoot
    version: str


def kernel_tools(store: Store | None = None, *, refresh: bool = False) -> Toolchain:
    """The tools, from the cache or downloaded. Raises HostError."""
    entry = provide(_recipe(), store or Store(), refresh=refresh)
    versions = sorted(f"{deb.name} {deb.version}" for deb in entry.debs if deb.name in _DECIDING)
    return Toolchain(buildroot.BuildRoot(entry.tree), ", ".join(versions))


def _recipe() -> Recipe:
    return Recipe("kernel-tools", _RELEASE, ["1", *_TOOLS], _resolve, buildroot.finish)


def _resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
    return pool.closure(_TOOLS), {}

# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's own kernels, not rebuilt: the image, its modules, and headers to build modules with."""

import re
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, HostError
from harness.provision import buildroot
from harness.provision.apt import OpenPool, dependencies
from harness.provision.cache import Deb, Entry, Store
from harness.provision.packages import Recipe, found, provide

# The Debian release whose backports carry the series.
SERIES = {"6.12": "bookworm", "7": "trixie"}
DEFAULT_SERIES = "6.12"
_META = "linux-image-cloud-amd64"
# The packages of a kernel; what else an image depends on is for installing it.
_PARTS = re.compile(r"linux-(image|binary|modules|base)-[0-9].*")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and what belongs to it; None for what is not known."""

    release: str
    # bzImage
    image: Path
    system_map: Path | None
    config: Path | None
    # the directory lib/modules/<release>
    modules: Path | None
    # where its headers are, as headers_of() names them, with the compiler they ask for
    headers_buildroot: buildroot.BuildRoot


def headers_of(release: str) -> Path:
    """The directory in its build root that the modules of a kernel are built against (KDIR)."""
    return Path("/usr/src") / f"linux-headers-{release}"


def stock(
    series: str = DEFAULT_SERIES, store: Store | None = None, *, refresh: bool = False
) -> Kernel:
    """Debian's cloud kernel of a series ("6.12", "7"), with its build root.

    Raises ConfigError for a series that Debian's backports do not carry, HostError.
    """
    store = store or Store()
    entry = provide(_recipe(series), store, refresh=refresh)
    root = provide(_root_recipe(series, entry), store, refresh=refresh)
    return _of_trees(entry, root)


def find(series: str, store: Store) -> Kernel | None:
    """What stock() would give if it is there already."""
    entry = found(_recipe(series), store)
    root = found(_root_recipe(series, entry), store) if entry else None
    return _of_trees(entry, root) if entry and root else None


def _recipe(series: str) -> Recipe:
    if series not in SERIES:
        raise ConfigError(
            f"no stock kernel of series {series!r}", hint=f"choose one of {', '.join(SERIES)}"
        )
    debian = SERIES[series]

    def resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
        names = kernel_packages(pool, _META)
        release = re.sub(r"^linux-[a-z]+-", "", names[0])
        if not release.startswith(f"{series}."):
            raise HostError(
                f"{debian}-backports has Linux {release}, not the series {series}",
                hint="name a kernel image with --kernel",
            )
        return pool.exact(names, backports=True), {"release": release}

    return Recipe(f"kernel-{series}", debian, ["2"], resolve)


def _root_recipe(series: str, entry: Entry) -> Recipe:
    return buildroot.recipe(SERIES[series], entry.facts["release"])


def kernel_packages(pool: OpenPool, name: str) -> list[str]:
    """The packages with the files of the kernel that a meta package stands for."""
    names: list[str] = []
    waiting = [name]
    while waiting:
        for needed in dependencies(pool.show(waiting.pop(), backports=True)):
            if _PARTS.fullmatch(needed) and needed not in names:
                names.append(needed)
                waiting.append(needed)
    if not names:
        raise HostError(f"the package {name} depends on no kernel image")
    return names


def _of_trees(entry: Entry, root: Entry) -> Kernel:
    tree, release = entry.tree, entry.facts["release"]
    modules = tree / "usr/lib/modules" / release
    boot = tree / "boot"
    # Since 7.x Debian keeps the image and its map with the modules.
    places = {part: boot / f"{part}-{release}" for part in ("vmlinuz", "System.map", "config")}
    if not places["vmlinuz"].exists():
        places = {part: modules / part for part in places}
    for path in (places["vmlinuz"], modules / "kernel"):
        if not path.exists():
            raise HostError(f"Debian's package of Linux {release} has no {path.relative_to(tree)}")
    system_map, config = (
        places[part] if places[part].exists() else None for part in ("System.map", "config")
    )
    return Kernel(
        release,
        places["vmlinuz"],
        system_map,
        config,
        modules,
        buildroot.BuildRoot(root.tree),
    )

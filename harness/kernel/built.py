# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that were built: one directory each, laid out as a build tree, and their clean-up.

    kernels/built/KEY/build.json    what it was built from, and what the build said
    kernels/built/KEY/...           image, vmlinux, System.map, .config, and what modules need
    kernels/trees/KEY/              source and objects of a base and a configuration
    .../used                        its bytes; the time of change says when it was last asked for

An entry gets its name by one rename when it is complete.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import ConfigError
from harness.provision.cache import remove_tree

LIMIT_VARIABLE = "TDHARNESS_KERNELS_BYTES"
LIMIT_BYTES = 20 * 10**9
IMAGE = Path("arch/x86/boot/bzImage")
_FACTS = "build.json"
_USED = "used"
_TEMPORARY = ".temporary-"
_ABANDONED_S = 24 * 3600.0
# Linked, not copied: git never writes into a file, it puts a new one in its place.
_FROM_SOURCE = ("Makefile", "Kbuild", "include", "scripts", "arch/x86/include")
_MAKEFILES = "arch/x86/Makefile*"
# What runs, and what modules are built with, made by the build.
_FROM_OBJECTS = (
    *(".config", "Module.symvers", "System.map", "vmlinux", str(IMAGE)),
    *("include/config", "include/generated", "arch/x86/include/generated", "scripts"),
    *("tools/objtool/objtool", "lib/modules"),
)
# Their objects serve nobody once the programs are linked.
_LEFT_OUT = shutil.ignore_patterns("*.o", "*.cmd", "*.d", "*.a")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltKernel:
    """A kernel in the cache; `image` is found by the harness to lie in a build tree."""

    image: Path
    vmlinux: Path
    system_map: Path
    # what modules are built against (KDIR)
    build_tree: Path
    log: Path
    # the commit with the patches on it, and the hash of the patch set as KCIDB has it
    commit: str
    patchset: str
    # "file: words"; of a base all, of a patched kernel those of the files that were compiled
    warnings: tuple[str, ...]
    # those that the base has not
    new_warnings: tuple[str, ...]
    # wanted symbols that this kernel has no more, or that a whole configuration lost
    missing: tuple[str, ...]
    # what the build took, then
    seconds: float
    # whether it was there already
    cached: bool


class Shelf:
    """The built kernels below one directory, `kernels` of the cache."""

    def __init__(self, home: Path) -> None:
        self.built = home / "built"
        self.trees = home / "trees"

    def find(self, key: str) -> BuiltKernel | None:
        """The kernel if it is there whole; it counts as used now."""
        place = self.built / key
        try:
            facts = json.loads((place / _FACTS).read_text())
            note_use(place)
            kernel = _kernel(place, facts, cached=True)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        parts = (kernel.image, kernel.vmlinux, kernel.system_map, place / "Module.symvers")
        return kernel if all(part.is_file() for part in parts) else None

    def publish(
        self, key: str, tree: Path, facts: dict[str, Any], extra: dict[str, str]
    ) -> BuiltKernel:
        """Put what tree/src and tree/obj hold on the shelf; `extra` are more files of text."""
        self.built.mkdir(parents=True, exist_ok=True)
        place = self.built / key
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=self.built) as name:
            new = Path(name) / "new"
            new.mkdir()
            _gather(tree / "src", tree / "obj", new)
            shutil.copy(tree / "build.log", new)
            for file, text in extra.items():
                (new / file).write_text(text)
            (new / _FACTS).write_text(json.dumps(facts, indent=1))
            note_size(new)
            if place.exists():
                place.rename(Path(name) / "old")
            new.rename(place)
        return _kernel(place, facts, cached=False)

    def clean_up(self, keep: frozenset[Path], limit_bytes: int | None = None) -> list[Path]:
        """Remove what was not used for longest until the rest fits; returns what went.

        `keep` stays, and so does a tree that a process builds in.
        """
        limit = limit_bytes if limit_bytes is not None else _limit()
        sizes = {place: _size_of(place) for place in self._places()}
        total, gone = sum(sizes.values()), []
        for place in sorted(sizes, key=_used):
            if total <= limit:
                break
            if place not in keep and _remove(place):
                total -= sizes[place]
                gone.append(place)
        return gone

    def _places(self) -> Iterator[Path]:
        for home in (self.built, self.trees):
            if home.is_dir():
                yield from (path for path in home.iterdir() if path.is_dir() and _known(path))


def note_size(place: Path) -> None:
    """Mark an entry or a tree as used now, with the bytes that are its own."""
    (place / _USED).write_text(str(_measured(place)))


def note_use(place: Path) -> None:
    """Mark an entry or a tree as used now."""
    (place / _USED).touch()


def _known(place: Path) -> bool:
    """Whether a directory is an entry or a tree, or what was left of one that nobody makes now."""
    if not place.name.startswith(_TEMPORARY):
        return True
    with contextlib.suppress(OSError):
        return time.time() - place.stat().st_mtime > _ABANDONED_S
    return False


def lock_of(place: Path) -> Path:
    """The lock file of a tree; that of an entry is held while it is removed."""
    return place.with_name(f"{place.name}.lock")


def _limit() -> int:
    word = os.environ.get(LIMIT_VARIABLE, "")
    if word and not word.isdecimal():
        raise ConfigError(f"${LIMIT_VARIABLE} is no number of bytes: {word!r}")
    return int(word) if word else LIMIT_BYTES


def _measured(place: Path) -> int:
    """Bytes on the disk; a file that others link to is theirs as well and counts in part."""
    total = 0
    for directory, _, files in os.walk(place):
        for name in files:
            found = os.lstat(f"{directory}/{name}")
            total += found.st_blocks * 512 // found.st_nlink
    return total


def _size_of(place: Path) -> int:
    try:
        return int((place / _USED).read_text())
    except (OSError, ValueError):
        return _measured(place)


def _used(place: Path) -> float:
    # What has no mark was left by a process that was killed: it goes first.
    with contextlib.suppress(OSError):
        return (place / _USED).stat().st_mtime
    return 0.0


def _remove(place: Path) -> bool:
    """Remove an entry, or a tree that nobody builds in; False when it is not to be had."""
    with contextlib.suppress(OSError, Timeout), FileLock(lock_of(place), timeout=0):
        # by one step for whoever looks, however long the rest takes
        going = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=place.parent))
        place.rename(going / "old")
        remove_tree(going)
        return True
    return False


def _kernel(place: Path, facts: dict[str, Any], *, cached: bool) -> BuiltKernel:
    return BuiltKernel(
        image=place / IMAGE,
        vmlinux=place / "vmlinux",
        system_map=place / "System.map",
        build_tree=place,
        log=place / "build.log",
        commit=facts["commit"],
        patchset=facts["patchset"],
        warnings=tuple(facts["warnings"]),
        new_warnings=tuple(facts["new_warnings"]),
        missing=tuple(facts["missing"]),
        seconds=facts["seconds"],
        cached=cached,
    )


def _gather(source: Path, objects: Path, new: Path) -> None:
    """One directory with what runs and what modules are built with, of source and objects."""
    for name in (*_FROM_SOURCE, *(str(p.relative_to(source)) for p in source.glob(_MAKEFILES))):
        _put(source / name, new / name, os.link)
    for name in _FROM_OBJECTS:
        _put(objects / name, new / name, shutil.copy2)


def _put(origin: Path, target: Path, how: Callable[[Any, Any], Any]) -> None:
    if origin.is_dir():
        shutil.copytree(
            origin, target, symlinks=True, ignore=_LEFT_OUT, copy_function=how, dirs_exist_ok=True
        )
    elif origin.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        how(origin, target)

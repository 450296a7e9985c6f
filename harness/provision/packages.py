# SPDX-License-Identifier: GPL-2.0-or-later
"""Cache entries made of Debian packages unpacked into one directory."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.errors import HostError
from harness.provision.apt import OpenPool, Pool
from harness.provision.cache import Deb, Entry, Store, remove_tree, require_space
from harness.provision.progress import shown

# Measured: compilers and headers unpack to 4.2 times the size of their packages.
_UNPACKED_PER_BYTE = 5
_UNPACK_TIMEOUT_S = 300.0
# Nobody reads these here; without them the trees have half as many files to check at each start.
_UNUSED = tuple(f"usr/share/{name}" for name in ("doc", "man", "locale", "info", "lintian"))
_MERGED = ("bin", "sbin", "lib", "lib64")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make an entry; `inputs` changes when an entry made before is of no use any more."""

    name: str
    release: str
    inputs: Sequence[str]
    resolve: Callable[[OpenPool], tuple[list[Deb], dict[str, str]]]
    finish: Callable[[Path], None] = lambda tree: None

    def digest(self) -> str:
        """Identifies the recipe in the stamp of its entry."""
        text = "\n".join([self.name, self.release, *self.inputs])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def found(recipe: Recipe, store: Store) -> Entry | None:
    """The entry of a recipe if the cache has it whole."""
    return store.find(recipe.name, recipe.digest())


def provide(recipe: Recipe, store: Store, *, refresh: bool = False) -> Entry:
    """The entry of a recipe: from the cache when whole, else downloaded and unpacked.

    With `refresh` the packages are resolved anew and the entry is made again if they changed.
    Raises HostError.
    """
    entry = None if refresh else found(recipe, store)
    if entry:
        return entry
    try:
        return _make(recipe, store, refresh)
    except OSError as error:
        raise HostError(
            f"cannot make the cache entry {recipe.name} in {store.root}: {error}",
            hint="look at the free space and the rights of the cache directory: tdharness doctor",
        ) from error


def _make(recipe: Recipe, store: Store, refresh: bool) -> Entry:
    with store.lock(recipe.name):
        # another process may have made it while this one waited
        entry = found(recipe, store)
        if entry and not refresh:
            return entry
        directory = store.downloads(recipe.name)
        with Pool(recipe.release, store.root).opened(refresh=refresh) as pool:
            debs, facts = recipe.resolve(pool)
            if entry and set(entry.debs) == set(debs):
                return entry
            size = sum(deb.size for deb in debs)
            require_space(store.root, size * (1 + _UNPACKED_PER_BYTE), recipe.name)
            pool.fetch(debs, directory, recipe.name)

        def fill(tree: Path) -> Mapping[str, str]:
            unpack(debs, directory, tree, recipe.name)
            recipe.finish(tree)
            return facts

        entry = store.publish(recipe.name, recipe.digest(), debs, fill)
        store.drop_downloads(recipe.name)
        return entry


def unpack(debs: Iterable[Deb], directory: Path, tree: Path, what: str) -> None:
    """Unpack each package into `tree`, laid out as a merged-/usr system. Raises HostError."""
    debs = list(debs)
    with shown(f"unpacking {what}: {len(debs)} packages", len(debs)) as done:
        for number, deb in enumerate(debs, 1):
            argv = ["dpkg-deb", "-x", os.fspath(directory / deb.file), os.fspath(tree)]
            result = proc.run(argv, timeout_s=_UNPACK_TIMEOUT_S, check=False)
            if result.returncode:
                words = (result.stderr.strip().splitlines() or ["no word"])[-1]
                raise HostError(
                    f"cannot unpack {deb.file} into {tree}: {words}",
                    hint="look at the free space of the cache directory: tdharness doctor",
                )
            done(number)
    for name in _UNUSED:
        remove_tree(tree / name)
    for name in _MERGED:
        if not (tree / name).is_symlink():
            merge(tree / name, tree / "usr" / name)
            (tree / name).symlink_to(f"usr/{name}")


def merge(source: Path, target: Path) -> None:
    """Move all of a directory into another one and remove it.

    Of two files of one name the one that is no link stays: the link is for finding the other.
    """
    target.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        return
    for path in source.iterdir():
        place = target / path.name
        if path.is_dir() and not path.is_symlink():
            merge(path, place)
        elif place.is_symlink() or not place.exists() or not path.is_symlink():
            path.replace(place)
        else:
            path.unlink()
    source.rmdir()

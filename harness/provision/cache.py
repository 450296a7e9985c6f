# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache of unpacked packages: one lock per entry, whole entries or none, damage found out.

    entries/NAME.json        the stamp: which tree is current, and from which packages it was made
    entries/NAME/DIGEST/     the tree
    entries/NAME/DIGEST.list what is in it: size, time of change, name of each file
    debs/NAME/               downloads of an entry that is not finished

A tree gets its name by one rename when it is complete, and the stamp is replaced after it, so a
process killed at any moment leaves the former entry, or none, and temporaries that the next holder
of the lock removes.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import HostError

log = logging.getLogger(__name__)

CACHE_VARIABLE = "TDHARNESS_CACHE"
LOCK_TIMEOUT_S = 1800.0
_SCHEMA = 1
_TEMPORARY = ".temporary-"


@dataclass(frozen=True, slots=True)
class Deb:
    """One Debian package file, as the signed package lists have it; `size` in bytes."""

    name: str
    version: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished entry: the tree, what it was made from, and what its maker noted about it."""

    tree: Path
    debs: tuple[Deb, ...]
    facts: Mapping[str, str]


def cache_dir() -> Path:
    """Where all that is downloaded or built is kept: $TDHARNESS_CACHE or ~/.cache/tdharness."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).absolute() if named else Path.home() / ".cache" / "tdharness"


@contextlib.contextmanager
def locked(path: Path, what: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock file `path`; says so on stderr when another process has it.

    The kernel releases the lock of a process that dies. Raises HostError after `timeout_s`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            print(f"waiting for another process that sets up {what}", file=sys.stderr)
            lock.acquire(timeout=timeout_s)
    except Timeout as error:
        raise HostError(
            f"another process still held {path} after {timeout_s:.0f} s",
            hint=f"see who has it with: fuser -v {path}",
        ) from error
    except OSError as error:
        raise HostError(
            f"cannot write to the cache {path.parent}: {error.strerror or error}",
            hint=f"name another directory in ${CACHE_VARIABLE}",
        ) from error
    try:
        yield
    finally:
        lock.release()


def require_space(path: Path, needed: int, what: str) -> None:
    """Raise HostError unless the file system of `path` has `needed` bytes free."""
    place = path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise HostError(
            f"no space for {what}: {megabytes(needed)} needed, {megabytes(free)} free in {path}",
            hint=f"make room, or name a directory on another disk in ${CACHE_VARIABLE}",
        )


def megabytes(size: int) -> str:
    """A size for people, in decimal MB."""
    return f"{size / 1e6:,.1f} MB"


class Store:
    """The entries below one cache directory."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or cache_dir()

    def find(self, name: str, recipe: str) -> Entry | None:
        """The entry if it was made by this recipe and each of its files is as it was then."""
        try:
            stamp = json.loads(self._stamp(name).read_text())
            if stamp["schema"] != _SCHEMA or stamp["recipe"] != recipe:
                return None
            tree = self._tree(name, stamp["digest"])
            debs = tuple(Deb(**deb) for deb in stamp["debs"])
            facts = {str(key): str(value) for key, value in stamp["facts"].items()}
            damage = damaged(tree, _list_of(tree).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the cache entry %s has a broken stamp and is made anew: %s", name, error)
            return None
        if damage:
            log.warning("the cache entry %s is damaged and is made anew: %s", name, damage)
            return None
        return Entry(tree, debs, facts)

    def publish(
        self,
        name: str,
        recipe: str,
        debs: Iterable[Deb],
        fill: Callable[[Path], Mapping[str, str]],
    ) -> Entry:
        """Make the entry: `fill` a temporary directory, then put it in place, then the stamp.

        `fill` returns facts to keep with the entry. Call with the entry's lock held. The tree
        before this one is kept, for runs that use it; older ones go.
        """
        debs = tuple(debs)
        self.clear_temporaries(name)
        tree = self._tree(name, _digest(recipe, debs))
        tree.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=tree.parent))
        new = temporary / "new"
        new.mkdir()
        facts = dict(fill(new))
        listing = _listing(new)
        if tree.exists():
            tree.rename(temporary / "old")
        new.rename(tree)
        _replace(_list_of(tree), listing)
        stamp = {
            "schema": _SCHEMA,
            "recipe": recipe,
            "digest": tree.name,
            "debs": [asdict(deb) for deb in debs],
            "facts": facts,
        }
        previous = self._current(name)
        _replace(self._stamp(name), json.dumps(stamp, indent=1))
        self._prune(name, {tree.name, previous} - {""})
        return Entry(tree, debs, facts)

    def lock(self, name: str) -> contextlib.AbstractContextManager[None]:
        """The lock of one entry."""
        return locked(self.root / "entries" / f"{name}.lock", name)

    def downloads(self, name: str) -> Path:
        """Where the packages of an unfinished entry are put; kept for a later try."""
        path = self.root / "debs" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def drop_downloads(self, name: str) -> None:
        """Remove the packages of a finished entry."""
        shutil.rmtree(self.root / "debs" / name, ignore_errors=True)

    def clear_temporaries(self, name: str) -> None:
        """Remove what a killed process left; nobody else has temporaries, the lock is held."""
        for left in (self.root / "entries" / name).glob(f"{_TEMPORARY}*"):
            remove_tree(left)

    def _prune(self, name: str, keep: set[str]) -> None:
        for path in (self.root / "entries" / name).iterdir():
            if path.name.split(".")[0] not in keep:
                if path.is_dir():
                    remove_tree(path)
                else:
                    path.unlink(missing_ok=True)

    def _current(self, name: str) -> str:
        try:
            return str(json.loads(self._stamp(name).read_text())["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _stamp(self, name: str) -> Path:
        return self.root / "entries" / f"{name}.json"

    def _tree(self, name: str, digest: str) -> Path:
        if not digest.isalnum():
            raise ValueError(f"not the name of a tree: {digest!r}")
        return self.root / "entries" / name / digest


def damaged(tree: Path, listing: str) -> str | None:
    """What is wrong with a tree, by the size and time of each file; None when all are there."""
    lines = listing.splitlines()
    if not lines or lines[-1] != "end":
        return "its list of files is cut short"
    base = os.fspath(tree)
    for line in lines[:-1]:
        size, changed, name = line.split(" ", 2)
        try:
            found = os.lstat(f"{base}/{name}")
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found.st_size != int(size) or found.st_mtime_ns != int(changed):
            return f"{name} was changed"
    return None


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it, directories without write permission included."""
    if not path.exists():
        return
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)  # noqa: PTH101 - os.walk gives strings
    # A child of a process that was killed may still write here for a moment; what it leaves is
    # temporary, and removed the next time.
    shutil.rmtree(path, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(recipe: str, debs: Iterable[Deb]) -> str:
    text = "\n".join([recipe, *sorted(f"{deb.file} {deb.sha256}" for deb in debs)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _list_of(tree: Path) -> Path:
    return tree.with_name(f"{tree.name}.list")


def _listing(tree: Path) -> str:
    """Files and links; no directories, whose times change when a mount point is looked up."""
    lines = []
    base = os.fspath(tree)
    for directory, names, files in os.walk(base):
        links = [name for name in names if os.path.islink(f"{directory}/{name}")]  # noqa: PTH114
        for name in [*files, *links]:
            path = f"{directory}/{name}"
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                inside = path[len(base) + 1 :]
                if "\n" not in inside:
                    lines.append(f"{found.st_size} {found.st_mtime_ns} {inside}")
    return "\n".join([*sorted(lines), "end\n"])


def _replace(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new content, also after a crash."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

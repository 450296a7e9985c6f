# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kernel's source comes from: a package, a git tree and revision, an unpacked tree."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, HostError
from harness.git import git, make_repository, say
from harness.provision import source
from harness.provision.cache import Store, locked

_NO_SUCH_BASE = "name a package (linux-source-6.12), a DIRECTORY, or DIRECTORY@REVISION of git"


@dataclass(frozen=True, slots=True)
class Base:
    """A kernel's source: a commit, and the bare repository in the cache that worktrees come from.

    `name` is for people.
    """

    name: str
    repository: Path
    commit: str


def base_of(word: str, store: Store | None = None) -> Base:
    """The base that a word names: `linux-source-6.12`, `DIRECTORY`, `DIRECTORY@REVISION`.

    Of a git tree what is committed counts. Raises ConfigError when it is none, HostError.
    """
    store = store or Store()
    if source.PACKAGE.fullmatch(word):
        found = source.package(word, store)
        return Base(f"{word} {found.version}", found.repository, found.commit)
    directory, revision = Path(word), ""
    if not directory.is_dir() and "@" in word:
        name, _, revision = word.rpartition("@")
        directory = Path(name)
    if not directory.is_dir():
        raise ConfigError(f"no kernel source {word!r}", hint=_NO_SUCH_BASE)
    directory = directory.resolve()
    inside = git(directory, "rev-parse", "--git-common-dir", check=False)
    if inside.returncode == 0 and (revision or (directory / ".git").exists()):
        objects = directory / inside.stdout.strip() / "objects"
        return _of_git(directory, objects, revision or "HEAD", store)
    if revision:
        raise ConfigError(f"{directory} is no git tree, so it has no revision {revision!r}")
    return _of_tree(directory, store)


def _own_repository(directory: Path, store: Store) -> Path:
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return source.kernels_dir(store) / "sources" / f"{directory.name}-{name}"


def _of_git(directory: Path, objects: Path, revision: str, store: Store) -> Base:
    """The user's objects are borrowed; worktrees and branches are the cache's own."""
    try:
        words = ("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
        commit = say(directory, *words)
    except HostError as error:
        raise ConfigError(f"{directory} has no revision {revision!r}") from error
    repository = _own_repository(directory, store)
    with locked(repository.with_name(f"{repository.name}.lock"), str(directory)):
        if not (repository / "HEAD").is_file():
            make_repository(repository)
        alternates = repository / "objects/info/alternates"
        alternates.parent.mkdir(parents=True, exist_ok=True)
        alternates.write_text(f"{objects.resolve()}\n")
    return Base(f"{directory.name} {commit[:12]}", repository, commit)


def _of_tree(directory: Path, store: Store) -> Base:
    """What a build left in the tree is not taken: the kernel's .gitignore files name it."""
    if not (directory / "Makefile").is_file():
        raise ConfigError(f"{directory} is no kernel source: no Makefile", hint=_NO_SUCH_BASE)
    repository = _own_repository(directory, store)
    with locked(repository.with_name(f"{repository.name}.lock"), str(directory)):
        if not (repository / "HEAD").is_file():
            make_repository(repository)
        # The index stays, so that the next time only what changed is read.
        place = (f"--git-dir={repository}", f"--work-tree={directory}", "-c", "core.bare=false")
        git(directory, *place, "add", "--all", ".")
        tree = say(directory, *place, "write-tree")
        commit = say(repository, "commit-tree", "-m", source.MESSAGE, tree)
        git(repository, "update-ref", f"refs/bases/{commit}", commit)
    return Base(f"{directory.name} {commit[:12]}", repository, commit)

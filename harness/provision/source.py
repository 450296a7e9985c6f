# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel sources of Debian's linux-source packages, each a git repository with one commit.

    kernels/sources/NAME-VERSION/   the bare repository; nothing of it is checked out
    kernels/sources/NAME.json       the stamp: which one is current

The commit is a function of the content alone: author, date and message are always the same.
"""

import contextlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness import git, proc
from harness.errors import ConfigError, HostError
from harness.provision.apt import Pool
from harness.provision.cache import Deb, Store, require_space
from harness.provision.progress import shown
from harness.text import printable
from harness.timeouts import Deadline

DEFAULT_SOURCE = "linux-source-6.12"
PACKAGE = re.compile(r"linux-source-(\d+\.\d+)")
# Searched in this order, each with its backports.
_RELEASES = ("bookworm", "trixie")
# Measured: a package of 153 MB becomes a repository of 330 MB.
_REPOSITORY_PER_BYTE = 3
_UNPACK_TIMEOUT_S = 300.0
_IMPORT_TIMEOUT_S = 1800.0
_TEMPORARY = ".temporary-"
_COMMITTER = "tdharness <tdharness> 0 +0000"
BASE_REF = "refs/heads/base"
MESSAGE = "base"


@dataclass(frozen=True, slots=True)
class Source:
    """A kernel's source: `repository` is bare, `commit` the whole of it."""

    name: str
    version: str
    repository: Path
    commit: str


def kernels_dir(store: Store) -> Path:
    """Where kernels that are built from source have all that is theirs."""
    return store.root / "kernels"


def package(
    name: str = DEFAULT_SOURCE, store: Store | None = None, *, refresh: bool = False
) -> Source:
    """The source of a package, from the cache or downloaded, verified and imported.

    With `refresh` a newer version replaces the one in the cache. Raises ConfigError for a name
    that Debian does not have, HostError.
    """
    store = store or Store()
    if not PACKAGE.fullmatch(name):
        raise ConfigError(f"{name!r} is no source package", hint=f"for example {DEFAULT_SOURCE}")
    source = None if refresh else find(name, store)
    if source:
        return source
    with store.lock(name):
        # another process may have made it while this one waited
        return (None if refresh else find(name, store)) or _make(name, store, refresh)


def find(name: str, store: Store) -> Source | None:
    """What package() would give if it is there already."""
    home = kernels_dir(store) / "sources"
    try:
        stamp = json.loads((home / f"{name}.json").read_text())
        source = Source(name, stamp["version"], home / stamp["directory"], stamp["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return source if (source.repository / "HEAD").is_file() else None


def _make(name: str, store: Store, refresh: bool) -> Source:
    home = kernels_dir(store) / "sources"
    home.mkdir(parents=True, exist_ok=True)
    directory = store.downloads(name)
    deb = _fetched(name, store, directory, refresh)
    repository = home / f"{name}-{deb.version}"
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=home) as temporary:
        if not repository.exists():
            tarball = _tarball(directory / deb.file, Path(temporary))
            new = Path(temporary) / "new"
            import_tarball(tarball, new, f"{name} {deb.version}")
            new.rename(repository)
    commit = git.say(repository, "rev-parse", BASE_REF)
    stamp = {"version": deb.version, "directory": repository.name, "commit": commit}
    written = home / f".{name}.json.new"
    written.write_text(json.dumps(stamp, indent=1))
    written.replace(home / f"{name}.json")
    store.drop_downloads(name)
    return Source(name, deb.version, repository, commit)


def _fetched(name: str, store: Store, directory: Path, refresh: bool) -> Deb:
    for release in _RELEASES:
        with Pool(release, store.root).opened(refresh=refresh) as pool:
            if not pool.has(name):
                continue
            (deb,) = pool.exact([name], backports=True)
            require_space(store.root, deb.size * (2 + _REPOSITORY_PER_BYTE), name)
            pool.fetch([deb], directory, name)
            return deb
    raise ConfigError(
        f"neither {' nor '.join(_RELEASES)} has a package {name}, backports included",
        hint="name a git tree or an unpacked one instead: tdharness build --base DIRECTORY",
    )


def _tarball(deb: Path, directory: Path) -> Path:
    proc.run(["dpkg-deb", "-x", deb, directory / "deb"], timeout_s=_UNPACK_TIMEOUT_S)
    found = sorted((directory / "deb/usr/src").glob("linux-source-*.tar.*"))
    if len(found) != 1:
        raise HostError(f"{deb.name} holds {len(found)} archives of a kernel's source, not one")
    return found[0]


def import_tarball(tarball: Path, repository: Path, what: str) -> None:
    """Make a bare repository of an archive's content, below its one top directory.

    Nothing is unpacked to the disk: that takes longer than the rest. Raises HostError.
    """
    git.make_repository(repository)
    log = repository / "import.log"
    quick = ("-c", "core.compression=1", "-c", "fastimport.unpackLimit=0")
    argv = git.command(["-C", repository, *quick, "fast-import", "--quiet", "--done", "--depth=0"])
    deadline = Deadline(_IMPORT_TIMEOUT_S)
    size = tarball.stat().st_size
    with contextlib.ExitStack() as stack:
        done = stack.enter_context(shown(f"importing {what}", size, in_bytes=True))
        packed = stack.enter_context(tarball.open("rb"))
        archive = stack.enter_context(tarfile.open(fileobj=packed))
        output = stack.enter_context(log.open("wb"))
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as end:
            child = proc.spawn(argv, stdout=output, stdin=end, env=git.environment())
        stack.callback(proc.kill_group, child)
        try:
            with os.fdopen(writing, "wb") as stream:
                for _ in _feed(archive, stream):
                    done(packed.tell())
                    if deadline.expired():
                        raise HostError(f"importing {what} took over {deadline.timeout_s:.0f} s")
        except BrokenPipeError:
            pass
        except (tarfile.TarError, OSError, EOFError) as error:
            raise HostError(f"cannot import {tarball.name}: {error}") from error
        child.wait()
    if child.returncode:
        said = log.read_text(errors="replace").strip().splitlines() or ["no word"]
        raise HostError(f"git fast-import failed with {what}: {printable(said[0])}")


def _feed(archive: tarfile.TarFile, stream: IO[bytes]) -> Iterator[None]:
    """Write the archive as a stream of git fast-import, a member per step."""
    data = f"{MESSAGE}\n".encode()
    stream.write(f"commit {BASE_REF}\ncommitter {_COMMITTER}\ndata {len(data)}\n".encode() + data)
    for member in archive:
        if member.isdir():
            continue
        if not (member.isfile() or member.issym()):
            raise HostError(f"an archive of a kernel's source has a device or link {member.name!r}")
        path = _inside(member.name)
        if member.issym():
            mode, content = "120000", os.fsencode(member.linkname)
        else:
            file = archive.extractfile(member)
            assert file is not None  # a regular file has content
            mode, content = ("100755" if member.mode & 0o100 else "100644"), file.read()
        head = f"\nM {mode} inline {path}\ndata {len(content)}\n".encode("utf-8", "surrogateescape")
        stream.write(head + content)
        yield
    stream.write(b"\ndone\n")


def _inside(name: str) -> str:
    """The path of an archive's member below the top directory; HostError for one elsewhere."""
    parts = name.removeprefix("./").split("/")[1:]
    if not parts or {"..", ".git", ""} & set(parts) or any(c in name for c in '\n"\\'):
        raise HostError(f"an archive of a kernel's source has a member {name[:200]!r}")
    return "/".join(parts)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch series out of whatever a person has at hand.

Nothing is applied here, and nothing of a series that is refused is ever applied.
"""

import dataclasses
import gzip
import re
import zlib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import ConfigError, HostError
from harness.git import git, say
from harness.series import thread
from harness.series.mail import MOST_MAIL_BYTES, read_patch, split
from harness.series.patch import Numbers, Patch, Series, in_order, numbers, slug
from harness.series.thread import cover_letter
from harness.text import printable

MOST_BYTES = 64 << 20
MOST_PATCHES = 500
_GZIP = b"\x1f\x8b"
# What git format-patch begins its files with, instead of a sender and a time.
_FORMATTED = re.compile(rb"From [0-9a-f]{40,64} Mon Sep 17 00:00:00 2001\n")
_MESSAGE_ID = re.compile(r"(?:https?://\S+/)?<?([^\s<>/@]+@[^\s<>/@]+)>?/?")
_RANGE = re.compile(r"(?:(?P<tree>.+)@)?(?P<old>[^\s@.-][^\s@]*?)\.\.(?P<new>[^\s@.][^\s@]*)")
_FORMAT_PATCH = (
    *("format-patch", "--quiet", "--no-signature", "--zero-commit", "--no-numbered"),
    *("--no-cover-letter", "--no-attach", "--no-thread", "--no-base", "--no-signoff", "--no-notes"),
    *("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/"),
)
_FORMS = (
    "a directory of *.patch, a mailbox (.gz too), a series file, [DIRECTORY@]OLD..NEW of git, "
    "or a message id"
)

_Found = list[tuple[Numbers, Patch]]


def read_series(source: str | Path) -> Series:
    """The series that `source` names: of several versions the highest, whole and in order.

    Raises ConfigError when there is none or it is refused, HostError when a message id cannot be
    fetched or git or b4 is not there.
    """
    path, text = Path(source), str(source)
    if "\0" in text:
        raise ConfigError("a name holds no NUL")
    if path.is_dir():
        listed = path / "series"
        return _of_list(listed) if listed.is_file() else _of_directory(path)
    if path.is_file():
        is_list = path.name == "series" or path.suffix == ".series"
        return _of_list(path) if is_list else _of_mails(path)
    if (found := _RANGE.fullmatch(text)) and Path(found["tree"] or ".").is_dir():
        return _of_range(Path(found["tree"] or "."), found["old"], found["new"])
    if found := _MESSAGE_ID.fullmatch(text):
        with TemporaryDirectory(prefix="tdharness-series-") as place:
            return _of_thread(thread.fetch(found[1], Path(place)), found[1])
    raise ConfigError(f"no patch series {printable(text)!r}", hint=f"name {_FORMS}")


def read_patches(files: Sequence[Path]) -> tuple[Patch, ...]:
    """The patches of these files, in this order. Raises ConfigError for one that is refused."""
    return tuple(patch for _, patch in _read_all(files))


def _of_list(path: Path) -> Series:
    """What quilt calls a series: the names of patches, one a line."""
    names = []
    for number, line in enumerate(_read(path, MOST_BYTES).decode(errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if words[1:] not in ([], ["-p1"]) or words[0].startswith("/") or ".." in words[0]:
            what = printable(line.strip(), 100)
            raise ConfigError(f"{path}:{number}: {what!r} is no patch beside it to apply with -p1")
        names.append(words[0])
    if not names:
        raise ConfigError(f"{path} lists no patch")
    patches = read_patches([path.parent / name for name in names])
    return Series(name=path.resolve().parent.name, version=1, cover=None, patches=patches)


def _of_directory(path: Path) -> Series:
    files = sorted(path.glob("*.patch"))
    if not files:
        raise ConfigError(f"{path} holds no *.patch and no series file", hint=f"name {_FORMS}")
    return _of_files(
        [(file.name, _read(file, MOST_MAIL_BYTES)) for file in files], path.resolve().name
    )


def _of_mails(path: Path) -> Series:
    """A file of mails: what git format-patch wrote, one mail, or a thread."""
    data = _read(path, MOST_BYTES)
    if data.startswith(b"From ") and not _FORMATTED.match(data):
        return _of_thread(path, path.name)
    with TemporaryDirectory(prefix="tdharness-series-") as name:
        mbox = Path(name) / path.name
        mbox.write_bytes(data)
        mails = [mail.read_bytes() for mail in split(mbox, Path(name) / "mails")]
    if len(mails) == 1:
        return _of_files([(path.name, mails[0])], path.name)
    return _of_files([(f"mail {n} of {path.name}", m) for n, m in enumerate(mails, 1)], path.name)


def _of_thread(path: Path, name: str) -> Series:
    data = _read(path, MOST_BYTES)
    mails_of = thread.versions(data, name) or {1: 0}
    version, notes = _highest(mails_of, name)
    # One more for the cover letter.
    _check_count(mails_of[version] - 1, name)
    with TemporaryDirectory(prefix="tdharness-series-") as place:
        mbox = Path(place) / "thread.mbox"
        mbox.write_bytes(data)
        mails, cover, said = thread.patches(mbox, version, name)
    found = [read_patch(mail, f"patch {n} of {name}") for n, mail in enumerate(mails, 1)]
    return _series(found, name, version, cover, [*notes, *said])


def _of_files(mails: Sequence[tuple[str, bytes]], name: str) -> Series:
    """Mails that are patches, or the cover letter, of one version or several."""
    _check_count(len(mails), name)
    letters: dict[int, str] = {}
    found: _Found = []
    for label, mail in mails:
        said = _cover_version(mail)
        if said is not None:
            letters[said] = cover_letter(mail)
        else:
            found.append(read_patch(mail, label))
    if not found:
        raise ConfigError(f"{name} holds a cover letter and no patch")
    version, notes = _highest({n.version for n, _ in found}, name)
    taken = [(n, patch) for n, patch in found if n.version == version]
    return _series(taken, name, version, letters.get(version), notes)


def _highest(there: Iterable[int], name: str) -> tuple[int, list[str]]:
    """The version to take, and a note about the others."""
    *others, version = sorted(there)
    left = ", ".join(f"v{other}" for other in others[-20:])
    return version, [f"{name} holds {left} as well: v{version} is taken"] if others else []


def _cover_version(mail: bytes) -> int | None:
    said = numbers(thread.subject(mail))
    return said.version if said and said.counter == 0 else None


def _of_range(tree: Path, old: str, new: str) -> Series:
    name = f"{old}..{new}"
    ends = []
    for end in (old, new):
        try:
            ends.append(say(tree, "rev-parse", "--verify", "--end-of-options", f"{end}^{{commit}}"))
        except HostError as error:
            raise ConfigError(f"{tree} has no revision {printable(end)!r}") from error
    commits = f"{ends[0]}..{ends[1]}"
    count = int(say(tree, "rev-list", "--count", commits))
    merges = int(say(tree, "rev-list", "--count", "--merges", commits))
    if not count or merges:
        why = f"{merges} of its commits are merges" if merges else "there is no commit in it"
        raise ConfigError(f"{name} is no series of patches: {why}")
    _check_count(count, name)
    with TemporaryDirectory(prefix="tdharness-series-") as place:
        git(tree, *_FORMAT_PATCH, "-o", place, commits)
        patches = read_patches(sorted(Path(place).iterdir()))
    return Series(name=name, version=1, cover=None, patches=patches)


def _series(
    found: _Found, name: str, version: int, cover: str | None, notes: Sequence[str]
) -> Series:
    patches = in_order(found, f"v{version} of {name}")
    if not all(patch.name.endswith(".patch") for patch in patches):
        patches = tuple(_named(patch, n) for n, patch in enumerate(patches, 1))
    heading = cover.partition("\n")[0] if cover else ""
    return Series(
        name=heading or name, version=version, cover=cover, patches=patches, notes=tuple(notes)
    )


def _named(patch: Patch, number: int) -> Patch:
    return dataclasses.replace(patch, name=f"{number:04}-{slug(patch.subject)}.patch")


def _read_all(files: Sequence[Path]) -> _Found:
    _check_count(len(files), "the series")
    twice = {file.name for file in files if [f.name for f in files].count(file.name) > 1}
    if twice:
        raise ConfigError(f"the series lists {min(twice)} twice")
    return [read_patch(_read(file, MOST_MAIL_BYTES), file.name) for file in files]


def _check_count(count: int, name: str) -> None:
    if count > MOST_PATCHES:
        raise ConfigError(f"{name} is refused: it has {count} patches, more than {MOST_PATCHES}")


def _read(path: Path, most: int) -> bytes:
    """A file, unpacked if it is compressed by gzip, as archives serve threads."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == _GZIP
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if packed else nullcontext(file) as plain:
                data = plain.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {path}: {why}") from error
    if len(data) > most:
        raise ConfigError(f"{path.name} is refused: it is larger than {most >> 20} MiB")
    return data

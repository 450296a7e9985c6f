# SPDX-License-Identifier: GPL-2.0-or-later
"""What a series and its patches are, and what their subjects and trailers say."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError

_PREFIXES = re.compile(r"\s*((?:\[[^\]]*\]\s*)+)")
_VERSION = re.compile(r"(?:\b|patch)v(\d{1,9})\b", re.IGNORECASE)
_COUNTER = re.compile(r"\b(\d{1,4})/(\d{1,4})\b")
_TRAILER = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,60}):\s+(\S.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patch; `text` is a mail that `git am` takes, checked (harness.series.mail)."""

    # of a file: "0001-x86-mm-pat-Skip-both-flushes.patch"
    name: str
    # without what stands in brackets before it
    subject: str
    # "Ada Example <ada@example.org>"
    author: str
    message_id: str | None
    text: bytes
    # the paths it touches, sorted
    files: tuple[str, ...]
    # the last paragraph of its message: ("Signed-off-by", "Ada Example <ada@example.org>"), ...
    trailers: tuple[tuple[str, str], ...]

    def trailer(self, key: str) -> tuple[str, ...]:
        """The values of a trailer, in order; its key in any case."""
        return tuple(value for name, value in self.trailers if name.lower() == key.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Patches in order, all of one version."""

    # for people: the title of its cover letter, or the name of its file or directory
    name: str
    version: int
    # subject and text of the cover letter
    cover: str | None
    patches: tuple[Patch, ...]
    # what was decided on the way: one sentence each
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Identifies the patches."""
        return hashlib.sha256(b"\0".join(patch.text for patch in self.patches)).hexdigest()[:12]

    def write(self, directory: Path) -> tuple[Path, ...]:
        """The patches as files, in order."""
        return write(self.patches, directory)


def write(patches: Sequence[Patch], directory: Path) -> tuple[Path, ...]:
    """The patches as files, in order, for harness.kernel.build and `git am`."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = tuple(directory / patch.name for patch in patches)
    for path, patch in zip(paths, patches, strict=True):
        path.write_bytes(patch.text)
    return paths


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the brackets of a subject say: `[PATCH RFC v3 2/5]`."""

    version: int = 1
    # 0 is the cover letter
    counter: int | None = None
    expected: int | None = None


def numbers(subject: str) -> Numbers | None:
    """None for a subject that is no patch's: a reply, or one without brackets."""
    prefixes = _PREFIXES.match(subject)
    if not prefixes:
        return None
    version, counter = _VERSION.search(prefixes[1]), _COUNTER.search(prefixes[1])
    return Numbers(
        int(version[1]) if version else 1,
        int(counter[1]) if counter else None,
        int(counter[2]) if counter else None,
    )


def title(subject: str) -> str:
    """The subject without brackets and line breaks."""
    prefixes = _PREFIXES.match(subject)
    return " ".join(subject[prefixes.end() if prefixes else 0 :].split())


def slug(text: str) -> str:
    """A subject as a part of a file name, as git format-patch does it."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")[:52].rstrip("-.") or "patch"


def trailers(message: str) -> tuple[tuple[str, str], ...]:
    """The trailers of a commit message: of its last paragraph those lines that are some."""
    last = message.strip().rsplit("\n\n", 1)[-1]
    found = (_TRAILER.fullmatch(line.rstrip()) for line in last.split("\n"))
    return tuple((match[1], match[2]) for match in found if match)


def in_order(found: Sequence[tuple[Numbers, Patch]], what: str) -> tuple[Patch, ...]:
    """Patches of one version by their numbers, or as they come when they have none.

    Raises ConfigError that names the numbers that are missing.
    """
    counters = {n.counter: patch for n, patch in found if n.counter}
    expected = max((n.expected or 0 for n, _ in found), default=0)
    missing = [str(n) for n in range(1, expected + 1) if n not in counters]
    if missing:
        which = f"{', '.join(missing[:10])}{' ...' if len(missing) > 10 else ''}"
        raise ConfigError(
            f"{what} is not whole: patch {which} of {expected} is missing",
            hint="download the whole thread, or name the patches in a series file",
        )
    if expected and len(counters) < len(found):
        raise ConfigError(f"{what} has two patches of the same number")
    return tuple(counters[n] for n in sorted(counters)) if expected else tuple(p for _, p in found)

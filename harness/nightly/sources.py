# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels of a night: its series and their known issues, its bases and configurations, read.

What cannot be had costs its own cells and is told; the rest of the night goes on.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from harness.errors import ConfigError, HarnessError
from harness.history.records import CellKey
from harness.kernel.build import is_built
from harness.kernel.kconfig import DISTRIBUTION, LEAN, Config, config_of
from harness.kernel.origin import Base, base_of
from harness.kernel.worktree import patchset_hash
from harness.known import KnownIssue
from harness.nightly.config import NightConfig, SeriesEntry
from harness.nightly.plan import Wanted
from harness.series.issues import issues_of, read_issues
from harness.series.read import read_series
from harness.session import Progress
from harness.text import printable

NO_PATCHES = "no patches"
_RANGE = re.compile(r"[^\s@/]+\.\.[^\s@/]+")
_Got = TypeVar("_Got")
_SUBJECT_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSeries:
    """A series that was read; a night without a series has one without patches."""

    name: str
    bases: tuple[str, ...]
    each: bool = True
    subjects: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    # of the first so many patches, beginning with none
    hashes: tuple[str, ...] = ("",)
    known: tuple[KnownIssue, ...] = ()
    # what was decided while it was read
    notes: tuple[str, ...] = ()

    @property
    def numbers(self) -> tuple[int, ...]:
        """Of the kernels to run: 0 is the base."""
        last = len(self.files)
        return tuple(range(last + 1)) if self.each or not last else (0, last)


@dataclass(slots=True, kw_only=True)
class Sources:
    """What could be had, and why the rest could not."""

    series: dict[str, NightSeries] = field(default_factory=dict)
    # by the word of the file
    bases: dict[str, Base | HarnessError] = field(default_factory=dict)
    # by the words of base and configuration
    configs: dict[tuple[str, str], Config | HarnessError] = field(default_factory=dict)
    # series that could not be read: one sentence each
    unread: list[str] = field(default_factory=list)

    def missing(self, key: CellKey) -> HarnessError | None:
        """Why the kernel of a cell cannot even be begun."""
        for found in (self.bases[key.base], self.configs[key.base, key.config]):
            if isinstance(found, HarnessError):
                return found
        return None

    def parts(self, key: CellKey) -> tuple[Base, tuple[Path, ...], Config]:
        """What the kernel of a cell is built of. Raises what missing() gives."""
        base, config = self.bases[key.base], self.configs[key.base, key.config]
        if isinstance(base, HarnessError):
            raise base
        if isinstance(config, HarnessError):
            raise config
        return base, self.series[key.series].files[: key.patch_number], config

    def is_built(self, key: CellKey) -> bool:
        """Whether the kernel of a cell is in the cache."""
        try:
            return is_built(*self.parts(key))
        except HarnessError:
            # It is told where the kernel is needed.
            return False

    def wanted(self, night: NightConfig) -> list[Wanted]:
        """The matrix, series by series; cells whose base cannot be had are in it, too."""
        return [
            self._wanted(series, base, number, config, guest)
            for series in self.series.values()
            for base in series.bases
            for config in night.configs
            for guest in _guests(night)
            for number in series.numbers
        ]

    def _wanted(
        self,
        series: NightSeries,
        base: str,
        number: int,
        config: str,
        guest: tuple[int, str, str],
    ) -> Wanted:
        vcpus, mode, host = guest
        key = CellKey(
            base=base,
            series=series.name,
            patch_number=number,
            patch=series.subjects[number - 1] if number else "",
            config=config,
            vcpus=vcpus,
            mode=mode,
            host=host,
        )
        found = self.bases[base]
        commit = "" if isinstance(found, HarnessError) else found.commit
        return Wanted(key=key, commit=commit, patchset=series.hashes[number])


def _guests(night: NightConfig) -> Iterator[tuple[int, str, str]]:
    for host in night.hosts:
        for mode in night.modes:
            for vcpus in night.vcpus:
                yield vcpus, mode, host


def read_sources(night: NightConfig, place: Path, progress: Progress) -> Sources:
    """Read all that the night needs; patches are written below `place`.

    Raises ConfigError for a file of known issues that is none, and when no series can be read.
    """
    found = Sources()
    first: HarnessError | None = None
    common = read_issues(night.home / night.known) if night.known else ()
    for entry in night.series:
        word = located(entry.source, night.home)
        named = night.home / entry.known if entry.known else None
        issues = (*issues_of(word, named), *common)
        try:
            series = _series(entry, word, issues, place)
        except HarnessError as error:
            first = first or error
            name = printable(entry.name or entry.source, 60)
            found.unread.append(f"the series {name} was left out: {error.message}")
            continue
        if series.name in found.series:
            raise ConfigError(
                f"two series of the night are called {printable(series.name, 60)}",
                hint="give them names in the file",
            )
        found.series[series.name] = series
    if not night.series:
        found.series[NO_PATCHES] = NightSeries(name=NO_PATCHES, bases=night.bases, known=common)
    if first and not found.series:
        raise first
    _read_bases(found, night, progress)
    return found


def _series(
    entry: SeriesEntry, word: str, issues: tuple[KnownIssue, ...], place: Path
) -> NightSeries:
    series = read_series(word)
    files = series.write(place / series.digest)
    return NightSeries(
        name=entry.name or printable(series.name, 100),
        bases=entry.bases,
        each=entry.each,
        subjects=tuple(printable(patch.subject, _SUBJECT_LENGTH) for patch in series.patches),
        files=files,
        hashes=tuple(patchset_hash(files[:count]) for count in range(len(files) + 1)),
        known=issues,
        notes=series.notes,
    )


def _read_bases(found: Sources, night: NightConfig, progress: Progress) -> None:
    for base in dict.fromkeys(base for series in found.series.values() for base in series.bases):
        progress(f"getting {base}")
        word = located(base, night.home)
        found.bases[base] = _had(base_of, word)
        for config in night.configs:
            name = config if config in (LEAN, DISTRIBUTION) else located(config, night.home)
            found.configs[base, config] = _had(config_of, name, word)


def _had(get: Callable[..., _Got], *words: str) -> _Got | HarnessError:
    try:
        return get(*words)
    except HarnessError as error:
        return error


def located(word: str, home: Path) -> str:
    """A word of the file, with the path in it, if it has one, taken from `home`.

    A range of git without a tree is one of the tree that the file is in.
    """
    path, at, rest = word.rpartition("@")
    for name, more in ((word, ""), (path, f"{at}{rest}")):
        if name and "\0" not in name and (home / name).exists():
            return f"{home / name}{more}"
    return f"{home}@{word}" if _RANGE.fullmatch(word) else word

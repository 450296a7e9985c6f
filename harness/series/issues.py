# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of known issues that belongs to a series (harness.known): where it is, and its text."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.known import MOST_BYTES, KnownIssue, Sorted, parse_known, sort_out
from harness.series.compare import Bug

BESIDE = "known-issues.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issues:
    """The known issues of a series on one base, on one day."""

    issues: tuple[KnownIssue, ...] = ()
    # the word for the base, as `--base` has it
    base: str = ""
    today: datetime.date = datetime.date.max

    def of(self, bug: Bug) -> KnownIssue | None:
        """The issue that a bug is; what has expired holds no longer."""
        known = self._sort_out((bug,)).known
        return known[0][1] if known else None

    def notes(self, seen: Iterable[Bug]) -> list[str]:
        """What has to be told of issues past their day, and of those that are not `seen`."""
        found = self._sort_out(seen)
        expired = [issue.remark(self.today, seen=False) for issue in found.expired]
        return expired + [issue.remark(self.today, seen=False) for issue in found.unseen]

    def _sort_out(self, found: Iterable[Bug]) -> Sorted:
        findings = (bug.finding for bug in found)
        return sort_out(findings, self.issues, base=self.base, today=self.today)


def issues_of(source: str, named: Path | None = None) -> tuple[KnownIssue, ...]:
    """The known issues of a series: of the file that is named, or of the one beside the series.

    `source` is the word for the series (harness.series.read). Raises ConfigError for a file that
    is named and not there, and for one that is none.
    """
    path = named or _beside(source)
    return read_issues(path) if path else ()


def read_issues(path: Path) -> tuple[KnownIssue, ...]:
    """The known issues of a file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the known issues {path}: {error.strerror}") from error
    return parse_known(data, str(path))


def _beside(source: str) -> Path | None:
    """In the directory of a series, beside its file, or in its git tree."""
    place = Path(source)
    if place.is_file():
        place = place.parent
    elif not place.is_dir():
        place = Path(source.rpartition("@")[0] or ".")
    return place / BESIDE if (place / BESIDE).is_file() else None

# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of known issues that belongs to a series (harness.known): where it is, and its text."""

from pathlib import Path

from harness.errors import ConfigError
from harness.known import MOST_BYTES, KnownIssue, parse_known

BESIDE = "known-issues.toml"


def issues_of(source: str, named: Path | None = None) -> tuple[KnownIssue, ...]:
    """The known issues of a series: of the file that is named, or of the one beside the series.

    `source` is the word for the series (harness.series.read). Raises ConfigError for a file that
    is named and not there, and for one that is none.
    """
    path = named or _beside(source)
    if path is None:
        return ()
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

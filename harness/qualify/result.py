# SPDX-License-Identifier: GPL-2.0-or-later
"""What a qualification found, and how that compares with the host's last one."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import EvidenceError
from harness.text import printable
from harness.verdict import Outcome, worst

SCHEMA = 1
_MOST_EVIDENCE = 40
_MOST_LENGTH = 300
# A time that moved by less is the same.
_NOISE = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One requirement, what was seen of it, and figures that can be compared (seconds, counts)."""

    id: str
    requirement: str
    outcome: Outcome
    evidence: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    # run directories, relative to the qualification's own
    runs: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `result_of` takes it."""
        return {**dataclasses.asdict(self), "outcome": self.outcome.value}


def result_of(data: Any) -> Result:
    """Raises EvidenceError for what is none."""
    try:
        return Result(
            id=_text(data["id"]),
            requirement=_text(data["requirement"]),
            outcome=Outcome(data["outcome"]),
            evidence=tuple(map(_text, data["evidence"][:_MOST_EVIDENCE])),
            figures={_text(name): float(value) for name, value in data["figures"].items()},
            runs=tuple(map(_text, data["runs"])),
            seconds=float(data["seconds"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"this is no result of a qualification: {error!r}") from error


def _text(word: Any) -> str:
    if not isinstance(word, str):
        raise TypeError("a text was expected")
    return printable(word, _MOST_LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Qualification:
    """A whole one. `ended_s` is 0 as long as it goes on; times are Unix time."""

    number: int
    host: str
    profile: str
    started_s: float
    ended_s: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    results: tuple[Result, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """The worst of the results; EMPTY when there is none."""
        return worst(one.outcome for one in self.results)

    def result(self, id: str) -> Result | None:
        """The result of one requirement."""
        return next((one for one in self.results if one.id == id), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `qualification_of` takes it."""
        return {
            **dataclasses.asdict(self),
            "schema": SCHEMA,
            "outcome": self.outcome.value,
            "results": [one.to_json() for one in self.results],
        }


def qualification_of(data: Any) -> Qualification:
    """Raises EvidenceError for what is none."""
    try:
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        return Qualification(
            number=int(data["number"]),
            host=_text(data["host"]),
            profile=_text(data["profile"]),
            started_s=float(data["started_s"]),
            ended_s=float(data["ended_s"]),
            versions={_text(name): _text(value) for name, value in data["versions"].items()},
            results=tuple(map(result_of, data["results"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"this is no qualification: {error!r}") from error


def change(now: Result, last: Result | None) -> str:
    """A requirement against the last time: "better", "worse", "same", or "" for what either
    time was not asked.

    The outcome decides; where it is the same, a time that grew or shrank by a quarter.
    """
    if last is None or Outcome.SKIP in (now.outcome, last.outcome):
        return ""
    if now.outcome is not last.outcome:
        return "worse" if worst((now.outcome, last.outcome)) is now.outcome else "better"
    ratio = ratios(now, last).get("guest_s", 1.0)
    return "worse" if ratio > _NOISE else "better" if ratio < 1 / _NOISE else "same"


def ratios(now: Result, last: Result) -> dict[str, float]:
    """Figures over those of the last time."""
    return {
        name: value / last.figures[name]
        for name, value in now.figures.items()
        if last.figures.get(name)
    }

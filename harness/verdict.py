# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes, findings and the verdict: the harness's answer, as plain data."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from harness.errors import ExitCode


class Outcome(StrEnum):
    """How a run or a test ended; declared worst first (DESIGN.md, verdict order)."""

    FAIL = "FAIL"
    ERROR = "ERROR"
    EMPTY = "EMPTY"
    PASS = "PASS"
    SKIP = "SKIP"

    @property
    def exit_code(self) -> ExitCode:
        """The documented exit code of this outcome."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Outcome.FAIL: ExitCode.FINDINGS,
    Outcome.ERROR: ExitCode.CANNOT_JUDGE,
    Outcome.EMPTY: ExitCode.CANNOT_JUDGE,
    Outcome.PASS: ExitCode.PASS,
    Outcome.SKIP: ExitCode.PASS,
}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of the outcomes; EMPTY when there are none."""
    order = list(Outcome)
    return min(outcomes, key=order.index, default=Outcome.EMPTY)


class Severity(StrEnum):
    """FAIL makes the verdict FAIL; REPORT is shown and counted only."""

    FAIL = "fail"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place in guest code: `function+0x1c/0x80`, with the address that was recorded."""

    address: int
    symbol: str | None = None

    def __str__(self) -> str:
        return self.symbol or f"{self.address:#x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken rule, in one place.

    `rule` is a rule id of DESIGN.md section 3, or `kernel-log`. `summary` is one plain sentence.
    """

    rule: str
    severity: Severity
    summary: str
    # one sentence: what to look at
    look_at: str = ""
    # guest-physical address of the page, and line numbers (0-63) within it where lines are meant
    gpa: int | None = None
    lines: tuple[int, ...] = ()
    # linear address where a translation is meant
    gva: int | None = None
    # "private to shared" | "shared to private"
    direction: str | None = None
    vcpu: int | None = None
    # evidence word of guest-tlb-flush: "unflushed" | "used"; of private-access-to-shared: "mapped",
    # or None for an access
    evidence: str | None = None
    # the instruction that did it, and the one that stored or changed before
    site: Site | None = None
    store_site: Site | None = None
    conversion_site: Site | None = None
    trace: tuple[Site, ...] = ()
    # sequence number of the event, or line number of the log
    seq: int | None = None
    # how many alike were folded into this one
    count: int = 1
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, as in verdict.json."""
        data = asdict(self)
        for key in ("site", "store_site", "conversion_site"):
            value = getattr(self, key)
            data[key] = (
                None if value is None else {"address": value.address, "symbol": value.symbol}
            )
        data["trace"] = [{"address": s.address, "symbol": s.symbol} for s in self.trace]
        data["lines"] = list(self.lines)
        data["severity"] = self.severity.value
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one run or one test."""

    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    # why the outcome is ERROR, EMPTY or SKIP: one sentence
    reason: str = ""
    # which evidence there was: "events", "guest-kernel-log", "dma-data", "guest-mce", "host-mce"
    evidence: tuple[str, ...] = ()
    # conversions, lines flushed, steps ...: counts for people
    counts: dict[str, int] = field(default_factory=dict)
    # what the stub's VMM did wrong on purpose, one phrase each
    misbehaved: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, as in verdict.json."""
        return {
            "outcome": self.outcome.value,
            "reason": self.reason,
            "evidence": list(self.evidence),
            "counts": dict(self.counts),
            "misbehaved": list(self.misbehaved),
            "findings": [f.to_json() for f in self.findings],
        }

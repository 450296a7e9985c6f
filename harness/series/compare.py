# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch changed, by the verdicts of two runs: new, fixed, the same; flaky on evidence only.

A finding that a run does not have is gone only if the run went as far as the other: a guest that
died on the way may have kept it to itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.triage import identity_of, title_of
from harness.verdict import Finding, Outcome, Severity, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """All findings of a run that are the same bug (harness.triage)."""

    identity: str
    title: str
    severity: Severity
    # the first of them
    finding: Finding
    # how many
    count: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "identity": self.identity,
            "title": self.title,
            "severity": self.severity.value,
            "count": self.count,
            "finding": self.finding.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs; every bug of either is in exactly one of these, in the order of the runs."""

    new: tuple[Bug, ...] = ()
    fixed: tuple[Bug, ...] = ()
    # as the base had it, as the patched kernel has it
    same: tuple[tuple[Bug, Bug], ...] = ()
    # in the patched run only, but the base's did not get as far: to be treated as new
    perhaps_new: tuple[Bug, ...] = ()
    # in the base's run only, but the patched one did not get as far
    perhaps_fixed: tuple[Bug, ...] = ()


class Standing(StrEnum):
    """What a second run in a fresh guest says of a new bug."""

    CONFIRMED = "confirmed"
    FLAKY = "flaky"
    # the second run could not show it: it stays new
    UNCONFIRMED = "unconfirmed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rechecked:
    """A bug of a first run after a second one; both verdicts are kept."""

    bug: Bug
    standing: Standing
    first: Verdict
    again: Verdict


def bugs(findings: Iterable[Finding]) -> dict[str, Bug]:
    """Findings by the bug that they are; severe ones decide the severity."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if not finding.extra.get("expected"):
            found.setdefault(identity_of(finding), []).append(finding)
    return {
        identity: Bug(
            identity=identity,
            title=title_of(alike[0]),
            severity=min((f.severity for f in alike), key=list(Severity).index),
            finding=alike[0],
            count=sum(f.count for f in alike),
        )
        for identity, alike in found.items()
    }


def went_as_far(verdict: Verdict, other: Verdict | None = None) -> bool:
    """Whether a run says all it can: nothing broke off, and no step of the other is lacking."""
    if verdict.outcome not in (Outcome.PASS, Outcome.FAIL) or verdict.reason:
        return False
    if verdict.counts.get("bugs_left_out") or verdict.counts.get("steps_unended"):
        return False
    if any(f.rule == "workload" and f.extra.get("rc") is None for f in verdict.findings):
        # the guest died or hung between steps
        return False
    return other is None or verdict.counts.get("steps", 0) >= other.counts.get("steps", 0)


def compare(base: Verdict, patched: Verdict) -> Comparison:
    """What the patched kernel has that the base has not, and the other way round."""
    before, after = bugs(base.findings), bugs(patched.findings)
    only_after = tuple(bug for identity, bug in after.items() if identity not in before)
    only_before = tuple(bug for identity, bug in before.items() if identity not in after)
    base_whole, patched_whole = went_as_far(base, patched), went_as_far(patched, base)
    return Comparison(
        new=only_after if base_whole else (),
        perhaps_new=() if base_whole else only_after,
        fixed=only_before if patched_whole else (),
        perhaps_fixed=() if patched_whole else only_before,
        same=tuple((before[identity], after[identity]) for identity in before if identity in after),
    )


def recheck(found: Iterable[Bug], first: Verdict, again: Verdict) -> tuple[Rechecked, ...]:
    """Bugs of a run by what a second run, in a fresh guest, has of them."""
    seen = bugs(again.findings)
    absent = Standing.FLAKY if went_as_far(again, first) else Standing.UNCONFIRMED
    return tuple(
        Rechecked(
            bug=bug,
            standing=Standing.CONFIRMED if bug.identity in seen else absent,
            first=first,
            again=again,
        )
        for bug in found
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether an injected fault was caught: by the right rule, at the place where it was planted."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.events import PAGE_BYTES, Event, Flag, Kind
from harness.faults import Fault
from harness.rules.context import counted
from harness.verdict import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One fault, one guest."""

    # each expected rule found it, where it was planted, and nothing was found elsewhere
    caught: bool
    expected: tuple[str, ...]
    found: tuple[str, ...]
    # where; "never applied" when the selector picked no conversion
    place: str
    # findings that this fault does not explain
    stray: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class _Planted:
    """One FAULT record: `what` is a mask of lines or vCPUs, `seq` is the conversion's."""

    gpa: int
    end: int
    what: int
    seq: int


def score(fault: Fault, events: Sequence[Event], findings: Sequence[Finding]) -> Score:
    """The score of a fault from the events and findings of its slice, or of its whole run."""
    planted = [_planted(e) for e in events if e.kind is Kind.FAULT]
    found = tuple(dict.fromkeys(f.rule for f in findings))
    if not planted:
        return Score(
            caught=False,
            expected=fault.rules,
            found=found,
            place="never applied",
            stray=tuple(findings),
        )
    here = [f for f in findings if f.rule in fault.rules and _is_here(f, planted)]
    stray = tuple(f for f in findings if f not in here and not _explained(f, fault, planted))
    complete = {f.rule for f in here} == set(fault.rules) and _all_found(fault, planted, events)
    return Score(
        caught=complete and not stray,
        expected=fault.rules,
        found=found,
        place=_place(here),
        stray=stray,
    )


def _planted(event: Event) -> _Planted:
    _, gpa, size, what, seq = event.args
    return _Planted(gpa, gpa + size, what, seq)


def _range(finding: Finding) -> tuple[int, int] | None:
    """The guest memory that a finding is about; for TLBs, its first page."""
    if finding.gpa is None:
        return None
    given = finding.extra.get("range")
    if given and finding.rule not in ("guest-tlb-flush", "guest-cache-flush"):
        return int(given[0]), int(given[1])
    return finding.gpa, finding.gpa + PAGE_BYTES


def _is_here(finding: Finding, planted: Sequence[_Planted]) -> bool:
    place = _range(finding)
    if place is None:
        return False
    hit = [p for p in planted if p.gpa < place[1] and place[0] < p.end]
    if finding.rule == "guest-cache-flush":
        return any(p.seq == finding.seq and _lines(p.what) == finding.lines for p in hit)
    if finding.rule == "guest-tlb-flush":
        vcpu, seq = finding.vcpu or 0, finding.extra.get("conversion")
        return any(p.what >> vcpu & 1 and p.seq == seq for p in hit)
    return bool(hit)


def _lines(mask: int) -> tuple[int, ...]:
    return tuple(line for line in range(64) if mask >> line & 1)


def _explained(finding: Finding, fault: Fault, planted: Sequence[_Planted]) -> bool:
    """What a guest that goes on after the fault must run into."""
    return finding.rule in fault.also and (finding.gpa is None or _is_here(finding, planted))


def _all_found(fault: Fault, planted: Sequence[_Planted], events: Sequence[Event]) -> bool:
    """Whether the events tell of all that was planted, and of nothing more."""
    if "guest-cache-flush" in fault.rules:
        lines: dict[int, int] = {}
        for p in planted:
            pages = (p.end - p.gpa) // PAGE_BYTES
            lines[p.seq] = lines.get(p.seq, 0) + pages * p.what.bit_count()
        return lines == {
            e.seq: e.args[3]
            for e in events
            if e.kind is Kind.CONVERT and e.flags & Flag.TO_SHARED and e.args[3]
        }
    if "guest-tlb-flush" in fault.rules:
        return _owed(planted) == {
            (e.vcpu, page)
            for e in events
            if e.kind is Kind.STALE
            for page in range(e.args[1], e.args[1] + e.args[2], PAGE_BYTES)
        }
    return True


def _owed(planted: Sequence[_Planted]) -> set[tuple[int, int]]:
    return {
        (vcpu, page)
        for p in planted
        for vcpu in range(64)
        if p.what >> vcpu & 1
        for page in range(p.gpa, p.end, PAGE_BYTES)
    }


def _place(here: Sequence[Finding]) -> str:
    """Words for where it was found."""
    words = []
    for finding in here:
        place = _range(finding)
        assert place is not None
        text = f"{place[0]:#x}" if place[1] - place[0] <= PAGE_BYTES else (
            f"{place[0]:#x}-{place[1] - 1:#x}"
        )  # fmt: skip
        if finding.rule == "guest-tlb-flush":
            text += f" on vCPU {finding.vcpu}"
        elif finding.rule == "guest-cache-flush":
            text += f", {counted(int(finding.extra.get('dirty_lines', 0)), 'line')}"
        words.append(text)
    return "; ".join(dict.fromkeys(words)) or "nowhere"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Caught means: the right rule, at the planted place, all of it, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import EvidenceError
from harness.events import Event, Flag, Header, Kind, Stream
from harness.evidence import Evidence, load
from harness.faults import EVERY, FAULTS, Fault, parse
from harness.injected import scores_of
from harness.judge import verdict_of
from harness.rules.check import check_events
from harness.rules.context import context_of
from harness.rundir import RunDir
from harness.score import Score, score
from harness.verdict import Finding, Outcome, Severity

GPA, PAGE = 0x2000000, 4096
CACHE, TLB = FAULTS["cache-all"], FAULTS["tlb-shared-others"]
ACCEPT, SHORT = FAULTS["accept-last-page"], FAULTS["mapgpa-shared-last-page"]
STRAY = Finding(rule="tdcall-contract", severity=Severity.FAIL, summary="s", gpa=GPA)


def event(seq: int, kind: Kind, *args: int, vcpu: int = 0, shared: bool = False) -> Event:
    a, b, c, d, e = (*args, 0, 0, 0, 0, 0)[:5]
    flags = Flag.TO_SHARED if shared else Flag(0)
    return Event(seq, kind, vcpu, flags, 0, (a, b, c, d, e))


def scored(fault: Fault, events: list[Event], *more: Finding) -> Score:
    return score(fault, events, [*check_events(events, context_of(events)), *more])


def cache(
    *, found: int = GPA, lines: int = 2, planted: int = 0b11, fault_seq: int = 0
) -> list[Event]:
    return [
        event(0, Kind.CONVERT, GPA, 2 * PAGE, 0, lines, 62 << 32, shared=True),
        event(1, Kind.DIRTY_RUN, found, lines, 0, 0, 0),
        event(2, Kind.FAULT, 1, GPA, PAGE, planted, fault_seq, shared=True),
    ]


def test_a_cache_fault_is_caught() -> None:
    result = scored(CACHE, cache())
    assert result.caught
    assert result.found == result.expected == ("guest-cache-flush",)
    assert result.place == f"{GPA:#x}, 2 lines"
    assert not result.stray


@pytest.mark.parametrize(
    "events",
    [
        cache(found=GPA + PAGE),  # another page
        cache(found=GPA + 64),  # another line
        cache(lines=3),  # more than was planted
        cache(planted=0b111),  # less than was planted
        cache(fault_seq=9),  # another conversion
    ],
)
def test_a_cache_fault_found_elsewhere_is_missed(events: list[Event]) -> None:
    assert not scored(CACHE, events).caught


def test_a_fault_that_was_never_applied_is_missed() -> None:
    result = scored(CACHE, cache()[:2])
    assert not result.caught
    assert result.place == "never applied"
    assert [f.rule for f in result.stray] == ["guest-cache-flush"]


def test_what_else_is_found_is_stray() -> None:
    result = scored(CACHE, cache(), STRAY)
    assert not result.caught
    assert result.stray == (STRAY,)
    assert result.place == f"{GPA:#x}, 2 lines"


def test_nothing_found_is_missed() -> None:
    result = scored(CACHE, [cache()[2]])
    assert (result.caught, result.place, result.stray) == (False, "nowhere", ())


def tlb(vcpus: tuple[int, ...] = (1, 2), mask: int = 0b110, page: int = GPA) -> list[Event]:
    return [
        event(0, Kind.PTE_CHANGE, 0xFF11 << 48, GPA, 1, 1 | 1 << 52, PAGE, shared=True),
        *(
            event(1 + v, Kind.STALE, 0xFF11 << 48, page, PAGE, 0, vcpu=v, shared=True)
            for v in vcpus
        ),
        event(8, Kind.CONVERT, GPA, PAGE, shared=True),
        event(9, Kind.FAULT, 1, GPA, PAGE, mask, 8, shared=True),
    ]


def test_a_tlb_fault_is_caught_on_each_vcpu() -> None:
    result = scored(TLB, tlb())
    assert result.caught
    assert result.place == f"{GPA:#x} on vCPU 1; {GPA:#x} on vCPU 2"


@pytest.mark.parametrize(
    "events",
    [
        tlb(vcpus=(1,)),
        tlb(vcpus=(0, 1, 2)),
        tlb(vcpus=(0, 2)),
        tlb(mask=0b10),
        tlb(page=GPA + PAGE),
    ],
)
def test_a_tlb_fault_on_other_vcpus_is_missed(events: list[Event]) -> None:
    assert not scored(TLB, events).caught


def accept(page: int) -> list[Event]:
    return [
        event(0, Kind.CONVERT, GPA, 4 * PAGE),
        event(1, Kind.FAULT, 1, GPA + 3 * PAGE, PAGE, 0, 0),
        event(2, Kind.UNACCEPTED, 0xFF11 << 48, page + 64, 2),
    ]


def test_an_accept_fault() -> None:
    assert scored(ACCEPT, accept(GPA + 3 * PAGE)).caught
    result = scored(ACCEPT, accept(GPA + 2 * PAGE))
    assert not result.caught
    assert [f.rule for f in result.stray] == ["unaccepted-access"]


def test_what_a_fault_leads_to_is_not_stray() -> None:
    log = Finding(rule="kernel-log", severity=Severity.FAIL, summary="WARNING")
    events = [
        event(0, Kind.CONVERT, GPA, PAGE, shared=True),
        event(1, Kind.FAULT, 1, GPA, PAGE, 0, 0, shared=True),
        replace(event(2, Kind.WRONG_ALIAS, 0xFF11 << 48, GPA, 0), flags=Flag.SHARED),
    ]
    assert scored(SHORT, events, log).caught
    assert not scored(ACCEPT, accept(GPA + 3 * PAGE), log).caught
    there = replace(STRAY, rule="double-accept", extra={"range": [GPA, GPA + PAGE]})
    assert scored(SHORT, events, there).caught
    elsewhere = replace(there, gpa=GPA + PAGE, extra={})
    assert scored(SHORT, events, elsewhere).stray == (elsewhere,)


TD_LOG = b"[    0.040000] Memory Encryption Features active: Intel TDX\n"


@pytest.mark.parametrize(
    ("text", "applied", "outcome", "reason"),
    [
        ("cache-all", (1,), Outcome.PASS, ""),
        ("cache-all", (), Outcome.EMPTY, "never applied, for no conversion was picked: cache-all"),
        ("cache-all+tlb-shared-self", (1,), Outcome.EMPTY, "picked: tlb-shared-self"),
    ],
)
def test_a_fault_that_was_never_applied_proves_nothing(
    text: str, applied: tuple[int, ...], outcome: Outcome, reason: str
) -> None:
    events = [event(0, Kind.CONVERT, GPA, PAGE, shared=True)]
    events += [event(n, Kind.FAULT, n, GPA, PAGE, 1, 0) for n in applied]
    stream = Stream(Header(1, 53, 0, 0), tuple(events), True)
    evidence = Evidence(td_mode="stub", stream=stream, log=TD_LOG, injections=parse(text))
    verdict = verdict_of(evidence)
    assert verdict.outcome == outcome
    assert reason in verdict.reason
    assert verdict.counts["faults_applied"] == len(applied)


def test_a_fault_that_run_json_misspells_is_broken_evidence(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_json(run.run_json, {"fault": "cache-nothing", "planned_stop": True})
    assert any("no fault 'cache-nothing'" in sentence for sentence in load(run).broken)


def in_slices(*parts: tuple[int, list[Event]]) -> tuple[Event, ...]:
    """Parts of events, each between the marks of its id, numbered anew."""
    events: list[Event] = []
    for mark, part in parts:
        events += [event(0, Kind.MARK, 1, mark), *part, event(0, Kind.MARK, 2, mark)]
    return tuple(replace(e, seq=n) for n, e in enumerate(events))


def test_each_fault_is_scored_by_its_own_slice() -> None:
    injections = parse(EVERY)[:3]
    marks = [one.mark or 0 for one in injections]
    second = cache(planted=0b10, lines=1, found=GPA + 64)
    # What a record says of a conversion is its number in the whole stream.
    second = [
        replace(e, args=(*e.args[:4], 6)) if e.kind is not Kind.CONVERT else e for e in second
    ]
    first = [
        replace(e, args=(*e.args[:4], 1)) if e.kind is not Kind.CONVERT else e for e in cache()
    ]
    events = in_slices((marks[0], first), (marks[1], second))
    log = b"".join(
        b"[    1.000000] tdharness: mark begin %d\n[    1.000000] tdharness: mark end %d\n" % (m, m)
        for m in marks[:2]
    )
    stream = Stream(Header(2, 53, 0, 0), events, True)
    scores = scores_of(Evidence(td_mode="stub", stream=stream, log=log), injections)
    assert [one.fault.name for one, _ in scores] == [one.fault.name for one in injections[:2]]
    assert [result.caught for _, result in scores] == [True, True]
    assert [result.place for _, result in scores] == [f"{GPA:#x}, 2 lines", f"{GPA:#x}, 1 line"]


def test_without_events_nothing_can_be_scored() -> None:
    with pytest.raises(EvidenceError, match="no event stream"):
        scores_of(Evidence(td_mode="stub"), parse(EVERY))

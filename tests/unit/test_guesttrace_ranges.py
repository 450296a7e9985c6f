# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversions and calls of MapGPA that are not of one and the same range."""

import pytest

from harness.errors import EvidenceError
from harness.events import Event, Flag, Kind
from harness.guesttrace import model, read
from harness.judge import judge_slice
from harness.testing.traces import LINE, PAGE, STACK, Area, TraceBuilder

AREA = Area()
OTHER = Area(gpa=0x7000000, pages=3, task=0x60, cpu=1)


def of_kind(trace: TraceBuilder, kind: Kind) -> list[Event]:
    return [event for event in read(trace.text).events if event.kind is kind]


def stale(trace: TraceBuilder) -> list[tuple[int, int, int]]:
    """The translations that were left, as (CPU, first address, bytes)."""
    return [(event.vcpu, event.args[1], event.args[2]) for event in of_kind(trace, Kind.STALE)]


def in_two_calls(
    *, pieces: tuple[tuple[int, int], ...], refused: int | None = None
) -> TraceBuilder:
    """AREA page by page, as MapGPA goes on where it stopped; CPU 1 does not invalidate."""
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    trace.flush(AREA, pieces)
    trace.changed(AREA)
    trace.invalidate(AREA, [0])
    for page in range(2):
        part = Area(gpa=AREA.gpa + page * PAGE, pages=1)
        trace.map(part, to_shared=True, succeeds=page != refused)
    trace.converted(AREA)
    return trace


def test_each_mapgpa_is_judged_by_its_own_pages() -> None:
    trace = in_two_calls(pieces=((0, PAGE - LINE), (PAGE, LINE)))
    found = [e.args for e in of_kind(trace, Kind.CONVERT)]
    assert found == [
        (AREA.gpa, PAGE, 0, 1, 63 << 32),
        (AREA.gpa + PAGE, PAGE, 0, 63, 1 << 32),
    ]
    assert stale(trace) == [(1, AREA.gpa, PAGE), (1, AREA.gpa + PAGE, PAGE)]
    findings = judge_slice(read(trace.text).events, "", [], td_mode="tdx").findings
    assert [(f.rule, f.gpa) for f in findings] == [
        ("guest-cache-flush", AREA.gpa),
        ("guest-cache-flush", AREA.gpa + PAGE),
        ("guest-tlb-flush", AREA.gpa),
        ("guest-tlb-flush", AREA.gpa + PAGE),
    ]
    half = in_two_calls(pieces=(), refused=0)
    assert stale(half) == [(1, AREA.gpa + PAGE, PAGE)]
    assert [e.args[3] for e in of_kind(half, Kind.CONVERT)] == [0, 64]


@pytest.mark.parametrize("to_shared", [True, False])
def test_mapgpa_outside_a_conversion_is_one_by_itself(to_shared: bool) -> None:
    trace = TraceBuilder()
    trace.map(OTHER, to_shared=to_shared)
    (event,) = read(trace.text).events
    assert (event.kind, event.vcpu, event.args[:3]) == (
        Kind.CONVERT,
        1,
        (OTHER.gpa, OTHER.bytes, 0),
    )
    assert (event.flags, event.pc) == (Flag.TO_SHARED if to_shared else Flag(0), STACK[0])


def test_a_range_that_ends_before_it_begins_is_empty() -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    trace.add("map", AREA.gpa + PAGE, AREA.gpa, 1)
    trace.add("mapped", 1)
    (event,) = read(trace.text).events
    assert (event.args[1], event.args[3]) == (0, 0)


def test_a_conversion_without_a_stack_has_no_place() -> None:
    trace = TraceBuilder()
    trace.add("convert", AREA.address, AREA.pages, 1, AREA.gpa)
    trace.changed(AREA)
    (event,) = read(trace.text).events
    assert (event.pc, event.stack) == (0, ())


def test_lines_beside_the_range_are_none_of_it() -> None:
    trace = TraceBuilder()
    beside = ((-LINE, LINE), (2 * PAGE, LINE)) * 2
    trace.to_shared(AREA, pieces=((0, 2 * PAGE), *beside))
    trace.to_shared(AREA, pieces=((0, 2 * PAGE), (0, LINE)))
    counts = [event.args[4] for event in of_kind(trace, Kind.CONVERT)]
    assert counts == [128 << 32, 128 << 32 | 1]


def test_lines_beyond_the_range_cost_nothing() -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    for start in (0, AREA.address - LINE, AREA.address + PAGE):
        trace.add("lines", start, (1 << 64) - 1)
    trace.changed(AREA)
    trace.invalidate(AREA)
    trace.map(AREA, to_shared=True)
    trace.converted(AREA)
    (convert,) = of_kind(trace, Kind.CONVERT)
    # All lines, those of the first page twice and those of the second one three times.
    assert convert.args[3:] == (0, 128 << 32 | 64 * 3)


def claims(times: int) -> TraceBuilder:
    """Conversions of as much memory as a number can say."""
    trace = TraceBuilder()
    for _ in range(times):
        trace.add("convert", AREA.address, (1 << 64) - 1, 1, AREA.gpa)
        trace.add("changed")
        trace.add("map", 0, (1 << 64) - 1, 1)
        trace.add("mapped", 1)
        trace.add("converted")
    return trace


def test_a_guest_that_claims_more_than_it_can_do_is_not_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A quarter of what is looked at, so that the test takes no longer than others.
    monkeypatch.setattr(model, "_MOST_WORK", model._MOST_WORK // 4)
    assert len(of_kind(claims(1), Kind.CONVERT)) == 1
    with pytest.raises(EvidenceError, match="more conversions than can be looked at"):
        read(claims(40).text)


def test_an_invalidation_while_page_tables_change_may_have_come_behind_it() -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    trace.flush(AREA)
    trace.invalidate(AREA, [1])
    trace.add("change")
    trace.invalidate(AREA, [0])
    trace.add("change")
    trace.add("changed")
    trace.map(AREA, to_shared=True)
    trace.converted(AREA)
    # What CPU 1 invalidated before does not count.
    assert stale(trace) == [(1, AREA.gpa, 2 * PAGE)]


def test_memory_that_is_not_mapped_while_its_owner_changes_breaks_no_rule() -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    trace.flush(AREA)
    trace.changed(AREA)
    trace.invalidate(AREA)
    trace.map(AREA, to_shared=True)
    trace.changed(AREA)
    trace.converted(AREA)
    assert judge_slice(read(trace.text).events, "", [], td_mode="tdx").findings == ()


def test_shared_memory_that_is_made_shared_again_owes_nothing() -> None:
    trace = TraceBuilder()
    trace.to_shared(AREA)
    trace.to_shared(AREA, pieces=(), cpus=())
    assert [e.args[3] for e in of_kind(trace, Kind.CONVERT)] == [0, 0]
    assert len(of_kind(trace, Kind.PTE_CHANGE)) == 1
    assert judge_slice(read(trace.text).events, "", [], td_mode="tdx").findings == ()
    # Of private memory it owes both, before and after; a page more is private as well.
    larger = Area(pages=3)
    trace.to_private(AREA)
    trace.to_shared(larger, pieces=(), cpus=())
    found = judge_slice(read(trace.text).events, "", [], td_mode="tdx").findings
    assert {f.rule for f in found} == {"guest-cache-flush", "guest-tlb-flush"}

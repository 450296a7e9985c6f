# SPDX-License-Identifier: GPL-2.0-or-later
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.conversions import TO_PRIVATE, TO_SHARED
from harness.events import Event, Flag, Kind
from harness.guesttrace import read
from harness.guesttrace.record import Word
from harness.judge import judge_slice
from harness.testing.traces import LINE, PAGE, STACK, Area, TraceBuilder
from harness.verdict import Finding, Outcome, Severity, Verdict

AREA = Area()
OTHER = Area(gpa=0x7000000, pages=3, task=0x60, cpu=1)
CONVERTED = [Kind.PTE_CHANGE, Kind.CONVERT, Kind.CONVERT, Kind.ACCEPT, Kind.ACCEPT, Kind.PTE_CHANGE]


def events_of(trace: TraceBuilder) -> tuple[Event, ...]:
    found = read(trace.text)
    assert (found.blind, found.lost) == ((), 0)
    assert [event.seq for event in found.events] == list(range(len(found.events)))
    return found.events


def judged(trace: TraceBuilder) -> Verdict:
    return judge_slice(events_of(trace), "", [], td_mode="tdx")


def only_finding(trace: TraceBuilder) -> Finding:
    verdict = judged(trace)
    assert verdict.outcome is Outcome.FAIL
    (found,) = verdict.findings
    return found


def kinds(trace: TraceBuilder) -> list[Kind]:
    return [event.kind for event in events_of(trace)]


def of_kind(trace: TraceBuilder, kind: Kind) -> list[Event]:
    return [event for event in events_of(trace) if event.kind is kind]


def to_shared_and_back() -> TraceBuilder:
    trace = TraceBuilder()
    trace.mark(1, 9)
    trace.to_shared(AREA)
    trace.to_private(AREA)
    trace.mark(2, 9)
    return trace


def test_a_clean_conversion_and_the_way_back_pass() -> None:
    trace = to_shared_and_back()
    assert kinds(trace) == [Kind.MARK, *CONVERTED, Kind.MARK]
    verdict = judged(trace)
    assert (verdict.outcome, verdict.findings) == (Outcome.PASS, ())
    assert verdict.counts["conversions"] == 2
    assert verdict.counts["conversions_to_shared"] == 1
    assert verdict.counts["bytes_converted"] == 4 * PAGE
    assert verdict.counts["lines_flushed"] == 128
    assert verdict.counts["accepts"] == 2


def test_the_events_of_a_clean_conversion() -> None:
    begin, change, shared, private, first, second, back, end = events_of(to_shared_and_back())
    assert (begin.args, end.args) == ((1, 9, 0, 0, 0), (2, 9, 0, 0, 0))
    place = (STACK[0], STACK[1:])
    size = 2 * PAGE
    assert (change.pc, change.stack) == (shared.pc, shared.stack) == place
    assert (change.flags, shared.flags) == (Flag.TO_SHARED, Flag.TO_SHARED)
    assert (private.flags, back.flags) == (Flag(0), Flag(0))
    assert change.args == back.args == (AREA.address, AREA.gpa, 0, 0, size)
    assert shared.args == (AREA.gpa, size, 0, 0, 128 << 32)
    assert private.args == (AREA.gpa, size, 0, 0, 0)
    assert first.args == (AREA.gpa, 0, 0, 0, 0)
    assert second.args == (AREA.gpa + PAGE, 0, 0, 0, 0)


@pytest.mark.parametrize(("level", "stub"), [(1, 0), (2, 1), (3, 2)])
def test_levels_of_accept_count_from_nothing_in_events(level: int, stub: int) -> None:
    trace = TraceBuilder()
    trace.add("accept", AREA.gpa, 1 << 30, level, cpu=1)
    trace.add("accepted", 0, cpu=1)
    assert kinds(trace) == []
    trace.add("accept", AREA.gpa, 1 << 30, level, cpu=1)
    trace.add("accepted", PAGE, cpu=1)
    (event,) = events_of(trace)
    assert (event.kind, event.vcpu, event.args[:3]) == (Kind.ACCEPT, 1, (AREA.gpa, stub, 0))


def runs(trace: TraceBuilder) -> list[tuple[int, int]]:
    """The dirty lines, as (offset in AREA, lines)."""
    found = of_kind(trace, Kind.DIRTY_RUN)
    (convert,) = of_kind(trace, Kind.CONVERT)
    assert {event.args[2:] for event in found} <= {(0, 0, convert.seq)}
    assert convert.args[3] == sum(event.args[1] for event in found)
    return [(event.args[0] - AREA.gpa, event.args[1]) for event in found]


EVERY_SECOND = tuple((offset, LINE) for offset in range(0, 2 * PAGE, 2 * LINE))


@pytest.mark.parametrize(
    ("pieces", "dirty", "count"),
    [
        (EVERY_SECOND, [(offset + LINE, 1) for offset, _ in EVERY_SECOND], 64),
        (((0, PAGE),), [(PAGE, 64)], 64),
        (((PAGE, PAGE),), [(0, 64)], 64),
        ((), [(0, 64), (PAGE, 64)], 128),
        (((0, PAGE - LINE), (PAGE + LINE, PAGE)), [(PAGE - LINE, 1), (PAGE, 1)], 2),
        (((-LINE, LINE), (2 * PAGE, PAGE), (0, PAGE)), [(PAGE, 64)], 64),
        (((-PAGE, 2 * PAGE), (LINE + PAGE, 5 * PAGE)), [(PAGE, 1)], 1),
    ],
)
def test_lines_that_were_not_flushed_are_dirty(
    pieces: tuple[tuple[int, int], ...], dirty: list[tuple[int, int]], count: int
) -> None:
    trace = TraceBuilder()
    trace.to_shared(AREA, pieces=pieces)
    assert runs(trace) == dirty
    found = only_finding(trace)
    assert (found.rule, found.direction) == ("guest-cache-flush", TO_SHARED)
    assert found.extra["dirty_lines"] == count
    assert found.extra["flushed_lines"] == 128 - count
    assert found.gpa == AREA.gpa + dirty[0][0] // PAGE * PAGE


def test_an_address_anywhere_in_a_line_flushes_it() -> None:
    trace = TraceBuilder()
    trace.to_shared(AREA, pieces=((LINE - 1, PAGE), (PAGE + 1, PAGE)))
    assert kinds(trace) == [Kind.PTE_CHANGE, Kind.CONVERT]


def test_a_flush_behind_the_change_goes_through_the_other_mapping() -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    trace.changed(AREA)
    trace.flush(AREA)
    trace.invalidate(AREA)
    trace.map(AREA, to_shared=True)
    trace.converted(AREA)
    assert only_finding(trace).rule == "guest-cache-flush"
    assert runs(trace) == [(0, 64), (PAGE, 64)]


def test_a_flush_outside_the_conversion_does_not_count() -> None:
    trace = TraceBuilder()
    trace.flush(AREA)
    trace.to_shared(AREA, pieces=())
    trace.flush(AREA)
    assert only_finding(trace).extra["dirty_lines"] == 128


def stale(trace: TraceBuilder) -> list[tuple[int, int, int]]:
    """The translations that were left, as (CPU, offset in AREA, bytes)."""
    found = of_kind(trace, Kind.STALE)
    changes = {event.seq for event in of_kind(trace, Kind.PTE_CHANGE)}
    assert {event.args[3] for event in found} <= changes
    assert all(event.args[0] - AREA.address == event.args[1] - AREA.gpa for event in found)
    return [(event.vcpu, event.args[1] - AREA.gpa, event.args[2]) for event in found]


@pytest.mark.parametrize("to_shared", [True, False])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_cpu_that_did_not_invalidate_is_found(to_shared: bool, missing: int) -> None:
    trace = TraceBuilder()
    convert = trace.to_shared if to_shared else trace.to_private
    convert(AREA, cpus=[1 - missing])
    assert stale(trace) == [(missing, 0, 2 * PAGE)]
    found = only_finding(trace)
    assert (found.rule, found.vcpu, found.evidence) == ("guest-tlb-flush", missing, "unflushed")
    assert found.direction == (TO_SHARED if to_shared else TO_PRIVATE)
    assert found.extra["conversion"] == of_kind(trace, Kind.CONVERT)[0].seq


def test_a_page_that_one_cpu_did_not_invalidate_is_found() -> None:
    trace, area = TraceBuilder(), Area(pages=4)
    trace.convert(area, to_shared=True)
    trace.flush(area)
    trace.changed(area)
    trace.invalidate(area, [0])
    for page in (0, 3, 4, -1):
        trace.add("invalidate", area.address + page * PAGE + 0xFFF, cpu=1, task=0)
    trace.map(area, to_shared=True)
    assert stale(trace) == [(1, PAGE, 2 * PAGE)]
    assert only_finding(trace).rule == "guest-tlb-flush"


@pytest.mark.parametrize("to_shared", [True, False])
def test_an_invalidation_before_the_change_does_not_count(to_shared: bool) -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=to_shared)
    trace.invalidate(AREA)
    if to_shared:
        trace.flush(AREA)
    else:
        trace.map(AREA, to_shared=False)
    trace.invalidate(AREA)
    trace.add("invalidate-all", cpu=1, task=0)
    trace.changed(AREA)
    if to_shared:
        trace.map(AREA, to_shared=True)
    trace.converted(AREA)
    assert stale(trace) == [(0, 0, 2 * PAGE), (1, 0, 2 * PAGE)]
    assert {f.rule for f in judged(trace).findings} == {"guest-tlb-flush"}


def test_an_invalidation_behind_mapgpa_is_too_late_for_shared_memory() -> None:
    trace = TraceBuilder()
    trace.to_shared(AREA, cpus=[0])
    trace.invalidate(AREA, [1])
    assert only_finding(trace).rule == "guest-tlb-flush"


@pytest.mark.parametrize("to_shared", [True, False])
def test_an_invalidation_of_everything_covers_all_pages(to_shared: bool) -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=to_shared)
    trace.flush(AREA, None if to_shared else ())
    if not to_shared:
        trace.map(AREA, to_shared=False)
    trace.changed(AREA)
    trace.add("invalidate-all", cpu=0, task=AREA.task)
    before = list(trace.lines)
    trace.add("invalidate-all", cpu=1, task=0)
    if to_shared:
        trace.map(AREA, to_shared=True)
    trace.converted(AREA)
    assert judged(trace).outcome is Outcome.PASS
    without = TraceBuilder(lines=before)
    if to_shared:
        without.map(AREA, to_shared=True)
    without.converted(AREA)
    assert only_finding(without).rule == "guest-tlb-flush"


def test_mapgpa_before_the_page_tables_changed_is_found() -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    trace.flush(AREA)
    trace.map(AREA, to_shared=True)
    trace.changed(AREA)
    trace.invalidate(AREA)
    trace.converted(AREA)
    found = only_finding(trace)
    assert (found.rule, found.evidence) == ("private-access-to-shared", "mapped")
    assert (found.gpa, found.direction) == (AREA.gpa, TO_SHARED)


def test_page_tables_that_changed_before_mapgpa_to_private_are_found() -> None:
    trace = TraceBuilder()
    trace.to_shared(AREA)
    trace.convert(AREA, to_shared=False)
    trace.changed(AREA)
    trace.invalidate(AREA)
    trace.map(AREA, to_shared=False)
    trace.converted(AREA)
    found = only_finding(trace)
    assert (found.rule, found.evidence) == ("private-access-to-shared", "mapped")
    assert found.direction == TO_PRIVATE


def interleaved(*, other_flushes: bool, first: Area = AREA) -> TraceBuilder:
    """Two tasks at once; CPU 1's only invalidations come while both have changed."""
    trace = TraceBuilder()
    trace.convert(first, to_shared=True)
    trace.convert(OTHER, to_shared=True)
    trace.flush(first)
    trace.flush(OTHER, None if other_flushes else ())
    trace.changed(first)
    trace.changed(OTHER)
    trace.add("invalidate-all", cpu=1, task=OTHER.task)
    trace.add("invalidate-all", cpu=0, task=0)
    trace.map(OTHER, to_shared=True)
    trace.map(first, to_shared=True)
    trace.converted(first)
    trace.converted(OTHER)
    return trace


def test_an_invalidation_counts_for_all_that_are_converting() -> None:
    trace = interleaved(other_flushes=True)
    assert judged(trace).outcome is Outcome.PASS
    assert [e.args[0] for e in of_kind(trace, Kind.CONVERT)] == [OTHER.gpa, AREA.gpa]
    assert [e.args[4] >> 32 for e in of_kind(trace, Kind.CONVERT)] == [192, 128]


def test_conversions_of_tasks_at_the_same_time_do_not_mix() -> None:
    trace = interleaved(other_flushes=False)
    found = only_finding(trace)
    assert (found.rule, found.gpa, found.vcpu) == ("guest-cache-flush", OTHER.gpa, OTHER.cpu)
    lines = [line for line in trace.lines if f" {AREA.task:x} lines " not in line]
    rules = [(f.rule, f.gpa) for f in judged(TraceBuilder(lines=lines)).findings]
    assert rules == [("guest-cache-flush", OTHER.gpa), ("guest-cache-flush", AREA.gpa)]


def test_a_flush_by_another_task_does_not_count() -> None:
    trace = TraceBuilder()
    trace.convert(AREA, to_shared=True)
    trace.flush(Area(task=OTHER.task))
    trace.changed(AREA)
    trace.invalidate(AREA)
    trace.map(AREA, to_shared=True)
    assert only_finding(trace).rule == "guest-cache-flush"


@pytest.mark.parametrize("to_shared", [True, False])
def test_a_conversion_that_mapgpa_refused_is_none(to_shared: bool) -> None:
    def attempt(succeeds: bool) -> TraceBuilder:
        trace = TraceBuilder()
        trace.convert(AREA, to_shared=to_shared)
        trace.changed(AREA)
        trace.map(AREA, to_shared=to_shared, succeeds=succeeds)
        trace.converted(AREA)
        return trace

    verdict = judged(attempt(False))
    assert kinds(attempt(False)) == [Kind.PTE_CHANGE, Kind.CONVERT]
    assert (verdict.outcome, verdict.counts["conversions"]) == (Outcome.PASS, 0)
    verdict = judged(attempt(True))
    assert (verdict.outcome, verdict.counts["conversions"]) == (Outcome.FAIL, 1)


def redundant(trace: TraceBuilder) -> Finding:
    verdict = judged(trace)
    assert verdict.outcome is Outcome.PASS
    (found,) = verdict.findings
    assert (found.rule, found.severity) == ("redundant-flush", Severity.REPORT)
    return found


def test_lines_flushed_twice_are_reported() -> None:
    trace = TraceBuilder()
    trace.to_shared(AREA, pieces=((0, 2 * PAGE), (PAGE, 3 * LINE), (PAGE + LINE, LINE)))
    assert of_kind(trace, Kind.CONVERT)[0].args[4] == 128 << 32 | 4
    assert redundant(trace).extra["redundant_lines"] == 4


def test_lines_flushed_on_the_way_to_private_are_reported() -> None:
    trace = TraceBuilder()
    trace.to_private(AREA, pieces=((0, PAGE),))
    found = redundant(trace)
    assert (found.direction, found.extra["redundant_lines"]) == (TO_PRIVATE, 64)


# What a record may hold, mostly near AREA; a number of pages or lines stays small.
PLACES = st.sampled_from([0, 1, AREA.gpa, AREA.gpa + PAGE, AREA.address, AREA.address + PAGE])
SIZES = st.sampled_from([0, 1, 2, LINE, 2 * LINE])
ARGS = st.one_of(
    st.tuples(
        st.sampled_from([w for w in Word if w is not Word.MAP]), PLACES, SIZES, SIZES, PLACES
    ),
    st.tuples(st.just(Word.MAP), PLACES, PLACES, SIZES, PLACES),
)


@given(st.lists(st.tuples(ARGS, st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_any_records_can_be_read_and_judged(
    records: list[tuple[tuple[Word, int, int, int, int], int, int]],
) -> None:
    trace = TraceBuilder()
    for (word, *args), cpu, task in records:
        trace.add(word, *args, cpu=cpu, task=task)
    judge_slice(read(trace.text).events, "", [], td_mode="tdx")

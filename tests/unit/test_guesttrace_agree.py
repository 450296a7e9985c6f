# SPDX-License-Identifier: GPL-2.0-or-later
from collections.abc import Callable

import pytest

from harness.events import Kind, VmmBehaviour
from harness.guesttrace import Agreement, agreement
from harness.testing.events import StreamBuilder

GPA, GVA, PAGE = 0x1234000, 0xFF11000001234000, 4096
Fill = Callable[[StreamBuilder], object]
NONE = Agreement(0, ())


def nothing(_: StreamBuilder) -> None: ...


def marked(*slices: Fill) -> StreamBuilder:
    """Slices with the marks 1, 2 and so on."""
    s = StreamBuilder()
    for mark, fill in enumerate(slices, 1):
        s.mark(1, mark)
        fill(s)
        s.mark(2, mark)
    return s


def compared(traced: Fill, record: Fill) -> Agreement:
    return agreement(marked(traced).events, marked(record).events)


def claims(traced: Fill, record: Fill) -> tuple[str, ...]:
    return compared(traced, record).contradictions


def converting(
    *,
    to_shared: bool = True,
    gpa: int = GPA,
    dirty: int = 0,
    flushed: int | None = None,
    status: int = 0,
) -> Fill:
    return lambda s: s.convert(
        gpa, PAGE, to_shared=to_shared, dirty=dirty, flushed=flushed, status=status
    )


def owing(vcpu: int, *, to_shared: bool = True, gpa: int = GPA, size: int = PAGE) -> Fill:
    return lambda s: s.stale(gpa + GVA - GPA, gpa, 0, to_shared=to_shared, vcpu=vcpu, size=size)


def both(*fills: Fill) -> Fill:
    def fill(s: StreamBuilder) -> None:
        for one in fills:
            one(s)

    return fill


THERE_AND_BACK = both(
    converting(dirty=3, flushed=61),
    owing(1),
    converting(to_shared=False),
    owing(0, to_shared=False),
)


def test_equal_traces_agree() -> None:
    assert compared(THERE_AND_BACK, THERE_AND_BACK) == Agreement(2, ())
    assert agreement((), ()) == NONE


@pytest.mark.parametrize(
    ("to_shared", "way"), [(True, "private to shared"), (False, "shared to private")]
)
def test_a_conversion_that_the_trace_alone_has_is_a_contradiction(
    to_shared: bool, way: str
) -> None:
    one = converting(to_shared=to_shared)
    claim = f"conversions of 4 KiB at {GPA:#x}, {way}, not"
    assert claims(one, nothing) == (f"1 {claim} 0",)
    assert claims(both(one, one), one) == (f"2 {claim} 1",)
    assert claims(one, converting(to_shared=not to_shared)) == (f"1 {claim} 0",)
    assert claims(one, converting(to_shared=to_shared, gpa=GPA + PAGE)) == (f"1 {claim} 0",)
    assert claims(one, lambda s: s.convert(GPA, 2 * PAGE, to_shared=to_shared)) == (f"1 {claim} 0",)


def test_a_conversion_that_failed_is_none() -> None:
    failed = converting(status=1 << 63)
    assert compared(failed, nothing) == NONE
    assert claims(converting(), failed)


def test_lines_that_the_trace_alone_saw_flushed_are_a_contradiction() -> None:
    assert claims(converting(flushed=64), converting(flushed=63)) == (
        f"conversion of 4 KiB at {GPA:#x}, private to shared: 64 lines flushed, not 63",
    )
    assert claims(converting(to_shared=False, flushed=1), converting(to_shared=False)) == (
        f"conversion of 4 KiB at {GPA:#x}, shared to private: 1 lines flushed, not 0",
    )


def test_dirty_lines_of_the_trace_where_all_were_flushed_are_a_contradiction() -> None:
    traced = converting(dirty=3, flushed=61)
    assert claims(traced, converting()) == (
        f"conversion of 4 KiB at {GPA:#x}, private to shared: 3 dirty lines, where all were "
        "flushed",
    )
    assert claims(traced, converting(flushed=65))


def test_a_line_that_was_neither_flushed_nor_stored_to_is_dirty_to_the_trace_alone() -> None:
    assert claims(converting(dirty=3, flushed=61), converting(flushed=63)) == ()
    assert claims(converting(dirty=64, flushed=0), converting(flushed=0)) == ()


def test_conversions_of_one_range_are_compared_in_their_order() -> None:
    whole, half = converting(), converting(flushed=32)
    assert claims(both(whole, half), both(whole, half)) == ()
    assert len(claims(both(whole, half), both(half, whole))) == 1


@pytest.mark.parametrize(
    ("to_shared", "way"), [(True, "private to shared"), (False, "shared to private")]
)
def test_a_translation_that_the_trace_alone_saw_stay_is_a_contradiction(
    to_shared: bool, way: str
) -> None:
    claim = (f"vCPU 1 did not invalidate page {GPA:#x}, {way}",)
    traced = owing(1, to_shared=to_shared)
    assert claims(traced, nothing) == claim
    assert claims(traced, owing(0, to_shared=to_shared)) == claim
    assert claims(traced, owing(1, to_shared=not to_shared)) == claim
    assert claims(traced, owing(1, to_shared=to_shared, gpa=GPA + PAGE)) == claim
    assert claims(traced, traced) == ()
    assert claims(both(traced, traced), nothing) == claim


def test_translations_are_compared_page_by_page() -> None:
    two = both(owing(1), owing(1, gpa=GPA + PAGE))
    assert claims(owing(1, size=2 * PAGE), two) == ()
    assert claims(two, owing(1, size=2 * PAGE)) == ()
    assert claims(owing(1, size=0), owing(1)) == ()
    assert claims(owing(1, size=3 * PAGE), two) == (
        f"vCPU 1 did not invalidate page {GPA + 2 * PAGE:#x}, private to shared",
    )


@pytest.mark.parametrize(
    ("traced", "record"),
    [
        (nothing, converting(dirty=64, flushed=0)),
        (converting(), both(converting(), converting())),
        (converting(flushed=60), converting(flushed=64)),
        (converting(), converting(dirty=64)),
        (converting(), both(converting(), owing(0), owing(1))),
        (nothing, lambda s: s.wrong_alias(GVA, GPA, through_shared=False)),
        (nothing, lambda s: s.pte_change(GVA, GPA, to_shared=True)),
        (nothing, lambda s: s.accept(GPA)),
    ],
)
def test_what_the_record_alone_has_is_no_contradiction(traced: Fill, record: Fill) -> None:
    assert claims(traced, record) == ()


LEFT_OUT: dict[str, Fill] = {
    "FAULT": lambda s: s.add(Kind.FAULT, 1, GPA, PAGE),
    "VMM": lambda s: s.vmm(VmmBehaviour.ERROR, GPA + PAGE, PAGE, to_shared=True, r10=1 << 63),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_where_the_stub_was_told_to_do_wrong_nothing_is_compared(what: str) -> None:
    traced = marked(converting(), converting())
    assert agreement(traced.events, marked(LEFT_OUT[what], LEFT_OUT[what]).events) == NONE
    found = agreement(traced.events, marked(LEFT_OUT[what], nothing).events)
    assert (found.conversions, len(found.contradictions)) == (1, 1)
    assert len(agreement(traced.events, marked(nothing, nothing).events).contradictions) == 2


def test_only_what_lies_between_marks_of_both_is_compared() -> None:
    outside = StreamBuilder()
    outside.convert(GPA, PAGE, to_shared=True)
    assert agreement(outside.events, marked(nothing).events) == NONE
    outside.mark(2, 1)
    assert agreement(outside.events, marked(nothing).events) == NONE
    begun = StreamBuilder()
    begun.mark(1, 1)
    begun.convert(GPA, PAGE, to_shared=True)
    assert agreement(begun.events, marked(nothing).events) == NONE
    assert agreement(marked(converting()).events, begun.events) == NONE
    assert agreement(marked(converting()).events, ()) == NONE
    begun.mark(2, 1)
    assert agreement(begun.events, marked(nothing).events).contradictions


def test_slices_are_compared_by_their_marks() -> None:
    first, second = converting(), converting(gpa=GPA + PAGE)
    one, other = marked(first, second), marked(second, first)
    assert agreement(one.events, one.events) == Agreement(2, ())
    assert len(agreement(one.events, other.events).contradictions) == 2


def test_conversions_of_all_slices_are_counted() -> None:
    parts = marked(THERE_AND_BACK, nothing, both(converting(), converting(status=1 << 63)))
    assert agreement(parts.events, parts.events) == Agreement(3, ())


def nested(fill: Fill) -> StreamBuilder:
    """A test's slice with a step's inside."""
    s = StreamBuilder()
    s.mark(1, 1)
    s.mark(1, 2)
    fill(s)
    s.mark(2, 2)
    s.mark(2, 1)
    return s


def test_what_lies_between_marks_inside_others_is_compared() -> None:
    assert agreement(nested(converting()).events, nested(nothing).events).contradictions
    assert not agreement(nested(owing(1)).events, nested(owing(1)).events).contradictions


def test_what_lies_between_marks_inside_others_counts_once() -> None:
    found = agreement(nested(converting()).events, nested(converting()).events)
    assert found.conversions == 1


@pytest.mark.parametrize(("count", "last"), [(1, None), (3, None), (4, "1 more"), (9, "6 more")])
def test_no_more_than_three_contradictions_are_told(count: int, last: str | None) -> None:
    fills = [converting(gpa=GPA + page * PAGE) for page in range(count)]
    found = claims(both(*fills), nothing)
    assert len(found) == min(count, 4)
    assert ("more" in found[-1]) == (last is not None)
    assert last is None or found[-1] == last


def changing(*, early: bool) -> Fill:
    """A page that becomes shared, its mapping behind that where it is not `early`."""

    def fill(s: StreamBuilder) -> None:
        if early:
            s.pte_change(GVA, GPA, to_shared=True)
        s.convert(GPA, PAGE, to_shared=True)
        if not early:
            s.pte_change(GVA, GPA, to_shared=True)

    return fill


def test_an_order_that_the_trace_alone_has_is_a_contradiction() -> None:
    right, wrong = marked(changing(early=True)), marked(changing(early=False))
    assert agreement(wrong.events, wrong.events) == Agreement(1, ())
    assert agreement(right.events, wrong.events) == Agreement(1, ())
    (said,) = agreement(wrong.events, right.events).contradictions
    assert said == f"the mapping of page {GPA:#x} changed while it was shared, private to shared"


def test_a_conversion_of_more_memory_than_there_is_costs_nothing() -> None:
    claimed = marked(lambda s: s.convert(0, (1 << 64) - PAGE, to_shared=True, flushed=0))
    assert len(agreement(claimed.events, marked(nothing).events).contradictions) == 1

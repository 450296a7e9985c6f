# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace could not see, and a second kernel's part of it."""

import pytest

from harness.events import Kind
from harness.guesttrace import read
from harness.judge import judge_slice
from harness.testing.traces import PLACES, Area, TraceBuilder, answers

AREA = Area()
NEEDED = (
    "convert", "converted", "change", "changed", "map", "mapped", "invalidate", "invalidate-all",
    "lines",
)  # fmt: skip


def blind_to(text: str) -> str:
    (sentence,) = read(text).blind
    return sentence


def converting(head: str | None = None) -> TraceBuilder:
    trace = TraceBuilder(head=answers() if head is None else head)
    trace.to_shared(AREA)
    trace.to_private(AREA)
    return trace


@pytest.mark.parametrize("word", NEEDED)
def test_a_kernel_without_a_probe_that_is_needed_is_not_judged(word: str) -> None:
    never_put = "".join(s for s in answers().splitlines(True) if f"={word} " not in s)
    for text in (answers(without=(word,)), never_put):
        assert blind_to(text).startswith("the kernel has no probe for ")
        assert f"'{word}'" in blind_to(text)
    assert read(answers()).blind == ()


def test_what_is_not_seen_is_told_in_words() -> None:
    assert blind_to(answers(without=("map",))) == "the kernel has no probe for 'map'"


def test_each_probe_that_is_missing_is_told_of() -> None:
    assert len(read(answers(without=NEEDED)).blind) == len(NEEDED)
    assert len(read("cpus=0-1\n").blind) == len(NEEDED)


@pytest.mark.parametrize("word", [word for word in PLACES if word not in NEEDED])
def test_a_kernel_can_do_without_the_other_probes(word: str) -> None:
    assert read(answers(without=(word,))).blind == ()


@pytest.mark.parametrize("place", ["clflush_cache_range+25", "cpa_flush_array+8", "cpa_flush"])
def test_a_kernel_whose_flush_is_not_seen_is_not_judged(place: str) -> None:
    text = answers().replace(PLACES["lines"], place)
    assert blind_to(text) == "the kernel has no probe for the CLFLUSH of cpa_flush()"
    assert read(f"probe=lines at=cpa_flush+7 error=0\n{text}").blind == ()


def test_another_probe_in_the_flusher_does_not_see_its_flush() -> None:
    text = answers().replace(PLACES["lines"], "clflush_cache_range+25")
    assert blind_to(f"probe=changed at=cpa_flush+7 error=0\n{text}")


def test_no_probe_at_all_is_blind() -> None:
    assert blind_to("") == "the guest's module put no probe"


def test_a_second_kernel_that_sees_less_makes_the_trace_blind() -> None:
    second = converting(answers(without=("map",)))
    assert "'map'" in blind_to(converting().text + second.text)
    assert read(converting().text + converting().text).blind == ()


def test_two_kernels_that_do_not_see_the_same_say_so_once() -> None:
    without = converting(answers(without=("map",))).text
    assert "'map'" in blind_to(without + without)


def test_a_second_kernel_is_judged_with_its_own_cpus() -> None:
    events = read(converting().text + converting(answers(cpus="0-2")).text).events
    assert [event.seq for event in events] == list(range(len(events)))
    verdict = judge_slice(events, "", [], td_mode="tdx")
    assert [(f.rule, f.vcpu) for f in verdict.findings] == [("guest-tlb-flush", 2)] * 2
    conversions = [event.seq for event in events if event.kind is Kind.CONVERT]
    assert [f.extra["conversion"] for f in verdict.findings] == conversions[2:]


def test_what_a_first_kernel_began_is_not_gone_on_with_by_a_second() -> None:
    first, second = TraceBuilder(), TraceBuilder()
    first.convert(AREA, to_shared=True)
    first.flush(AREA)
    first.changed(AREA)
    second.map(AREA, to_shared=True)
    alone = read(first.text).events
    assert [event.kind for event in alone] == [Kind.PTE_CHANGE]
    _, convert = read(first.text + second.text).events
    assert convert.args[4] == 0
    first.map(AREA, to_shared=True)
    assert read(first.text).events[1].args[4] == 128 << 32


def test_what_was_lost_is_summed() -> None:
    first, second = converting(), converting()
    first.add("lost", 3)
    second.add("lost", 0x10)
    second.add("lost", 1)
    found = read(first.text + second.text)
    assert (found.lost, found.blind) == (20, ())
    assert found.events == read(converting().text + converting().text).events
    assert read(converting().text).lost == 0


def test_a_stream_of_a_trace_is_complete() -> None:
    found = read(converting().text)
    assert found.events
    assert (found.stream.events, found.stream.complete) == (found.events, True)

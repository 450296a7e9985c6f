# SPDX-License-Identifier: GPL-2.0-or-later
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import EvidenceError
from harness.guesttrace.record import MOST_CPUS, Record, Section, Word, sections
from harness.testing.traces import PLACES, STACK, TraceBuilder, answers

HEAD = "probe=lines at=cpa_flush+388 error=0\ncpus=0-1\n"


def section_of(*lines: str) -> Section:
    (section,) = sections(HEAD + "\n".join(lines))
    return section


@pytest.mark.parametrize("word", [word for word in Word if word is not Word.STACK])
def test_a_record_of_each_word(word: Word) -> None:
    line = f"1f 63 7a {word} ff11000001234000 2 0 ffffffffffffffff"
    args = (0xFF11000001234000, 2, 0, (1 << 64) - 1)
    assert section_of(line).records == (Record(0x1F, 63, 0x7A, word, args),)


def test_a_section_has_its_cpus_and_its_probes() -> None:
    (section,) = sections(answers(cpus="0-2,5,7-8"))
    assert section == Section((0, 1, 2, 5, 7, 8), tuple(PLACES.items()), ())


def test_a_probe_that_was_refused_is_left_out() -> None:
    (section,) = sections(answers(without=("map", "lines")))
    left = [(word, place) for word, place in PLACES.items() if word not in ("map", "lines")]
    assert list(section.probes) == left


def test_the_places_of_one_word_are_all_kept() -> None:
    (section,) = sections(f"probe=lines at=cpa_flush+404 error=0\n{HEAD}")
    assert section.probes == (("lines", "cpa_flush+404"), ("lines", "cpa_flush+388"))


def test_stacks_are_joined_to_the_record_before_them() -> None:
    found = section_of(
        "0 0 50 convert 1 2 1 3",
        "1 0 50 stack a b c d",
        "2 0 50 stack e 0 0 0",
        "3 0 50 changed 0 0 0 0",
        "4 1 51 map 1 2 1 0",
        "5 1 51 stack f 0 0 0",
    ).records
    assert [(r.word, r.stack) for r in found] == [
        (Word.CONVERT, (10, 11, 12, 13, 14)),
        (Word.CHANGED, ()),
        (Word.MAP, (15,)),
    ]
    assert found[0].args == (1, 2, 1, 3)


def test_a_stack_without_a_record_is_no_record() -> None:
    found = section_of("0 0 50 stack a b c d", "1 0 50 changed 0 0 0 0").records
    assert [(r.word, r.stack) for r in found] == [(Word.CHANGED, ())]
    assert section_of("0 0 50 stack a b c d").records == ()


def test_the_builder_of_traces_makes_what_is_read() -> None:
    trace = TraceBuilder()
    trace.add("map", 1, 2, 3, cpu=1, task=0x99, stack=STACK)
    trace.mark(1, 7)
    (section,) = sections(trace.text)
    assert section.records == (
        Record(0, 1, 0x99, Word.MAP, (1, 2, 3, 0), STACK),
        Record(2, 0, 0x40, Word.MARK, (1, 7, 0, 0)),
    )


def test_probes_behind_records_begin_a_new_section() -> None:
    first, second = TraceBuilder(), TraceBuilder(head=answers(without=("map",), cpus="0"))
    first.mark(1, 1)
    second.mark(1, 2)
    second.mark(2, 2)
    found = sections(first.text + second.text)
    assert [[record.args[1] for record in section.records] for section in found] == [[1], [2, 2]]
    assert [section.cpus for section in found] == [(0, 1), (0,)]
    assert [len(section.probes) for section in found] == [len(PLACES), len(PLACES) - 1]


def test_a_second_kernel_has_its_own_probes_though_nothing_is_left_of_the_first() -> None:
    found = sections(answers() + answers(without=("map",), cpus="0"))
    assert "map" not in dict(found[-1].probes)


def test_records_that_were_lost_are_told_where_the_others_end() -> None:
    found = section_of("6 1 50 changed 0 0 0 0", "7 0 0 lost 1f 0 0 0", "7 0 0 lost 2 0 0 0")
    assert [(r.word, r.args[0]) for r in found.records] == [
        (Word.CHANGED, 0),
        (Word.LOST, 31),
        (Word.LOST, 2),
    ]


def test_a_trace_goes_on_behind_records_that_were_lost() -> None:
    found = section_of("6 1 50 changed 0 0 0 0", "7 0 0 lost 1f 0 0 0", "7 1 50 mapped 1 0 0 0")
    assert [r.word for r in found.records] == [Word.CHANGED, Word.LOST, Word.MAPPED]


def test_nothing_is_no_section() -> None:
    assert sections("") == ()
    assert sections("\n\n") == ()
    assert sections("0 0 50 changed 0 0 0 0\n") == ()


@pytest.mark.parametrize(
    "line",
    [
        "evil",
        " 3 0 50 changed 0 0 0 0",
        "3 0 50 changed 0 0 0 0 ",
        "3 0 50 changed 0 0 0",
        "3 0 50 changed 0 0 0 0 0",
        "3 0 50 changed 0 0 0 -1",
        "3 0 50 changed 0 0 0 0x1",
        "3 0 50 changed 0 0 0 " + 17 * "f",
        "3 0 50 Changed 0 0 0 0",
        "3 a 50 changed 0 0 0 0",
        "3 \u0661 50 changed 0 0 0 0",
        "3 0  50 changed 0 0 0 0",
        "... the rest of the output was left out ...",
        "probe=Evil at=evil+1 error=0",
        "probe=map at=evil evil error=0",
        "probe=map at=evil+1 error=evil",
        "probe=map at=" + 101 * "e" + " error=0",
        "cpus=evil",
        "cpus=",
        "cat: /sys/kernel/debug/evil: No such file or directory",
    ],
)
def test_a_line_of_another_form_is_an_error_that_does_not_repeat_it(line: str) -> None:
    good = "2 0 50 changed 0 0 0 0"
    assert section_of(good)
    with pytest.raises(EvidenceError) as caught:
        section_of(good, line)
    assert str(caught.value) == "line 4 of the guest's trace is no record"


@pytest.mark.parametrize("word", ["evil", "changes", "convert-", "-", "mark-mark"])
def test_an_unknown_word_is_an_error_that_does_not_repeat_it(word: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        section_of(f"0 0 50 {word} 0 0 0 0")
    assert str(caught.value) == "line 3 of the guest's trace has an unknown word"


@pytest.mark.parametrize("cpu", [MOST_CPUS, 100, 9999])
def test_a_cpu_beyond_the_last_is_an_error(cpu: int) -> None:
    with pytest.raises(EvidenceError, match=f"^line 3 of the guest's trace is of CPU {cpu}$"):
        section_of(f"0 {cpu} 50 changed 0 0 0 0")


@pytest.mark.parametrize("number", ["7", "6", "0"])
@pytest.mark.parametrize("word", ["changed", "stack"])
def test_records_out_of_order_are_an_error(number: str, word: str) -> None:
    assert section_of("7 0 50 convert 0 0 0 0", f"8 0 50 {word} 0 0 0 0")
    with pytest.raises(EvidenceError, match=r"of the guest's trace is out of order$"):
        section_of("7 0 50 convert 0 0 0 0", f"{number} 0 50 {word} 0 0 0 0")


@pytest.mark.parametrize(
    "cpus",
    [",", "0,", ",0", "0,,1", "-", "-1", "0-1-2", "0--1", "64", "0-64", "0,99999999999999999999"],
)
def test_what_is_no_list_of_cpus_is_an_error(cpus: str) -> None:
    assert sections("cpus=0-63\n")[0].cpus == tuple(range(64))
    with pytest.raises(EvidenceError, match=r"^line 1 of the guest's trace is no list of CPUs$"):
        sections(f"cpus={cpus}\n")


@pytest.mark.parametrize("cpus", ["1-0", "99-3", "5-"])
def test_a_range_of_cpus_that_is_none_is_an_error(cpus: str) -> None:
    with pytest.raises(EvidenceError):
        sections(f"cpus={cpus}\n")


@given(st.text(max_size=200))
def test_any_text_is_read_or_an_evidence_error(text: str) -> None:
    with suppress(EvidenceError):
        sections(text)
    with suppress(EvidenceError):
        sections(HEAD + text)


NUMBERS = st.integers(0, (1 << 64) - 1).map("{:x}".format)
WORDS = st.sampled_from([*Word, "evil"])
CPUS = st.integers(0, 99).map(str)
RECORDS = st.tuples(NUMBERS, CPUS, NUMBERS, WORDS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
LINES = st.one_of(
    RECORDS.map(" ".join),
    st.tuples(RECORDS.map(" ".join), st.integers(0, 99), st.characters()).map(
        lambda t: t[0][: t[1]] + t[2] + t[0][t[1] + 1 :]
    ),
    st.tuples(WORDS, st.text("ab_.+1 ", max_size=9), CPUS).map(
        lambda t: f"probe={t[0]} at={t[1]} error={t[2]}"
    ),
    st.text("0123456789,-", max_size=8).map("cpus={}".format),
)


@given(st.lists(LINES, max_size=6).map("\n".join))
def test_lines_that_are_almost_right_are_read_or_an_evidence_error(text: str) -> None:
    with suppress(EvidenceError):
        sections(HEAD + text)

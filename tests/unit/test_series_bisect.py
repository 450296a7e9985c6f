# SPDX-License-Identifier: GPL-2.0-or-later
"""The search for the first bad patch: always found, in so many runs, never by a host's fault."""

from math import ceil, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import BuildError, ConfigError, GuestError, HostError, PatchError
from harness.series.bisect import (
    Answer,
    Ending,
    Found,
    answer_of,
    answer_of_error,
    bisect,
    guarded,
)
from harness.series.compare import bugs
from harness.verdict import Finding, Outcome, Severity, Site, Verdict


class Kernel:
    """A series whose patches from `first` on are bad; `skipped` do not build."""

    def __init__(self, first: int, skipped: frozenset[int] = frozenset()) -> None:
        self.first = first
        self.skipped = skipped
        self.asked: list[int] = []

    def __call__(self, number: int) -> Answer:
        self.asked.append(number)
        if number in self.skipped:
            return Answer.SKIP
        return Answer.BAD if number >= self.first else Answer.GOOD


SERIES = st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(SERIES)
def test_the_first_bad_one_is_found_in_log2_runs(series: tuple[int, int]) -> None:
    count, first = series
    kernel = Kernel(first)
    assert bisect(count, kernel).suspects == (first,)
    assert len(kernel.asked) <= ceil(log2(count))
    assert not {0, count} & set(kernel.asked)


@given(SERIES, st.data())
def test_what_does_not_build_is_skipped(series: tuple[int, int], data: st.DataObject) -> None:
    count, first = series
    skipped = data.draw(st.frozensets(st.integers(1, count), max_size=12)) - {count}
    kernel = Kernel(first, skipped)
    found = bisect(count, kernel)
    # All that are not told apart from the first bad one, and no more.
    low = max(n for n in range(first) if n not in skipped)
    high = min(n for n in range(first, count + 1) if n not in skipped)
    assert found.suspects == tuple(range(low + 1, high + 1))
    assert found.ending is (Ending.FOUND if high - low == 1 else Ending.AMONG)
    assert bool(found.reason) is (found.ending is Ending.AMONG)
    assert len(kernel.asked) <= ceil(log2(count)) + len(skipped)
    assert len(set(kernel.asked)) == len(kernel.asked)


@given(SERIES, st.data())
def test_a_host_failure_is_no_answer(series: tuple[int, int], data: st.DataObject) -> None:
    count, first = series
    kernel = Kernel(first)
    failing = data.draw(st.dictionaries(st.integers(1, count), st.integers(1, 2)))

    def probe(number: int) -> Answer:
        if failing.get(number):
            failing[number] -= 1
            return Answer.HOST_FAILURE
        return kernel(number)

    found = bisect(count, probe, retries=2)
    assert (found.ending, found.suspects) == (Ending.FOUND, (first,))


@pytest.mark.parametrize("retries", [0, 3])
def test_a_host_that_keeps_failing_ends_the_search(retries: int) -> None:
    found = bisect(8, lambda number: Answer.HOST_FAILURE, retries=retries)
    assert found.ending is Ending.ERROR and not found.suspects
    assert found.reason == f"patch 4 could not be run: the host failed {retries + 1} times"
    assert found.probes == ((4, Answer.HOST_FAILURE),) * (retries + 1)


def test_what_is_known_is_not_asked() -> None:
    kernel = Kernel(5)
    known = {3: Answer.GOOD, 4: Answer.SKIP, 6: Answer.BAD, 5: Answer.HOST_FAILURE}
    found = bisect(8, kernel, known=known)
    assert kernel.asked == [5]
    assert found == Found(
        ending=Ending.AMONG,
        suspects=(4, 5),
        reason="patches 4 to 4 cannot be tested",
        probes=((5, Answer.BAD),),
    )


@pytest.mark.parametrize("known", [{0: Answer.BAD}, {0: Answer.SKIP}, {4: Answer.GOOD}])
def test_nothing_to_find(known: dict[int, Answer]) -> None:
    found = bisect(4, Kernel(1), known=known)
    assert found.ending is Ending.NOTHING and not found.probes
    assert bisect(0, Kernel(1)).ending is Ending.NOTHING


BUG = Finding(
    rule="guest-tlb-flush",
    severity=Severity.FAIL,
    summary="s",
    conversion_site=Site(address=1, symbol="f+0x1/0x2"),
)
OTHER = Finding(rule="dma-data", severity=Severity.FAIL, summary="s")
(ID,) = bugs([BUG])
WHOLE = Verdict(outcome=Outcome.PASS, counts={"steps": 3})


def verdict(outcome: Outcome, *findings: Finding, steps: int = 3, reason: str = "") -> Verdict:
    return Verdict(outcome=outcome, findings=findings, counts={"steps": steps}, reason=reason)


@pytest.mark.parametrize(
    ("run", "answer", "of_any"),
    [
        (verdict(Outcome.PASS), Answer.GOOD, Answer.GOOD),
        (verdict(Outcome.FAIL, BUG), Answer.BAD, Answer.BAD),
        (verdict(Outcome.FAIL, OTHER), Answer.GOOD, Answer.BAD),
        (verdict(Outcome.FAIL, OTHER, steps=2), Answer.SKIP, Answer.BAD),
        (verdict(Outcome.FAIL, OTHER, reason="cut"), Answer.SKIP, Answer.BAD),
        (verdict(Outcome.EMPTY, reason="nothing"), Answer.SKIP, Answer.SKIP),
        (verdict(Outcome.ERROR, reason="lost"), Answer.HOST_FAILURE, Answer.HOST_FAILURE),
        (verdict(Outcome.ERROR, BUG, reason="lost"), Answer.HOST_FAILURE, Answer.HOST_FAILURE),
    ],
)
def test_what_a_run_says(run: Verdict, answer: Answer, of_any: Answer) -> None:
    for name in (ID, "guest-tlb-flush", "guest-tlb-flush:f"):
        assert answer_of(run, name, WHOLE) is answer
    assert answer_of(run, reference=WHOLE) is of_any


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (BuildError("x"), Answer.SKIP),
        (GuestError("x"), Answer.SKIP),
        (PatchError("x"), Answer.HOST_FAILURE),
        (ConfigError("x"), Answer.HOST_FAILURE),
        (HostError("x"), Answer.HOST_FAILURE),
        (OSError("x"), Answer.HOST_FAILURE),
    ],
)
def test_what_an_error_says(error: Exception, answer: Answer) -> None:
    assert answer_of_error(error) is answer

    def probe(number: int) -> Answer:
        raise error

    if isinstance(error, PatchError | ConfigError):
        with pytest.raises(type(error)):
            guarded(probe)(1)
    else:
        assert guarded(probe)(1) is answer


def test_an_answer_passes_the_guard() -> None:
    assert guarded(Kernel(1))(1) is Answer.BAD


def test_the_codes_are_those_of_git_bisect() -> None:
    codes = {answer.name: answer.value for answer in Answer}
    assert codes == {"GOOD": 0, "BAD": 1, "SKIP": 125, "HOST_FAILURE": 128}

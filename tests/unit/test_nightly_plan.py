# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cells run first, and that each has its turn."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.history.records import Cell, CellKey, CellState, Night
from harness.nightly.plan import BASE_S, PATCH_S, RUN_S, Plan, Times, Wanted, halving, plan
from harness.testing.nights import START_S, key, sighting
from harness.verdict import Outcome

COMMIT = "c" * 40


def wanted(patch: int = 0, *, series: str = "a", vcpus: int = 2, version: int = 1) -> Wanted:
    named = replace(key(), series=series, patch_number=patch, patch=f"patch {patch}", vcpus=vcpus)
    patchset = f"{series} {version} {patch}" if patch else ""
    return Wanted(key=named, commit=COMMIT, patchset=patchset)


def matrix(patches: int = 4, vcpus: Sequence[int] = (2,), series: str = "a") -> list[Wanted]:
    return [wanted(n, series=series, vcpus=v) for v in vcpus for n in range(patches + 1)]


def judged(one: Wanted, outcome: Outcome = Outcome.PASS, *, run_s: float = 30.0) -> Cell:
    return Cell(
        key=one.key,
        state=CellState.DONE,
        outcome=outcome,
        started_s=START_S,
        ended_s=START_S + run_s,
        run="runs/a",
        commit=one.commit,
        patchset=one.patchset,
        sightings=(sighting(),) if outcome is Outcome.FAIL else (),
    )


def night(number: int, *cells: Cell) -> Night:
    return Night(number=number, name="dma", started_s=START_S + number, cells=cells)


def numbers(made: Plan) -> list[tuple[int, int]]:
    return [(job.first.key.patch_number, job.first.key.vcpus) for job in made.jobs]


FOREVER = 1e9


def test_the_base_and_the_whole_come_first_and_then_halves() -> None:
    made = plan(matrix(8), (), FOREVER)
    order = [patch for patch, _ in numbers(made)]
    assert order[:3] == [0, 8, 4]
    assert set(order[3:5]) == {2, 6}


@pytest.mark.parametrize(
    ("count", "depths"), [(0, []), (1, [0]), (2, [0, 1]), (3, [0, 2, 1]), (5, [0, 3, 2, 3, 1])]
)
def test_halving(count: int, depths: list[int]) -> None:
    assert halving(count) == depths


def test_every_kernel_has_a_guest_before_any_has_two() -> None:
    made = plan(matrix(2, (1, 4)), (), FOREVER)
    assert [vcpus for _, vcpus in numbers(made)] == [1, 1, 1, 4, 4, 4]


def test_what_changed_comes_before_what_did_not() -> None:
    cells = [*matrix(2, series="old"), *matrix(2, series="new")]
    before = night(1, *map(judged, cells))
    changed = [
        replace(one, patchset=one.patchset + "v2") if one.key.series == "new" else one
        for one in cells
        if one.key.patch_number
    ]
    made = plan(changed, (before,), FOREVER)
    assert [job.first.key.series for job in made.jobs] == ["new", "new", "old", "old"]


def test_what_found_something_is_looked_at_sooner() -> None:
    cells = matrix(2)
    before = night(1, judged(cells[0]), judged(cells[1], Outcome.FAIL), judged(cells[2]))
    assert numbers(plan(cells, (before,), FOREVER))[0] == (1, 2)


def test_what_was_left_out_comes_first_the_next_night() -> None:
    cells = matrix(2)
    first = night(1, *map(judged, cells))
    second = night(2, judged(cells[0]), judged(cells[2]), Cell(key=cells[1].key))
    assert numbers(plan(cells, (second, first), FOREVER))[0] == (1, 2)


def test_times_come_from_the_history() -> None:
    nothing = Times.of(())
    assert (nothing.run_of(key()), nothing.build_of(wanted(1))) == (RUN_S, PATCH_S)
    assert nothing.build_of(wanted(0)) == BASE_S
    runs = [replace(judged(wanted(1), run_s=s), build_s=b) for s, b in ((10, 7), (20, 0), (90, 9))]
    times = Times.of([night(n, run) for n, run in enumerate(runs)])
    assert times.run_of(wanted(1).key) == 20
    assert times.run_of(wanted(3).key) == 20
    assert times.build_of(wanted(3)) == 8
    there = Times.of((), [wanted(0).kernel])
    assert (there.build_of(wanted(0)), there.build_of(wanted(1))) == (0, PATCH_S)
    error = night(9, replace(judged(wanted(1), run_s=900), outcome=Outcome.ERROR))
    assert Times.of((error,)).run_of(wanted(1).key) == RUN_S


def test_a_base_that_two_series_have_is_one_job() -> None:
    cells = [*matrix(1, series="a"), *matrix(1, series="b")]
    made = plan(cells, (), FOREVER)
    assert [len(job.cells) for job in made.jobs] == [2, 1, 1]


def test_a_small_cell_fills_what_a_large_one_leaves() -> None:
    cells = [wanted(1, vcpus=4), wanted(1, vcpus=1)]
    slow = night(1, judged(cells[0], Outcome.FAIL, run_s=500), judged(cells[1], run_s=20))
    there = [cells[0].kernel]
    made = plan(cells, (slow,), 100.0, built=there)
    assert [job.first.key.vcpus for job in made.jobs] == [1]
    assert [job.first.key.vcpus for job in made.left_out] == [4]
    assert made.expected_s == 20
    alone = plan(cells, (slow,), 100.0, at_least_one=True, built=there)
    assert [job.first.key.vcpus for job in alone.jobs] == [4]


def test_guests_side_by_side_share_the_time() -> None:
    cells = [wanted(0, vcpus=v) for v in (1, 2, 4, 8)]
    before = night(1, *(judged(one, run_s=50) for one in cells))
    there = [cells[0].kernel]
    assert len(plan(cells, (before,), 100.0, built=there).jobs) == 2
    assert len(plan(cells, (before,), 100.0, at_once=2, built=there).jobs) == 4
    # a build does not get shorter, and serves all guests of its kernel
    assert plan(cells, (before,), FOREVER, at_once=2).expected_s == BASE_S + 100


keys = st.builds(
    wanted,
    st.integers(0, 5),
    series=st.sampled_from("abc"),
    vcpus=st.sampled_from((1, 2, 4)),
    version=st.integers(1, 2),
)
outcomes = st.sampled_from((Outcome.PASS, Outcome.FAIL, Outcome.ERROR))
nights = st.lists(
    st.lists(
        st.tuples(keys, outcomes, st.floats(1, 400)), max_size=8, unique_by=lambda c: c[0].key
    ),
    max_size=4,
)
wants = st.lists(keys, max_size=20, unique_by=lambda one: one.key)


@given(wants, nights, st.floats(0, 2000), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_a_plan_holds_each_cell_once_and_fits(
    cells: list[Wanted],
    past: list[list[tuple[Wanted, Outcome, float]]],
    left_s: float,
    at_once: int,
) -> None:
    history = [
        night(n, *(judged(one, outcome, run_s=s) for one, outcome, s in ran))
        for n, ran in enumerate(past)
    ]
    made = plan(cells, history, left_s, at_once=at_once)
    everything = [one.key for job in (*made.jobs, *made.left_out) for one in job.cells]
    assert sorted(everything) == sorted(one.key for one in cells)
    assert made.expected_s <= left_s
    # the same question has the same answer, whatever the time
    whole = plan(cells, history, FOREVER, at_once=at_once)
    assert not whole.left_out
    ranks = {job: rank for rank, job in enumerate(whole.jobs)}
    for jobs in (made.jobs, made.left_out):
        assert [ranks[job] for job in jobs] == sorted(ranks[job] for job in jobs)
    assert all(len({one.work for one in job.cells}) == 1 for job in whole.jobs)


@given(
    st.lists(keys, min_size=1, max_size=12, unique_by=lambda one: one.key),
    st.lists(st.floats(5, 200), min_size=12, max_size=12),
    st.floats(20, 400),
    st.sets(st.integers(0, 11)),
)
@settings(max_examples=60, deadline=None)
def test_each_cell_has_its_turn(
    cells: list[Wanted], run_s: list[float], budget_s: float, unclean: set[int]
) -> None:
    """However small the budget, and however often some cells fail or change."""
    history: list[Night] = []
    seen: set[CellKey] = set()
    for number in range(4 * len(cells) + 8):
        tonight = [
            replace(one, patchset=f"{one.patchset} {number}" if one.key.series == "a" else "x")
            for one in cells
        ]
        made = plan(tonight, history, budget_s, at_least_one=True)
        ran = {one.key for job in made.jobs for one in job.cells}
        seen |= ran
        history.insert(
            0,
            night(
                number,
                *(
                    judged(one, Outcome.FAIL if at in unclean else Outcome.PASS, run_s=run_s[at])
                    if one.key in ran
                    else Cell(key=one.key)
                    for at, one in enumerate(tonight)
                ),
            ),
        )
        del history[14:]
    assert seen == {one.key for one in cells}

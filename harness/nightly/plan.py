# SPDX-License-Identifier: GPL-2.0-or-later
"""Which cells of a matrix run, and in which order, when there is not time for all; pure.

The most informative first:

1. what was not judged for longest, in nights; what changed since, or never was judged, counts as a
   week older, what found something or could not be judged as two nights older;
2. one guest for every kernel before a second one for any;
3. the base and the whole series before the patches between, and of those the ones that halve what
   is not known yet, as a bisection would ask for them;
4. what takes less time.

Each night that leaves a cell out moves it forward, so each has its turn. A kernel that several
cells have in the same guest is one piece of work.
"""

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from harness.history.records import Cell, CellKey, Night
from harness.verdict import Outcome

_What = TypeVar("_What")
# The commit of a base, the hash of patches, a configuration.
Kernel = tuple[str, str, str]
# Where the history knows nothing; measured on 2 cores: a run 45 s, a patch 30 s, a base 6 min.
RUN_S = 60.0
PATCH_S = 45.0
BASE_S = 600.0
_UNCLEAN_NIGHTS = 2
_CHANGED_NIGHTS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A cell of the matrix, and the kernel in it: the base's commit and the hash of the patches."""

    key: CellKey
    commit: str
    patchset: str

    @property
    def kernel(self) -> Kernel:
        """What is built."""
        return (self.commit, self.patchset, self.key.config)

    @property
    def work(self) -> tuple[object, ...]:
        """What is run: cells alike in it are one piece of work."""
        return (*self.kernel, *self.key.guest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of work, and the cells that it is for; times in seconds."""

    cells: tuple[Wanted, ...]
    build_s: float
    run_s: float

    @property
    def first(self) -> Wanted:
        """Says what to build and run: the others have the same."""
        return self.cells[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Jobs in the order to run them, and those that there is no time for, most urgent first."""

    jobs: tuple[Job, ...] = ()
    left_out: tuple[Job, ...] = ()
    expected_s: float = 0.0


def plan(
    wanted: Sequence[Wanted],
    history: Sequence[Night],
    left_s: float,
    *,
    at_once: int = 1,
    at_least_one: bool = False,
    built: Collection[Kernel] = (),
) -> Plan:
    """Order the cells and take what fits into `left_s`; `history` is newest first.

    `at_once` guests run side by side; kernels that are `built` are not built again. With
    `at_least_one` the most urgent is taken whatever it takes: a budget that is too small for any
    cell would never get anywhere.
    """
    times = Times.of(history, built)
    jobs = _ordered(wanted, history, times)
    taken: list[Job] = []
    left_out: list[Job] = []
    made: set[Kernel] = set()
    spent_s = 0.0
    for job in jobs:
        # A kernel is built for the first of its guests.
        build_s = 0.0 if job.first.kernel in made else job.build_s
        cost_s = build_s + job.run_s / max(1, at_once)
        if spent_s + cost_s <= left_s or (at_least_one and not taken):
            spent_s += cost_s
            made.add(job.first.kernel)
            taken.append(job)
        else:
            left_out.append(job)
    return Plan(jobs=tuple(taken), left_out=tuple(left_out), expected_s=spent_s)


@dataclass(frozen=True, slots=True)
class Times:
    """What runs and builds took, as medians of the history."""

    by_key: Mapping[CellKey, float]
    by_guest: Mapping[tuple[int, str, str], float]
    run_s: float
    patch_s: float
    base_s: float
    built: frozenset[Kernel]

    @classmethod
    def of(cls, history: Sequence[Night], built: Collection[Kernel] = ()) -> "Times":
        """From earlier nights; a cell that could not be judged says nothing of times."""
        cells = [cell for night in history for cell in night.cells if cell.looked]
        runs = [(cell.key, cell.seconds) for cell in cells if cell.seconds > 0]
        builds = [(not cell.patchset, cell.build_s) for cell in cells if cell.build_s > 0]
        return cls(
            by_key=_medians(runs),
            by_guest=_medians((_size(key), seconds) for key, seconds in runs),
            run_s=_median([seconds for _, seconds in runs], RUN_S),
            patch_s=_median([seconds for base, seconds in builds if not base], PATCH_S),
            base_s=_median([seconds for base, seconds in builds if base], BASE_S),
            built=frozenset(built),
        )

    def run_of(self, key: CellKey) -> float:
        """A run of this cell, of one like it, or of any."""
        return self.by_key.get(key) or self.by_guest.get(_size(key)) or self.run_s

    def build_of(self, wanted: Wanted) -> float:
        """The build of the kernel: none when it is there."""
        if wanted.kernel in self.built:
            return 0.0
        return self.patch_s if wanted.patchset else self.base_s


def _size(key: CellKey) -> tuple[int, str, str]:
    return (key.vcpus, key.mode, key.host)


def _medians(pairs: Iterable[tuple[_What, float]]) -> dict[_What, float]:
    found: dict[_What, list[float]] = {}
    for what, seconds in pairs:
        found.setdefault(what, []).append(seconds)
    return {what: statistics.median(values) for what, values in found.items()}


def _median(values: Sequence[float], otherwise: float) -> float:
    return statistics.median(values) if values else otherwise


def _ordered(wanted: Sequence[Wanted], history: Sequence[Night], times: Times) -> list[Job]:
    jobs: dict[tuple[object, ...], list[Wanted]] = {}
    for one in wanted:
        jobs.setdefault(one.work, []).append(one)
    ages = _ages(wanted, history)
    between = _between(wanted)
    guests: Counter[Kernel] = Counter()
    ranked = []
    for cells in jobs.values():
        first = cells[0]
        run_s = max(times.run_of(one.key) for one in cells)
        job = Job(cells=tuple(cells), build_s=times.build_of(first), run_s=run_s)
        age = max(ages[one.key] for one in cells)
        middle = min(between[one.key] for one in cells)
        ranked.append((-age, guests[first.kernel], middle, job.build_s + run_s, job))
        guests[first.kernel] += 1
    # Sorted by all but the job; what is alike stays in the order of the matrix.
    return [job for *_, job in sorted(ranked, key=lambda rank: rank[:-1])]


def _ages(wanted: Sequence[Wanted], history: Sequence[Night]) -> dict[CellKey, int]:
    """How many nights ago each cell was judged, with what makes it more urgent."""
    last: dict[CellKey, tuple[int, Cell]] = {}
    for nights, night in enumerate(history, 1):
        for cell in night.cells:
            if cell.outcome is not None:
                last.setdefault(cell.key, (nights, cell))
    return {one.key: _age(one, last.get(one.key), len(history) + 1) for one in wanted}


def _age(wanted: Wanted, last: tuple[int, Cell] | None, never: int) -> int:
    if last is None:
        return _CHANGED_NIGHTS + never
    nights, cell = last
    if (cell.commit, cell.patchset) != (wanted.commit, wanted.patchset):
        return _CHANGED_NIGHTS + nights
    return nights + (0 if cell.outcome is Outcome.PASS else _UNCLEAN_NIGHTS)


def _between(wanted: Sequence[Wanted]) -> dict[CellKey, int]:
    """By cell, how soon a bisection of its series asks for it: the base, the whole, the rest."""
    rows: dict[tuple[object, ...], list[Wanted]] = {}
    for one in wanted:
        rows.setdefault((one.key.base, one.key.series, one.key.guest), []).append(one)
    found: dict[CellKey, int] = {}
    for row in rows.values():
        row.sort(key=lambda one: one.key.patch_number)
        depths = halving(len(row))
        found.update((one.key, depth) for one, depth in zip(row, depths, strict=True))
    return found


def halving(count: int) -> list[int]:
    """For each of `count` in a row, when it is asked for: the first, the last, then by halves."""
    depths = [0] * count
    depths[1:] = [1] * (count - 1)

    def split(low: int, high: int, depth: int) -> None:
        if high - low > 1:
            middle = (low + high) // 2
            depths[middle] = depth
            split(low, middle, depth + 1)
            split(middle, high, depth + 1)

    split(0, count - 1, 2)
    return depths

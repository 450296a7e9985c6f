# SPDX-License-Identifier: GPL-2.0-or-later
"""Nights, cells and what was seen in them, as plain data; and how two nights differ."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.text import printable
from harness.triage import identity_of, place_of, title_of
from harness.verdict import Finding, Outcome, Severity

TEXT_LENGTH = 300


class CellState(StrEnum):
    """Where a cell is in its life; a night that was killed left one RUNNING at most."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class CellKey:
    """What one cell of the matrix runs: one patch of a series on a base, in one kind of guest."""

    base: str
    series: str
    # 0 is the base itself, without any patch
    patch_number: int
    # the patch's subject
    patch: str
    config: str
    vcpus: int
    # "stub", "tdx" or "none"
    mode: str
    host: str

    @property
    def guest(self) -> tuple[str, int, str, str]:
        """The kind of guest: what a finding has to be seen in again to be compared."""
        return (self.config, self.vcpus, self.mode, self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One bug in one cell. `looked` fresh guests were tried, `seen` of them showed it."""

    identity: str
    rule: str
    kind: str
    title: str
    place: str
    severity: Severity
    summary: str = ""
    count: int = 1
    seen: int = 1
    looked: int = 1
    # where the run is that showed it
    run: str = ""
    # the link of the known issue that it is, and its last day (ISO 8601); "" when it is none
    known: str = ""
    known_until: str = ""

    @property
    def flaky(self) -> bool:
        """Only what a second guest did not show is flaky."""
        return self.seen < self.looked

    @property
    def counts(self) -> bool:
        """Whether it counts against the kernel."""
        return self.severity is Severity.FAIL and not self.known

    @classmethod
    def of(
        cls, finding: Finding, *, run: str = "", known: str = "", known_until: str = ""
    ) -> "Sighting":
        """A finding of a judged run."""
        return cls(
            identity=identity_of(finding),
            rule=finding.rule,
            kind=str(finding.extra.get("kind", "")),
            title=title_of(finding),
            place=place_of(finding),
            severity=finding.severity,
            summary=printable(finding.summary, TEXT_LENGTH),
            count=finding.count,
            run=run,
            known=known,
            known_until=known_until,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell and how it ended; times are seconds since the epoch, 0 where there is none."""

    key: CellKey
    state: CellState = CellState.PLANNED
    outcome: Outcome | None = None
    reason: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    # what the build of its kernel took, in seconds; 0 when the kernel was there
    build_s: float = 0.0
    # what the compiler said of the patches that it does not say of the base; the first few
    warnings: tuple[str, ...] = ()
    run: str = ""
    # the run of a second, fresh guest that what was new was looked for in; "" when there was none
    again: str = ""
    # the base's commit, and the hash of the patches up to this one as KCIDB defines it
    commit: str = ""
    patchset: str = ""
    sightings: tuple[Sighting, ...] = ()

    @property
    def looked(self) -> bool:
        """Whether it would have shown a bug: it ran, and its evidence could be judged."""
        return self.outcome in (Outcome.PASS, Outcome.FAIL)

    @property
    def seconds(self) -> float:
        """What its guests took."""
        return max(0.0, self.ended_s - self.started_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One run of the matrix."""

    number: int
    name: str
    started_s: float
    # 0 as long as it has not ended
    ended_s: float = 0.0
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One bug over two nights."""

    sighting: Sighting
    # the first patch that shows it, by number, and its subject; 0 and "" for the base
    patch_number: int
    patch: str
    series: str
    base: str
    # of the cells that looked for it from that patch on, those that saw it
    seen_in: int
    looked_in: int
    flaky: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A night against an earlier one; each bug is in exactly one of these."""

    new: tuple[Change, ...] = ()
    still: tuple[Change, ...] = ()
    fixed: tuple[Change, ...] = ()
    # seen before, and tonight no cell looked that had shown it
    unknown: tuple[Change, ...] = ()
    known: tuple[Change, ...] = ()


def busy_s(cells: Iterable[Cell]) -> float:
    """For how long at least one of these cells was built or run, in seconds."""
    spans = sorted((c.started_s - c.build_s, c.ended_s) for c in cells if c.started_s)
    total, until = 0.0, 0.0
    for begin, end in spans:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def merged(nights: Sequence[Night]) -> Night | None:
    """Earlier nights, the newest first, as one to compare with: each cell as it was judged last.

    A night may have run a part of its cells only. Of a series, the newest night that has it says
    which cells there are.
    """
    if not nights:
        return None
    alive: dict[tuple[str, str], frozenset[CellKey]] = {}
    found: dict[CellKey, Cell] = {}
    for night in nights:
        keys: dict[tuple[str, str], set[CellKey]] = {}
        for key in (cell.key for cell in night.cells):
            keys.setdefault((key.base, key.series), set()).add(key)
        for where, of_series in keys.items():
            alive.setdefault(where, frozenset(of_series))
        for cell in night.cells:
            known = found.get(cell.key)
            if cell.key in alive[cell.key.base, cell.key.series] and not (known and known.looked):
                found[cell.key] = cell if cell.looked or not known else known
    return replace(nights[0], cells=tuple(found.values()))


def changes_of(night: Night) -> dict[tuple[str, str, str], Change]:
    """The bugs of a night by base, series and identity, in the order of their first patch."""
    seen: dict[tuple[str, str, str], list[tuple[Cell, Sighting]]] = {}
    for cell in sorted(night.cells, key=lambda cell: cell.key):
        for sighting in cell.sightings:
            where = (cell.key.base, cell.key.series, sighting.identity)
            seen.setdefault(where, []).append((cell, sighting))
    return {where: _change(night, pairs) for where, pairs in seen.items()}


def _change(night: Night, pairs: list[tuple[Cell, Sighting]]) -> Change:
    first, sighting = min(pairs, key=lambda pair: pair[0].key.patch_number)
    key = first.key
    looked = [
        cell
        for cell in night.cells
        if cell.looked
        and (cell.key.base, cell.key.series) == (key.base, key.series)
        and cell.key.patch_number >= key.patch_number
    ]
    return Change(
        sighting=sighting,
        patch_number=key.patch_number,
        patch=key.patch if key.patch_number else "",
        series=key.series,
        base=key.base,
        seen_in=len(pairs),
        looked_in=max(len(looked), len(pairs)),
        flaky=any(s.flaky for _, s in pairs),
    )


def compare(night: Night, before: Night | None) -> Comparison:
    """What is new, fixed and still there; without an earlier night all is new.

    A bug counts as fixed only where a cell that showed it looked again and did not see it; for a
    patch that the series has no more, the whole series in the same guest. What only reports is
    left out.
    """
    now = _counting(changes_of(night))
    then = _counting(changes_of(before)) if before else {}
    gone = [(where, change) for where, change in then.items() if where not in now]
    known = [w for w, change in now.items() if change.sighting.known]
    open_now = [(w, c) for w, c in now.items() if w not in known]
    again = _Again(night)
    return Comparison(
        new=tuple(c for w, c in open_now if w not in then),
        still=tuple(c for w, c in open_now if w in then),
        fixed=tuple(c for w, c in gone if any(map(again.looked, _showed(before, w)))),
        unknown=tuple(c for w, c in gone if not any(map(again.looked, _showed(before, w)))),
        known=tuple(now[w] for w in known),
    )


def by_patch(changes: Iterable[Change]) -> list[list[Change]]:
    """Changes in order, those together that one patch brings, or one known issue explains."""
    found: dict[tuple[object, ...], list[Change]] = {}
    for change in changes:
        where = (change.base, change.series, change.patch_number, change.patch)
        found.setdefault((*where, change.sighting.known), []).append(change)
    return list(found.values())


def _counting(
    changes: dict[tuple[str, str, str], Change],
) -> dict[tuple[str, str, str], Change]:
    return {w: c for w, c in changes.items() if c.sighting.severity is Severity.FAIL}


class _Again:
    """Whether tonight looked where a cell of an earlier night did."""

    def __init__(self, night: Night) -> None:
        self._planned = {cell.key for cell in night.cells}
        self._looked = {cell.key for cell in night.cells if cell.looked}
        self._whole: dict[tuple[object, ...], CellKey] = {}
        for key in sorted(self._planned):
            self._whole[key.base, key.series, key.guest] = key

    def looked(self, key: CellKey) -> bool:
        if key in self._planned:
            return key in self._looked
        return self._whole.get((key.base, key.series, key.guest)) in self._looked


def _showed(night: Night | None, where: tuple[str, str, str]) -> set[CellKey]:
    """The cells that showed a bug."""
    cells: Iterable[Cell] = night.cells if night else ()
    return {
        cell.key
        for cell in cells
        for sighting in cell.sightings
        if (cell.key.base, cell.key.series, sighting.identity) == where
    }

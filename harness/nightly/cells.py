# SPDX-License-Identifier: GPL-2.0-or-later
"""From the verdicts of a cell's guests to what the history keeps of it; pure."""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import ExitCode, HarnessError
from harness.history.records import Cell, CellKey, CellState, Comparison, Night, Sighting
from harness.known import KnownIssue
from harness.nightly.plan import Wanted
from harness.report.words import plural
from harness.series.compare import Bug, bugs, went_as_far
from harness.text import printable
from harness.verdict import Outcome, Severity, Verdict

MOST_WARNINGS = 10
_REASON_LENGTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A kernel in a guest, and once more in a fresh one where something was new; in seconds."""

    run: str
    verdict: Verdict
    started_s: float
    ended_s: float
    build_s: float = 0.0
    # of the compiler, that the base has not
    warnings: tuple[str, ...] = ()
    again_run: str = ""
    again: Verdict | None = None


def cell_of(wanted: Wanted, ran: Ran, known: Sequence[KnownIssue], today: datetime.date) -> Cell:
    """The cell as it ended."""
    return Cell(
        key=wanted.key,
        state=CellState.DONE,
        outcome=ran.verdict.outcome,
        reason=printable(ran.verdict.reason, _REASON_LENGTH),
        started_s=ran.started_s,
        ended_s=ran.ended_s,
        build_s=ran.build_s,
        warnings=tuple(printable(words) for words in ran.warnings[:MOST_WARNINGS]),
        run=ran.run,
        again=ran.again_run,
        commit=wanted.commit,
        patchset=wanted.patchset,
        sightings=_with_known(_sightings(ran), known, wanted.key.base, today),
    )


def cell_of_error(wanted: Wanted, error: HarnessError, now_s: float) -> Cell:
    """A cell that could not be run."""
    return Cell(
        key=wanted.key,
        state=CellState.DONE,
        outcome=Outcome.ERROR,
        reason=printable(error.message, _REASON_LENGTH),
        started_s=now_s,
        ended_s=now_s,
        commit=wanted.commit,
        patchset=wanted.patchset,
    )


def cell_like(
    done: Cell, wanted: Wanted, known: Sequence[KnownIssue], today: datetime.date
) -> Cell:
    """What a cell of another series found whose kernel and guest are the same."""
    sightings = _with_known(done.sightings, known, wanted.key.base, today)
    return replace(done, key=wanted.key, sightings=sightings)


def _sightings(ran: Ran) -> Iterator[Sighting]:
    first = bugs(ran.verdict.findings)
    if ran.again is None:
        for bug in first.values():
            yield _sighting(bug, ran.run, 1, 1)
        return
    second = bugs(ran.again.findings)
    # A guest that died on the way may have kept a bug to itself: that is no evidence.
    looked_again = 2 if went_as_far(ran.again, ran.verdict) else 1
    looked_first = 2 if went_as_far(ran.verdict, ran.again) else 1
    for identity, bug in first.items():
        both = identity in second
        yield _sighting(bug, ran.run, 2 if both else 1, 2 if both else looked_again)
    for identity, bug in second.items():
        if identity not in first:
            yield _sighting(bug, ran.again_run, 1, looked_first)


def _sighting(bug: Bug, run: str, seen: int, looked: int) -> Sighting:
    sighting = Sighting.of(bug.finding, run=run)
    return replace(sighting, severity=bug.severity, count=bug.count, seen=seen, looked=looked)


def _with_known(
    sightings: Iterable[Sighting], known: Sequence[KnownIssue], base: str, today: datetime.date
) -> tuple[Sighting, ...]:
    """The sightings, each with the known issue that it is."""
    holding = [issue for issue in known if not issue.expired(today)]

    def of(seen: Sighting) -> Sighting:
        for issue in holding:
            if issue.names(seen.identity, seen.rule, seen.place, base):
                return replace(seen, known=issue.link, known_until=issue.expires.isoformat())
        return replace(seen, known="", known_until="")

    return tuple(map(of, sightings))


def new_bugs(cells: Iterable[Cell]) -> set[tuple[str, str, str]]:
    """What fails and is no known issue, by base, series and identity."""
    return {
        (cell.key.base, cell.key.series, sighting.identity)
        for cell in cells
        for sighting in cell.sightings
        if sighting.counts
    }


def seen_in(cells: Iterable[Cell], *, sure: bool) -> set[tuple[str, str, str]]:
    """What was seen to fail; `sure` leaves out what no second guest was tried for."""
    return {
        (cell.key.base, cell.key.series, sighting.identity)
        for cell in cells
        for sighting in cell.sightings
        if sighting.severity is Severity.FAIL and (sighting.looked > 1 or not sure)
    }


def issue_notes(
    known: Mapping[str, Sequence[KnownIssue]], night: Night, today: datetime.date
) -> list[str]:
    """What has to be told of known issues: those past their day, and those that nobody saw.

    `known` holds them by series. Only where a cell looked can an issue be missed.
    """
    notes = []
    for series, issues in known.items():
        looked = [c for c in night.cells if c.key.series == series and c.looked]
        links = {s.known for cell in looked for s in cell.sightings}
        for issue in issues:
            note = issue.remark(today, seen=issue.link in links or not looked)
            notes += [f"{printable(series, 60)}: {note}"] if note else []
    return notes


def exit_code(night: Night, comparison: Comparison, unread: Sequence[str]) -> ExitCode:
    """1 for what is new, 4 when a cell that ran or a series could not be judged."""
    if comparison.new:
        return ExitCode.FINDINGS
    ran = [cell for cell in night.cells if cell.state is CellState.DONE]
    unjudged = [cell for cell in ran if not cell.looked and cell.outcome is not Outcome.SKIP]
    return ExitCode.CANNOT_JUDGE if unread or unjudged or not ran else ExitCode.PASS


def name_of(key: CellKey) -> str:
    """Words for progress."""
    kernel = key.base
    if key.patch_number:
        kernel = f"{key.series}: patch {key.patch_number}, {key.patch}"
    mode = "" if key.mode == "stub" else f", mode {key.mode}"
    return printable(f"{kernel}, {plural(key.vcpus, 'vCPU')}{mode}", 160)

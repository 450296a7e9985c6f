# SPDX-License-Identifier: GPL-2.0-or-later
"""Nights and findings over time as a table of at most 100 columns; pure."""

import time
from collections.abc import Iterator, Sequence

from harness.history.records import Cell, CellState, Night, Sighting, compare
from harness.text import printable
from harness.verdict import Outcome

WIDTH = 100
# One column each.
MOST_NIGHTS = 30
MOST_FINDINGS = 200
_TITLE = 40
_LEGEND = (
    "x seen, ~ flaky, k known, r only reported, . looked for and not seen, blank not looked for"
)


def trend(nights: Sequence[Night], wanted: str = "") -> str:
    """Two tables: the nights, newest first as given, and each finding's marks, oldest first.

    With `wanted` only findings whose title, rule or identity holds it are shown.
    """
    nights = nights[:MOST_NIGHTS]
    if not nights:
        return "The history holds no night yet.\n"
    return "\n".join((*_nights(nights), "", *_findings(nights[::-1], wanted), ""))


def day(seconds: float) -> str:
    """A date in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def ended(cells: Sequence[Cell]) -> dict[str, int]:
    """Cells by how they ended; the other outcomes count as "else"."""
    outcomes = [cell.outcome for cell in cells if cell.state is CellState.DONE]
    counts = {word: outcomes.count(Outcome(word)) for word in ("PASS", "FAIL")}
    return {**counts, "else": len(outcomes) - sum(counts.values())}


def _nights(nights: Sequence[Night]) -> Iterator[str]:
    yield f"{'night':>6}  {'began':10}  {'cells':>9}  pass  fail  else   new fixed still  name"
    for index, night in enumerate(nights):
        before = next((n for n in nights[index + 1 :] if n.name == night.name), None)
        change = compare(night, before)
        counts = ended(night.cells)
        cells = f"{sum(counts.values())}/{len(night.cells)}"
        line = (
            f"{night.number:>6}  {day(night.started_s)}  {cells:>9}"
            f"  {counts['PASS']:>4}  {counts['FAIL']:>4}  {counts['else']:>4}"
            f"  {len(change.new):>4}  {len(change.fixed):>4}  {len(change.still):>4}"
            f"  {printable(night.name, 30)}"
        )
        yield line if night.ended_s else f"{line} (not ended)"


def _findings(nights: Sequence[Night], wanted: str) -> Iterator[str]:
    found: dict[str, list[tuple[int, Sighting]]] = {}
    for index, night in enumerate(nights):
        for cell in night.cells:
            for sighting in cell.sightings:
                text = f"{sighting.title} {sighting.rule} {sighting.identity}"
                if wanted in text:
                    found.setdefault(sighting.identity, []).append((index, sighting))
    if not found:
        yield "No finding." if not wanted else f"No finding with {printable(wanted, 60)!r} in it."
        return
    yield f"{'finding':{_TITLE}}  {'first':10} {'last':10}  nights, oldest first"
    # What was seen last stands first.
    order = sorted(found.values(), key=lambda seen: (-seen[-1][0], seen[0][0]))
    for seen in order[:MOST_FINDINGS]:
        first, last = (day(nights[seen[at][0]].started_s) for at in (0, -1))
        marks = "".join(mark(n, [s for i, s in seen if i == at]) for at, n in enumerate(nights))
        yield f"{printable(seen[-1][1].title, _TITLE):{_TITLE}}  {first} {last}  {marks}".rstrip()
    if len(order) > MOST_FINDINGS:
        yield f"and {len(order) - MOST_FINDINGS} more"
    yield _LEGEND


def mark(night: Night, seen: Sequence[Sighting]) -> str:
    """What a night has of one finding, as one letter of the legend."""
    if not seen:
        return "." if any(cell.looked for cell in night.cells) else " "
    if all(sighting.known for sighting in seen):
        return "k"
    if not any(sighting.counts for sighting in seen):
        return "r"
    return "~" if all(sighting.flaky for sighting in seen) else "x"

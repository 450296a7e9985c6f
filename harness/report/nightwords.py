# SPDX-License-Identifier: GPL-2.0-or-later
"""How a night and its cells look and are put in words, on the page of a night and on the index."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from harness.export.words import failed
from harness.history.records import Cell, CellKey, CellState, Comparison, Night
from harness.history.trend import ended
from harness.report.words import plural
from harness.verdict import Outcome

# Colours of style sheets, best first.
LOOKS = ("pass", "none", "known", "flaky", "empty", "error", "fail")
MARKS = {"x": "fail", "~": "flaky", "k": "known", "r": "report", ".": "pass", " ": "none"}
MARK_WORDS = {
    "fail": "seen",
    "flaky": "flaky",
    "known": "known",
    "report": "only reported",
    "pass": "looked for and not seen",
    "none": "not looked for",
}


def look(cell: Cell) -> str:
    """The colour of a cell, of LOOKS: known and flaky ones are told from what fails for sure."""
    if cell.state is not CellState.DONE or cell.outcome is Outcome.SKIP:
        return "none"
    if cell.outcome is Outcome.FAIL and not failed(cell):
        return "known"
    if cell.outcome is Outcome.FAIL and cell.sightings:
        counting = [sighting for sighting in cell.sightings if sighting.counts]
        return "flaky" if all(sighting.flaky for sighting in counting) else "fail"
    return cell.outcome.value.lower() if cell.outcome else "none"


def worst_look(cells: Iterable[Cell]) -> str:
    """The look of several cells in one."""
    return max(map(look, cells), key=LOOKS.index, default="none")


def word(cell: Cell) -> str:
    """What stands in the cell's box."""
    if cell.state is CellState.RUNNING:
        return "runs"
    return cell.outcome.value if cell.outcome else "not run"


def duration(seconds: float) -> str:
    """`41 s`, `4 min 41 s`, `30 min`, `1 h 04 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def short(seconds: float) -> str:
    """`41 s`, `5 min`, `1 h 04 min`."""
    return duration(seconds if not 60 <= seconds < 3600 else round(seconds / 60) * 60).replace(
        " 00 s", ""
    )


def tone(night: Night, change: Comparison) -> str:
    """The colour of a night: bad for what is new only, as the exit code."""
    if change.new:
        return "t-fail"
    if not night.cells or any(not c.looked for c in night.cells if c.state is CellState.DONE):
        return "t-error"
    return "t-pass" if any(cell.looked for cell in night.cells) else "t-empty"


def badge(night: Night, change: Comparison) -> str:
    """The answer in a word or two."""
    if change.new:
        return f"{len(change.new)} NEW"
    words = {"t-error": "NOT ALL JUDGED", "t-pass": "NOTHING NEW", "t-empty": "NOTHING JUDGED"}
    return words[tone(night, change)]


def headline(night: Night, change: Comparison) -> str:
    """One sentence."""
    counts = ended(night.cells)
    parts = (
        (len(change.fixed), "fixed"),
        (len(change.still), "still there"),
        (len(change.known), "known"),
        (len(change.unknown), "not looked for"),
    )
    found = [plural(len(change.new), "new finding")] if change.new else []
    found += [f"{count} {words}" for count, words in parts if count]
    ran = sum(counts.values())
    cells = f"{ran} of {plural(len(night.cells), 'cell')} ran"
    running = "" if night.ended_s else ", and the night goes on"
    return f"{', '.join(found) or 'No findings'}; {cells}{running}"


def guest_label(key: CellKey, keys: Sequence[CellKey]) -> str:
    """What tells a guest from the others of the night: always its vCPUs."""
    words = [plural(key.vcpus, "vCPU")]
    for name in ("config", "mode", "host"):
        if len({getattr(other, name) for other in keys}) > 1:
            words.append(str(getattr(key, name)))
    return ", ".join(words)


def href(run: str, folder: Path) -> str:
    """The report of a run, seen from a page in `folder`."""
    return quote(os.path.relpath(Path(run) / "report.html", folder))


def is_link(text: str) -> bool:
    """Whether a text from a file may be made a link of."""
    return text.startswith(("https://", "http://"))

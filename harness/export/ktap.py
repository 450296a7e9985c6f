# SPDX-License-Identifier: GPL-2.0-or-later
"""A night as KTAP version 1: a test per series and base, a subtest per cell."""

from collections.abc import Iterator

from harness.export.words import by_series, cell_name, failed, sighting_lines, why
from harness.history.records import Cell, CellState, Night
from harness.text import printable
from harness.verdict import Outcome


def ktap(night: Night) -> str:
    """The document; every line of it is printable."""
    series = by_series(night.cells)
    lines = ["KTAP version 1", f"1..{len(series)}"]
    for number, (name, cells) in enumerate(series.items(), 1):
        lines += [f"  {line}" for line in _series(cells)]
        word = "not ok" if any(_word(cell) == "not ok" for cell in cells) else "ok"
        lines.append(f"{word} {number} - {_plain(name)}")
    return "\n".join(lines) + "\n"


def _series(cells: list[Cell]) -> Iterator[str]:
    yield "KTAP version 1"
    yield f"1..{len(cells)}"
    for number, cell in enumerate(cells, 1):
        for sighting in cell.sightings:
            yield from (f"# {_plain(line)}" for line in sighting_lines(sighting))
        yield f"{_word(cell)} {number} - {_plain(cell_name(cell.key))}{_directive(cell)}"


def _word(cell: Cell) -> str:
    return "not ok" if failed(cell) or (not cell.looked and not _skipped(cell)) else "ok"


def _directive(cell: Cell) -> str:
    if _skipped(cell):
        return f" # SKIP {_plain(why(cell))}"
    if not cell.looked:
        return f" # ERROR {_plain(why(cell))}"
    if cell.outcome is Outcome.FAIL and not failed(cell):
        return " # XFAIL known issues only"
    return ""


def _skipped(cell: Cell) -> bool:
    return cell.state is not CellState.DONE or cell.outcome is Outcome.SKIP


def _plain(text: str) -> str:
    # A number sign begins a directive.
    return printable(text, 300).replace("#", "\\#")

# SPDX-License-Identifier: GPL-2.0-or-later
"""What all exports call the cells of a night."""

from collections.abc import Iterable

from harness.history.records import Cell, CellKey, CellState, Sighting
from harness.text import printable
from harness.verdict import Outcome

NAME_LENGTH = 200


def patch_word(key: CellKey) -> str:
    """`base`, or `patch 2 (its subject)`."""
    if not key.patch_number:
        return "base"
    return f"patch {key.patch_number} ({printable(key.patch, 100)})"


def guest_word(key: CellKey) -> str:
    """`lean, 2 vCPUs, stub on local`."""
    cpus = "1 vCPU" if key.vcpus == 1 else f"{key.vcpus} vCPUs"
    return printable(f"{key.config}, {cpus}, {key.mode} on {key.host}")


def cell_name(key: CellKey) -> str:
    """One line that names the cell within its series."""
    return f"{patch_word(key)}: {guest_word(key)}"


def series_name(key: CellKey) -> str:
    """The series and its base."""
    return printable(f"{key.series} on {key.base}", NAME_LENGTH)


def by_series(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Cells by series and base, each in the order of its patches."""
    found: dict[str, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.key):
        found.setdefault(series_name(cell.key), []).append(cell)
    return found


def why(cell: Cell) -> str:
    """Why the cell has no verdict about the kernel; "" when it has one."""
    if cell.state is not CellState.DONE:
        return f"not run: {cell.state.value}"
    if cell.looked:
        return ""
    outcome = cell.outcome.value if cell.outcome else ""
    return printable(f"{outcome}: {cell.reason}" if cell.reason else outcome)


def failed(cell: Cell) -> bool:
    """Whether the kernel is to blame for more than what is known of it."""
    return cell.outcome is Outcome.FAIL and (
        any(s.counts for s in cell.sightings) or not cell.sightings
    )


def sighting_lines(sighting: Sighting) -> list[str]:
    """A finding in a few lines of text."""
    lines = [f"{printable(sighting.title)} [{printable(sighting.identity, 32)}]"]
    if sighting.summary:
        lines.append(f"  {printable(sighting.summary, 300)}")
    if sighting.flaky:
        lines.append(f"  flaky: {sighting.seen} of {sighting.looked} fresh guests showed it")
    if sighting.known:
        lines.append(f"  known: {printable(sighting.known)}")
    if sighting.run:
        lines.append(f"  run: {printable(sighting.run)}")
    return lines

# SPDX-License-Identifier: GPL-2.0-or-later
"""A night as JUnit XML: a suite per series and base, a case per cell."""

from xml.etree import ElementTree

from harness.export.words import by_series, cell_name, failed, sighting_lines, why
from harness.history.records import Cell, CellState, Night
from harness.text import printable
from harness.verdict import Outcome


def junit(night: Night) -> bytes:
    """The document, in UTF-8; what XML cannot hold is escaped before."""
    root = ElementTree.Element("testsuites", name=printable(night.name))
    for name, cells in by_series(night.cells).items():
        cases = [_case(name, cell) for cell in cells]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(cases)),
            failures=str(_count(cases, "failure")),
            errors=str(_count(cases, "error")),
            skipped=str(_count(cases, "skipped")),
            time=f"{sum(_seconds(cell) for cell in cells):.3f}",
        )
        suite.extend(cases)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _case(suite: str, cell: Cell) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname=suite, name=cell_name(cell.key), time=f"{_seconds(cell):.3f}"
    )
    text = "\n".join(line for seen in cell.sightings for line in sighting_lines(seen))
    if failed(cell):
        titles = ", ".join(printable(s.title) for s in cell.sightings if s.counts)
        message = printable(titles or cell.reason or "the guest failed", 300)
        ElementTree.SubElement(case, "failure", message=message, type="finding").text = text
    elif cell.state is not CellState.DONE or cell.outcome is Outcome.SKIP:
        ElementTree.SubElement(case, "skipped", message=why(cell))
    elif not cell.looked:
        ElementTree.SubElement(case, "error", message=why(cell), type="harness").text = text
    elif text:
        ElementTree.SubElement(case, "system-out").text = text
    return case


def _seconds(cell: Cell) -> float:
    return max(0.0, cell.ended_s - cell.started_s)


def _count(cases: list[ElementTree.Element], tag: str) -> int:
    return sum(case.find(tag) is not None for case in cases)

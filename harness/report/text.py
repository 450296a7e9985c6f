# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict, the findings and the table of conversions for a terminal.

Guest text is printed as `Text` through `visible`, never as markup; rich leaves the colours out
where the output is no terminal.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.conversions import TO_SHARED, Conversion
from harness.report import words
from harness.report.fold import Row, fold
from harness.report.model import RunReport
from harness.report.visible import visible
from harness.verdict import Finding, Outcome, Severity, Verdict

WIDTH = 100
MOST_FINDINGS = 20
MOST_ROWS = 60
MOST_TRACE = 8
_STYLES = {
    Outcome.FAIL: "bold white on red",
    Outcome.ERROR: "bold black on yellow",
    Outcome.EMPTY: "bold white on magenta",
    Outcome.PASS: "bold white on green",
    Outcome.SKIP: "bold black on white",
}


def console(file: TextIO | None = None) -> Console:
    """A console on `file` (standard output): as wide as a terminal is, WIDTH where it is none."""
    output = file or sys.stdout
    return Console(
        file=output,
        width=None if output.isatty() else WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _text(text: str, style: str = "", limit: int = 400) -> Text:
    return Text(visible(text, limit), style=style)


def verdict_lines(verdict: Verdict) -> RenderableType:
    """The verdict in two or three lines."""
    lines = [
        Text.assemble(
            (f" {verdict.outcome.value} ", _STYLES[verdict.outcome]),
            " ",
            (visible(words.headline(verdict), 400), "bold"),
        )
    ]
    if verdict.counts:
        lines.append(
            _text(", ".join(f"{value} {name}" for name, value, _ in words.main_counts(verdict)))
        )
    lines.append(_text(f"evidence: {', '.join(verdict.evidence) or 'none'}", "dim"))
    if verdict.misbehaved:
        lines.append(_text(f"the VMM misbehaved: {', '.join(verdict.misbehaved)}"))
    return Group(*lines)


def _facts(finding: Finding) -> Iterator[tuple[str, str]]:
    where = []
    if finding.gpa is not None:
        where.append(f"page {finding.gpa:#x}")
    if finding.lines:
        where.append(f"lines {words.line_ranges(finding.lines)}")
    if finding.gva is not None:
        where.append(f"linear address {finding.gva:#x}")
    if finding.direction:
        where.append(finding.direction)
    if finding.vcpu is not None:
        where.append(f"vCPU {finding.vcpu}")
    if finding.evidence:
        where.append(finding.evidence)
    if finding.seq is not None:
        where.append(f"{words.place_name(finding)} {finding.seq}")
    yield "where", ", ".join(where)
    yield "at", str(finding.site or "")
    yield "history", "; ".join(map(str, finding.extra.get("page_history", ())))
    yield "stored by", str(finding.store_site or "")
    yield "converted by", str(finding.conversion_site or "")
    yield "trace", " <- ".join(str(site) for site in finding.trace[:MOST_TRACE])
    yield "look at", finding.look_at


def _finding(number: int, finding: Finding, said: set[str]) -> RenderableType:
    style = "bold red" if finding.severity is Severity.FAIL else "bold yellow"
    times = f" \u00d7{finding.count:,}" if finding.count > 1 else ""
    title = Text.assemble(
        (f"{number:2}. ", "dim"),
        (visible(finding.rule, 60), style),
        f" ({words.kind(finding)}){times}",
    )
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _facts(finding):
        # Findings of one origin share trace and advice: both are told once.
        if value and value not in said:
            table.add_row(label, _text(value, limit=800))
        if label in ("trace", "look at"):
            said.add(value)
    return Group(title, Padding(_text(finding.summary), (0, 0, 0, 4)), Padding(table, (0, 0, 0, 4)))


def findings_list(findings: Sequence[Finding], *, every: bool = False) -> RenderableType:
    """The findings, the first MOST_FINDINGS of them unless `every` one is asked for.

    Planted ones are then only counted.
    """
    planted = tuple(f for f in findings if not every and words.kind(f) == "planted")
    told = [f for f in findings if f not in planted]
    shown = told if every else told[:MOST_FINDINGS]
    said: set[str] = set()
    parts = [_finding(number, finding, said) for number, finding in enumerate(shown, 1)]
    if len(shown) < len(told):
        parts.append(_text(f"{len(told) - len(shown):,} more: --all shows them", "dim"))
    if planted:
        parts.append(_text(f"planted by the workload and caught: {words.rules_of(planted)}"))
    return Group(*parts)


def _cells(row: Row, folded: bool) -> Iterator[Text]:
    out = row.first.direction == TO_SHARED
    times = f"{row.count:,} \u00d7 " if row.count > 1 else ""
    yield _text(row.first.step, limit=60)
    if not folded:
        yield Text(str(row.first.seq))
    yield Text("shared" if out else "private", style="blue" if out else "yellow")
    yield Text(times + words.size(row.first.bytes))
    yield Text(words.address(row.gpa_low))
    yield Text(words.number(row.flushed))
    yield Text(
        words.number(row.dirty) if out else "-", style="bold red" if out and row.dirty else ""
    )
    yield Text(words.number(row.redundant), style="yellow" if row.redundant else "")
    # Offset, size and module are left to the HTML report.
    more = f" +{row.callers - 1}" if row.callers > 1 else ""
    yield _text(row.first.caller.partition("+0x")[0] + more, limit=72)


def conversions_table(conversions: Iterable[Conversion], *, every: bool = False) -> RenderableType:
    """Conversions with alike ones of a step in one row; with `every`, a row each."""
    rows = fold(conversions, alike=not every)
    shown = rows if every else rows[:MOST_ROWS]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("step", max_width=22, overflow="ellipsis", no_wrap=True)
    if every:
        table.add_column("event", justify="right", no_wrap=True)
    table.add_column("to", no_wrap=True)
    for name in ("size", "from", "flushed", "dirty", "redundant"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("caller", overflow="fold")
    for row in shown:
        table.add_row(*_cells(row, not every))
    if len(shown) == len(rows):
        return table
    return Group(table, _text(f"{len(rows) - len(shown):,} more rows: --all shows them", "dim"))


def print_report(report: RunReport, to: Console, *, every: bool = False) -> None:
    """Print verdict, notes, findings and conversions; the HTML report's path last, if it exists."""
    to.print(verdict_lines(report.verdict))
    for note in report.notes:
        to.print(_text(note, "yellow"))
    if report.verdict.findings:
        to.print()
        to.print(findings_list(report.verdict.findings, every=every))
    if report.conversions:
        to.print()
        to.print(conversions_table(report.conversions, every=every))
        to.print(_text("flushed, dirty, redundant: 64-byte lines, over all of a row", "dim"))
    path = report.path / "report.html"
    if path.is_file():
        to.print()
        # A path is for pasting: it is never broken over lines.
        to.print(_text(f"report: {path}", limit=4096), soft_wrap=True)

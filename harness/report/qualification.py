# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a qualification: each requirement, what was seen of it, and the last time.

One file without scripts; all that it prints passes the gates of harness.report.html.
"""

from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from harness.history.trend import day
from harness.qualify.result import Qualification, Result, change, ratios
from harness.report import html
from harness.report.nightwords import duration
from harness.verdict import Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """A requirement and how it went."""

    result: Result
    tone: str
    time: str
    change: str
    figures: tuple[str, ...]


def headline(now: Qualification, before: Qualification | None) -> str:
    """One sentence."""
    good = sum(one.outcome is Outcome.PASS for one in now.results)
    left_out = sum(one.outcome is Outcome.SKIP for one in now.results)
    said = f"{good} of {len(now.results) - left_out} requirements met"
    said += f", {left_out} left out" if left_out else ""
    said += "" if now.ended_s else ", and it goes on"
    if before is None:
        return said
    moved = [change(one, before.result(one.id)) for one in now.results]
    worse, better = moved.count("worse"), moved.count("better")
    return f"{said}; against number {before.number}: {worse} worse, {better} better"


def rows(now: Qualification, before: Qualification | None) -> list[Row]:
    """All results, in the order in which they came."""
    pairs = ((one, before.result(one.id) if before else None) for one in now.results)
    return [
        Row(
            result=one,
            tone=f"t-{one.outcome.lower()}",
            time=duration(one.seconds),
            change=change(one, last),
            figures=_figures(one, last),
        )
        for one, last in pairs
    ]


def _figures(now: Result, last: Result | None) -> tuple[str, ...]:
    moved = ratios(now, last) if last else {}
    return tuple(
        f"{name.removesuffix('_s').replace('_', ' ')}: {value:,g}"
        + (" s" if name.endswith("_s") else "")
        + (f" ({moved[name]:.2f} of the last time)" if name in moved else "")
        for name, value in now.figures.items()
    )


def render(now: Qualification, before: Qualification | None) -> str:
    """The page as HTML text."""
    return html.template("qualification.html.j2").render(
        now=now,
        before=before,
        badge=now.outcome.value if now.ended_s else "...",
        tone=f"t-{now.outcome.lower()}",
        headline=headline(now, before),
        day=day(now.started_s),
        before_day=day(before.started_s) if before else "",
        rows=rows(now, before),
        took=duration(sum(one.seconds for one in now.results)),
        css=html.styles("night"),
    )


def table(now: Qualification, before: Qualification | None) -> Table:
    """The same in the terminal, within 100 columns."""
    shown = Table(box=None, pad_edge=False, width=100)
    for name in ("", "requirement", "evidence", "time", "last time"):
        shown.add_column(name)
    for row in rows(now, before):
        one = row.result
        evidence = "\n".join(one.evidence[:3])
        new = "" if one.outcome is Outcome.SKIP else "new"
        shown.add_row(
            one.outcome.value, one.requirement, Text(evidence), row.time, row.change or new
        )
    return shown

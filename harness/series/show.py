# SPDX-License-Identifier: GPL-2.0-or-later
"""A review in a terminal, and as JSON."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.series.bisect import Ending, Found
from harness.series.patch import Series
from harness.series.review import News, Review
from harness.series.trial import Result
from harness.text import printable
from harness.verdict import Severity

_MOST_WARNINGS = 5


def render(series: Series, review: Review, place: Path) -> Group:
    """One row a kernel, then what is new and who brings it; `place` holds the runs."""
    parts: list[RenderableType] = [Text(headline(series, review), style="bold")]
    parts += [Text(f"note: {note}") for note in (*series.notes, *review.notes)]
    parts.append(_kernels(series, review))
    for number, one in enumerate(review.news, 1):
        parts.append(Text(f"{number}. {_sentence(series, review, one)}"))
        parts.append(Padding(Text(one.bug.finding.summary), (0, 0, 0, 3)))
    for patch, bug, issue in review.known:
        where = f"patch {patch}: {bug.title}"
        parts.append(Text(f"known until {issue.expires}, {where}: {printable(issue.link)}"))
    return Group(*parts, Text(f"runs: {place}"))


def headline(series: Series, review: Review) -> str:
    """The answer in one line."""
    what = f"{series.name}: " if series.name else ""
    if review.broken:
        first = min(one.number for one in review.broken)
        subject = series.patches[first - 1].subject
        count = len({one.bug.identity for one in review.broken})
        return f"{what}{count} new, the first with patch {first}, {printable(subject, 200)}"
    if review.unjudged:
        return f"{what}{len(review.unjudged)} of {len(review.results)} kernels were not judged"
    return f"{what}nothing new in {len(review.results)} kernels"


def _kernels(series: Series, review: Review) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("patch", "subject", "verdict", "new", "fixed", "warnings", ""):
        right = name in ("patch", "new", "fixed", "warnings")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for result in review.results:
        table.add_row(*map(Text, _row(series, review, result)))
    return table


def _row(series: Series, review: Review, result: Result) -> Iterable[str]:
    number = result.number
    comparison = review.comparisons.get(number)
    news = [n for n in review.news if n.number == number and n.bug.severity is Severity.FAIL]
    verdict = result.verdict.outcome.value if result.verdict else "no build"
    fixed = [b for b in comparison.fixed if b.severity is Severity.FAIL] if comparison else []
    return (
        str(number) if number else "base",
        printable(series.patches[number - 1].subject, 120) if number else "",
        verdict,
        str(len(news) or "") if number else "",
        str(len(fixed) or ""),
        str(len(result.new_warnings) or ""),
        "" if result.run else printable(result.error.message if result.error else "", 200),
    )


def _sentence(series: Series, review: Review, one: News) -> str:
    words = f"{one.bug.title} ({one.bug.severity.value}, {one.standing.value})"
    if found := review.searches.get(one.bug.identity):
        return f"{words}: {_who(series, found)}"
    return f"{words}: patch {one.number}, {series.patches[one.number - 1].subject}"


def _who(series: Series, found: Found) -> str:
    names = [f"patch {n}, {series.patches[n - 1].subject}" for n in found.suspects]
    if found.ending is Ending.FOUND:
        return f"{names[0]} brings it"
    if found.ending is Ending.AMONG:
        return f"one of {'; '.join(names)}: {found.reason}"
    return found.reason


def to_json(series: Series, review: Review) -> dict[str, Any]:
    """All of it in plain JSON types."""
    return {
        "series": series.name,
        "version": series.version,
        "notes": list(series.notes),
        "kernels": [_kernel(series, result) for result in review.results],
        "new": [
            {"patch": n.number, "standing": n.standing.value, **n.bug.to_json()}
            for n in review.news
        ],
        "known": [
            {
                "patch": patch,
                "link": issue.link,
                "expires": issue.expires.isoformat(),
                **bug.to_json(),
            }
            for patch, bug, issue in review.known
        ],
        "searches": {
            identity: {
                "ending": found.ending.value,
                "suspects": list(found.suspects),
                "reason": found.reason,
                "probes": [[n, answer.name.lower()] for n, answer in found.probes],
            }
            for identity, found in review.searches.items()
        },
    }


def _kernel(series: Series, result: Result) -> dict[str, Any]:
    number = result.number
    return {
        "patch": number,
        "subject": series.patches[number - 1].subject if number else None,
        "outcome": result.verdict.outcome.value if result.verdict else None,
        "run": str(result.run) if result.run else None,
        "new_warnings": list(result.new_warnings),
        "error": str(result.error) if result.error else None,
    }

# SPDX-License-Identifier: GPL-2.0-or-later
"""A night as a mail that a maintainer would read: what is new first; at most 40 lines of 72."""

import textwrap
from collections.abc import Iterator, Sequence

from harness.export.words import series_name, why
from harness.history.records import Cell, CellState, Change, Comparison, Night, by_patch, compare
from harness.history.trend import day, ended
from harness.text import printable

LINES = 40
WIDTH = 72
# The tail says what ran; the findings share the rest.
_TAIL_LINES = 9
# Of a section: its heading, how many it holds, an empty line.
_LEAST = 3


def subject(night: Night, before: Night | None = None) -> str:
    """The mail's subject: one line."""
    change = compare(night, before)
    words = [f"{len(part)} {word}" for part, word in _parts(change) if part]
    state = ", ".join(words) or "no findings"
    return printable(f"[tdharness] {night.name} {day(night.started_s)}: {state}", WIDTH)


def mail(night: Night, before: Night | None = None) -> str:
    """The mail's text, for the night against an earlier one of the same matrix."""
    change = compare(night, before)
    tail = list(_tail(night))
    body = list(_head(night, before))
    parts = [(part, word) for part, word in _parts(change) if part]
    named = len({cell.key.series for cell in night.cells}) > 1
    for index, (part, word) in enumerate(parts, 1):
        # The sections behind it shall at least say how many they hold.
        left = LINES - len(tail) - len(body) - _LEAST * (len(parts) - index)
        body += _section(part, _TITLES[word], full=word == "new", most=left, named=named)
    return "\n".join(line.rstrip() for line in (*body, *tail)) + "\n"


_TITLES = {
    "new": "New",
    "still there": "Still there",
    "fixed": "Fixed",
    "not looked for": "Seen before, but no cell looked for it this time",
    "known": "Known issues, not counted",
}


def _parts(change: Comparison) -> tuple[tuple[tuple[Change, ...], str], ...]:
    """The sections in the order of the mail."""
    return (
        (change.new, "new"),
        (change.fixed, "fixed"),
        (change.still, "still there"),
        (change.unknown, "not looked for"),
        (change.known, "known"),
    )


def _head(night: Night, before: Night | None) -> Iterator[str]:
    names = list(dict.fromkeys(series_name(cell.key) for cell in night.cells))
    for name in names[:2]:
        yield printable(name, WIDTH)
    if len(names) > 2:
        yield f"and {len(names) - 2} more series or bases"
    against = f", against {day(before.started_s)}" if before else ""
    yield f"{day(night.started_s)}{against}"
    yield ""


def _section(
    changes: Sequence[Change], title: str, *, full: bool, most: int, named: bool
) -> list[str]:
    """A heading and the first finding of as many patches as fit, the rest as a number.

    `most` is _LEAST or more.
    """
    lines = [f"{title}:"]
    shown = 0
    for alike in by_patch(changes):
        entry = list(_entry(alike[0], full=full, named=named))
        if len(alike) > 1:
            entry.append(f"    and {len(alike) - 1} more of the same patch")
        # One line for the heading of what is left out, one behind the section.
        if len(lines) + len(entry) > most - 2:
            lines.append(f"  and {len(changes) - shown} more")
            break
        lines += entry
        shown += len(alike)
    return [*lines, ""]


def _entry(change: Change, *, full: bool, named: bool) -> Iterator[str]:
    sighting = change.sighting
    flaky = " (flaky)" if change.flaky else ""
    yield f"  {printable(sighting.title, WIDTH - 2 - len(flaky))}{flaky}"
    where = "on the base itself"
    if change.patch_number:
        series = f" of {printable(change.series, 24)}" if named else ""
        where = f'since patch {change.patch_number}{series}, "{printable(change.patch, 44)}"'
    yield printable(f"    {where}", WIDTH)
    if sighting.known:
        until = f" until {sighting.known_until}" if sighting.known_until else ""
        yield printable(f"    {sighting.known}{until}", WIDTH)
    if not full:
        return
    yield from textwrap.wrap(
        printable(sighting.summary, 300),
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        max_lines=3,
        placeholder=" ...",
    )
    yield f"    {printable(sighting.rule, 30)}, in {change.seen_in} of {change.looked_in} cells"
    if sighting.run:
        yield printable(f"    {sighting.run}", WIDTH)


def _tail(night: Night) -> Iterator[str]:
    counts = ended(night.cells)
    ran = [cell for cell in night.cells if cell.state is CellState.DONE]
    yield (
        f"Ran: {len(ran)} of {len(night.cells)} cells; {counts['PASS']} passed,"
        f" {counts['FAIL']} failed, {counts['else']} could not be judged"
    )
    missing: dict[str, list[Cell]] = {}
    for cell in night.cells:
        if why(cell):
            missing.setdefault(why(cell), []).append(cell)
    for reason, cells in list(missing.items())[: _TAIL_LINES - 2]:
        yield printable(f"  {len(cells)} {'cell' if len(cells) == 1 else 'cells'}: {reason}", WIDTH)
    if len(missing) > _TAIL_LINES - 2:
        yield f"  and {len(missing) - _TAIL_LINES + 2} more reasons"

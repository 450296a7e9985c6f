# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs as numbered lines, bounded, with the lines that a reader should see first."""

import re
from collections.abc import Set
from dataclasses import dataclass

from harness.report.model import Log
from harness.report.visible import visible_lines

HEAD_LINES = 1500
TAIL_LINES = 2500
LINE_CHARACTERS = 600
MOST_HOT = 40

# For the eye only: what counts against the kernel is harness.kernellog's to say.
_HOT = re.compile(
    r"\b(WARNING:|BUG:|Oops:|Kernel panic|Call Trace:|RIP: |general protection fault|"
    r"\[Hardware Error\]|blocked for more than|rcu_\w+ detected stalls|page fault for address)"
)
_MARK = re.compile(r"\btdharness: ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A numbered line; `look` is "hot", "mark" or empty."""

    number: int
    text: str
    look: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogView:
    """A log ready to print; `gap` says what was left out before line `gap_before`."""

    name: str
    lines: tuple[Line, ...]
    gap: str
    gap_before: int
    hot: tuple[Line, ...]
    more_hot: int


def _look(number: int, text: str, hot: Set[int]) -> str:
    if number in hot or _HOT.search(text):
        return "hot"
    return "mark" if _MARK.search(text) else ""


def view(log: Log, hot: Set[int] = frozenset()) -> LogView:
    """Number, bound and colour a log; `hot` are line numbers that findings point to."""
    head = visible_lines(log.head, LINE_CHARACTERS)
    tail = visible_lines(log.tail, LINE_CHARACTERS)
    numbered = list(enumerate(head, 1)) + list(enumerate(tail, len(head) + log.cut_lines + 1))
    first_of_tail = numbered[len(head)][0] if log.cut and tail else 0
    if len(numbered) > HEAD_LINES + TAIL_LINES:
        numbered = numbered[:HEAD_LINES] + numbered[-TAIL_LINES:]
        first_of_tail = numbered[HEAD_LINES][0]
    lines = tuple(Line(number=n, text=text, look=_look(n, text, hot)) for n, text in numbered)
    shown = tuple(line for line in lines if line.look == "hot")
    last_number = len(head) + log.cut_lines + len(tail)
    return LogView(
        name=log.name,
        lines=lines,
        gap=f"{last_number - len(lines):,} lines left out here" if first_of_tail else "",
        gap_before=first_of_tail,
        hot=shown[:MOST_HOT],
        more_hot=max(0, len(shown) - MOST_HOT),
    )

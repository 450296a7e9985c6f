# SPDX-License-Identifier: GPL-2.0-or-later
"""Geometry of the timeline: conversions in the order of the event stream, left to right.

The stream carries no clock, and a conversion of 64 MiB would fill any axis of event numbers; so
every conversion gets the same width, or as many as are folded into one column.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from harness.conversions import TO_SHARED, Conversion
from harness.events import PAGE_BYTES
from harness.report import words
from harness.report.model import MOST_FINDINGS, RunReport

WIDTH = 1000.0
MOST_COLUMNS = 240
WIDEST_COLUMN = 24.0
# Height of half the chart, reached by a conversion of 128 MiB.
HALF = 104.0
_TOP_LEVEL = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One or more conversions: the largest of each direction gives the heights."""

    x: float
    width: float
    up: float
    down: float
    dirty: int
    label: str
    step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A stretch of columns of one step."""

    x: float
    width: float
    number: int
    step: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A finding, at the place of its event; `index` is its number in the list of findings."""

    x: float
    index: int
    kind: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The whole chart."""

    columns: tuple[Column, ...]
    bands: tuple[Band, ...]
    flags: tuple[Flag, ...]
    # (height above and below the middle, label)
    ticks: tuple[tuple[float, str], ...]
    per_column: int


def height(size: int) -> float:
    """Height of a conversion of `size` bytes: the logarithm, so that 4 KiB is still seen."""
    if size <= 0:
        return 0.0
    level = math.log2(max(size, PAGE_BYTES) / PAGE_BYTES) + 1
    return HALF * min(level, _TOP_LEVEL) / _TOP_LEVEL


def _column(group: Sequence[Conversion], x: float, width: float) -> Column:
    up = max((c.bytes for c in group if c.direction == TO_SHARED), default=0)
    down = max((c.bytes for c in group if c.direction != TO_SHARED), default=0)
    first = group[0]
    label = f"event {first.seq}: {words.size(first.bytes)} at {first.gpa:#x} {first.direction}"
    if len(group) > 1:
        label = f"{len(group)} conversions from {label}"
    dirty = sum(c.dirty for c in group if c.direction == TO_SHARED)
    return Column(
        x=x,
        width=width,
        up=height(up),
        down=height(down),
        dirty=dirty,
        label=f"{label}; {dirty:,} lines left dirty" if dirty else label,
        step=first.step,
    )


def _bands(columns: Sequence[Column], sizes: Sequence[int]) -> tuple[Band, ...]:
    bands: list[Band] = []
    for column, count in zip(columns, sizes, strict=True):
        last = bands[-1] if bands else None
        if last and last.step == column.step:
            bands[-1] = Band(
                x=last.x,
                width=column.x + column.width - last.x,
                number=last.number,
                step=last.step,
                count=last.count + count,
            )
        else:
            number = len(bands) + 1
            bands.append(
                Band(x=column.x, width=column.width, number=number, step=column.step, count=count)
            )
    return tuple(bands)


def _flags(report: RunReport, firsts: Sequence[int], width: float) -> tuple[Flag, ...]:
    flags = []
    for index, finding in enumerate(report.verdict.findings[:MOST_FINDINGS], 1):
        # The number of a kernel log finding is a line of the log, no event.
        if finding.seq is None or finding.rule == "kernel-log":
            continue
        column = max(0, bisect_left(firsts, finding.seq + 1) - 1)
        flags.append(
            Flag(
                x=(column + 0.5) * width,
                index=index,
                kind=words.kind(finding),
                label=f"finding {index}: {finding.rule}, event {finding.seq}",
            )
        )
    return tuple(flags)


def timeline(report: RunReport) -> Timeline | None:
    """The chart of a run; None when nothing was converted."""
    conversions = report.conversions
    if not conversions:
        return None
    per_column = math.ceil(len(conversions) / MOST_COLUMNS)
    groups = [conversions[i : i + per_column] for i in range(0, len(conversions), per_column)]
    width = min(WIDEST_COLUMN, WIDTH / len(groups))
    columns = tuple(_column(group, i * width, width) for i, group in enumerate(groups))
    return Timeline(
        columns=columns,
        bands=_bands(columns, [len(group) for group in groups]),
        flags=_flags(report, [group[0].seq for group in groups], width),
        ticks=tuple((height(size), words.size(size)) for size in (1 << 16, 1 << 21, 1 << 26)),
        per_column=per_column,
    )

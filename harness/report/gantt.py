# SPDX-License-Identifier: GPL-2.0-or-later
"""Geometry of a night's times: builds and guests as bars from left to right, a lane for each."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.export.words import patch_word
from harness.history.records import Cell
from harness.report import nightwords as words
from harness.report.words import plural

WIDTH = 1000.0
LANE = 22.0
_STEPS_S = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_MOST_TICKS = 10
_MOST_GAP_S = 600.0
MOST_BARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One build or one cell's guests."""

    x: float
    width: float
    lane: int
    # "build", or the look of the cell
    look: str
    label: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gantt:
    """The whole chart; ticks are (x, label)."""

    bars: tuple[Bar, ...]
    lanes: int
    ticks: tuple[tuple[float, str], ...]

    @property
    def height(self) -> float:
        """Of all lanes."""
        return self.lanes * LANE


def gantt(cells: Iterable[Cell], folder: Path) -> Gantt | None:
    """The chart of a night; None when nothing ran. Times in which nothing ran are left out."""
    ran = {cell.run: cell for cell in cells if cell.run and cell.started_s}
    if not ran:
        return None
    order = sorted(ran.values(), key=lambda cell: cell.started_s)[:MOST_BARS]
    clock = _Clock(order)
    scale = WIDTH / max(clock.total_s, 1.0)
    ends: list[float] = []
    bars = []
    for cell in order:
        begin_s = cell.started_s - cell.build_s
        lane = next((n for n, end_s in enumerate(ends) if end_s <= begin_s + 0.5), len(ends))
        ends[lane : lane + 1] = [cell.ended_s]
        at, start, end = (clock.at(s) * scale for s in (begin_s, cell.started_s, cell.ended_s))
        what = f"{cell.key.series}, {patch_word(cell.key)}, {plural(cell.key.vcpus, 'vCPU')}"
        if cell.build_s:
            label = f"build of {what}: {words.duration(cell.build_s)}"
            bars.append(Bar(x=at, width=start - at, lane=lane, look="build", label=label, href=""))
        again = ", with a second guest" if cell.again else ""
        bars.append(
            Bar(
                x=start,
                width=max(end - start, 1.0),
                lane=lane,
                look=words.look(cell),
                label=f"{what}: {words.word(cell)}, {words.duration(cell.seconds)}{again}",
                href=words.href(cell.run, folder),
            )
        )
    return Gantt(bars=tuple(bars), lanes=len(ends), ticks=_ticks(clock.total_s, scale))


class _Clock:
    """Time since the night began, without the gaps between a kill and the next start."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._busy: list[tuple[float, float, float]] = []
        total = 0.0
        for begin, end in sorted((c.started_s - c.build_s, c.ended_s) for c in cells):
            if self._busy and begin <= self._busy[-1][1] + _MOST_GAP_S:
                last = self._busy[-1]
                total += max(0.0, end - last[1])
                self._busy[-1] = (last[0], max(end, last[1]), last[2])
            else:
                self._busy.append((begin, end, total))
                total += end - begin
        self.total_s = total

    def at(self, moment_s: float) -> float:
        """Seconds of work before a moment of the clock on the wall."""
        for begin, end, before in reversed(self._busy):
            if moment_s >= begin:
                return before + min(moment_s, end) - begin
        return 0.0


def _ticks(total_s: float, scale: float) -> tuple[tuple[float, str], ...]:
    step = next((s for s in _STEPS_S if total_s / s <= _MOST_TICKS), _STEPS_S[-1])
    count = math.floor(total_s / step)
    return tuple((n * step * scale, _clock_word(n * step)) for n in range(count + 1))


def _clock_word(seconds: int) -> str:
    if seconds >= 3600:
        return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"
    return f"{seconds // 60}:{seconds % 60:02}"

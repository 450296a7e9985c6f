# SPDX-License-Identifier: GPL-2.0-or-later
"""The index over nights: how each went, every cell and every finding over time, times."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from harness.history.records import Cell, CellKey, Night, Sighting, busy_s, compare, merged
from harness.history.trend import day, ended, mark
from harness.report import html
from harness.report import nightwords as words

MOST_FINDINGS = 200
MOST_ROWS = 400
WIDTH = 1000.0
HEIGHT = 120.0
WIDEST = 56.0
# What a column of a chart is made of, from the bottom up: look, amount, words.
Measure = Callable[[Night], list[tuple[str, float, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A night in the table, newest first."""

    number: int
    began: str
    href: str
    tone: str
    badge: str
    cells: str
    passed: int
    failed: int
    unjudged: int
    new: int
    fixed: int
    still: int
    known: int
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a column of a chart, from the bottom up: its look, where it is, its words."""

    look: str
    x: float
    width: float
    y: float
    height: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A row of squares, a night each, the oldest first: (look, words)."""

    group: str
    label: str
    soft: str
    squares: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """All nights of one name."""

    name: str
    lines: tuple[Line, ...]
    days: tuple[str, ...]
    # below the columns of the charts: where, and the date
    dates: tuple[tuple[float, str], ...]
    cells: tuple[Part, ...]
    times: tuple[Part, ...]
    longest: str
    kernels: tuple[Heat, ...]
    more_kernels: int
    findings: tuple[Heat, ...]
    more_findings: int


def render(nights: Sequence[Night]) -> str:
    """The page as HTML text; the newest night comes first."""
    names = list(dict.fromkeys(night.name for night in nights))
    matrices = [_matrix(name, [n for n in nights if n.name == name]) for name in names]
    return html.template("nights.html.j2").render(
        matrices=matrices,
        tone=matrices[0].lines[0].tone if matrices else "t-empty",
        mark_words=words.MARK_WORDS,
        width=WIDTH,
        height=HEIGHT,
        css=html.styles("night"),
    )


def _matrix(name: str, nights: Sequence[Night]) -> Matrix:
    oldest_first = list(reversed(nights))
    kernels = _kernels(oldest_first)
    findings = _findings(oldest_first)
    times = [busy_s(night.cells) for night in oldest_first]
    return Matrix(
        name=name,
        lines=tuple(_line(night, nights[at + 1 :]) for at, night in enumerate(nights)),
        days=tuple(day(night.started_s)[5:] for night in oldest_first),
        dates=tuple(
            ((at + 0.5) * _column_width(nights), day(night.started_s)[5:])
            for at, night in enumerate(oldest_first)
        ),
        cells=tuple(_columns(oldest_first, _by_look)),
        times=tuple(_columns(oldest_first, _by_time)),
        longest=words.duration(max(times, default=0.0)),
        kernels=tuple(kernels[:MOST_ROWS]),
        more_kernels=max(0, len(kernels) - MOST_ROWS),
        findings=tuple(findings[:MOST_FINDINGS]),
        more_findings=max(0, len(findings) - MOST_FINDINGS),
    )


def _line(night: Night, earlier: Sequence[Night]) -> Line:
    change = compare(night, merged(earlier))
    counts = ended(night.cells)
    return Line(
        number=night.number,
        began=day(night.started_s),
        href=f"{night.number:04}/index.html",
        tone=words.tone(night, change),
        badge=words.badge(night, change),
        cells=f"{sum(counts.values())} of {len(night.cells)}",
        passed=counts["PASS"],
        failed=counts["FAIL"],
        unjudged=counts["else"],
        new=len(change.new),
        fixed=len(change.fixed),
        still=len(change.still),
        known=len(change.known),
        time=words.duration(busy_s(night.cells)),
    )


def _by_look(night: Night) -> list[tuple[str, float, str]]:
    found = [words.look(cell) for cell in night.cells]
    counts = {name: found.count(name) for name in words.LOOKS}
    return [(name, count, f"{count} {name}") for name, count in counts.items() if count]


def _by_time(night: Night) -> list[tuple[str, float, str]]:
    """Guests of this night below, builds above; what ran side by side counts in full."""
    ran = {cell.run: cell for cell in night.cells if cell.run}.values()
    guests_s, builds_s = sum(c.seconds for c in ran), sum(c.build_s for c in ran)
    return [
        ("known", guests_s, f"{words.duration(guests_s)} in guests"),
        ("build", builds_s, f"{words.duration(builds_s)} of builds"),
    ]


def _columns(nights: Sequence[Night], measure: Measure) -> Iterable[Part]:
    measured = [measure(night) for night in nights]
    most = max((sum(value for _, value, _ in parts) for parts in measured), default=0.0) or 1.0
    width = _column_width(nights)
    for at, (night, parts) in enumerate(zip(nights, measured, strict=True)):
        y = HEIGHT
        for look, value, label in parts:
            height = HEIGHT * value / most
            y -= height
            yield Part(
                look=look,
                x=at * width + width * 0.1,
                width=width * 0.8,
                y=y,
                height=height,
                label=f"{day(night.started_s)}: {label}",
            )


def _column_width(nights: Sequence[Night]) -> float:
    return min(WIDEST, WIDTH / max(1, len(nights)))


def _kernels(nights: Sequence[Night]) -> list[Heat]:
    """A row for each kernel of the newest night, in its order: all its guests in one square."""
    rows: dict[tuple[str, str, int, str], None] = {}
    for cell in sorted(nights[-1].cells, key=lambda cell: cell.key):
        rows.setdefault(_kernel(cell.key))
    by_night = []
    for night in nights:
        cells: dict[tuple[str, str, int, str], list[Cell]] = {}
        for cell in night.cells:
            cells.setdefault(_kernel(cell.key), []).append(cell)
        by_night.append(cells)
    return [
        Heat(
            group=f"{series} on {base}" if number else base,
            label=f"{number} {patch}" if number else "base",
            soft="",
            squares=tuple(
                _square(night, cells.get((base, series, number, patch), ()))
                for night, cells in zip(nights, by_night, strict=True)
            ),
        )
        for base, series, number, patch in rows
    ]


def _kernel(key: CellKey) -> tuple[str, str, int, str]:
    # The base is one kernel, however many series stand on it.
    if not key.patch_number:
        return (key.base, "", 0, "")
    return (key.base, key.series, key.patch_number, key.patch)


def _square(night: Night, cells: Sequence[Cell]) -> tuple[str, str]:
    look = words.worst_look(cells)
    return look, f"{day(night.started_s)}: {look if cells else 'not there'}"


def _findings(nights: Sequence[Night]) -> list[Heat]:
    """A row for each finding, what was seen last first."""
    found: dict[tuple[str, str, str], dict[int, list[Sighting]]] = {}
    for at, night in enumerate(nights):
        for cell in night.cells:
            for sighting in cell.sightings:
                where = (cell.key.base, cell.key.series, sighting.identity)
                found.setdefault(where, {}).setdefault(at, []).append(sighting)
    order = sorted(found.items(), key=lambda row: (-max(row[1]), min(row[1]), row[0]))
    return [
        Heat(
            group=f"{series} on {base}",
            label=seen[max(seen)][-1].title,
            soft=f"{day(nights[min(seen)].started_s)} to {day(nights[max(seen)].started_s)}",
            squares=tuple(
                _mark(night, base, series, seen.get(at, ())) for at, night in enumerate(nights)
            ),
        )
        for (base, series, _), seen in order
    ]


def _mark(night: Night, base: str, series: str, seen: Sequence[Sighting]) -> tuple[str, str]:
    looked = any(c.looked for c in night.cells if (c.key.base, c.key.series) == (base, series))
    look = words.MARKS[mark(night, seen)] if seen or looked else "none"
    return look, f"{day(night.started_s)}: {words.MARK_WORDS[look]}"

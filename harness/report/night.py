# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of one night: what is new, the matrix of cells, findings, patches, times.

One file without scripts; all that it prints passes the gates of harness.report.html.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.export.words import guest_word, why
from harness.history.records import (
    Cell,
    CellKey,
    Change,
    Comparison,
    Night,
    Sighting,
    busy_s,
    by_patch,
    changes_of,
    compare,
    merged,
)
from harness.history.trend import day, ended, mark
from harness.report import gantt, html
from harness.report import nightwords as words
from harness.report.words import plural
from harness.verdict import Severity

PAST = 10
MOST_PLACES = 12
MOST_CARDS = 200
_SECTIONS = (
    ("new", "New"),
    ("fixed", "Fixed"),
    ("still", "Still there"),
    ("unknown", "Seen before, and no cell looked for it this time"),
    ("known", "Known issues, which do not count"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A cell of the matrix; `past` are the looks of earlier nights, the oldest first."""

    look: str
    word: str
    findings: int
    href: str
    label: str
    time: str
    past: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A kernel: the base, or one patch of a series."""

    series: str
    number: int
    subject: str
    # the only patch of its series
    alone: bool
    boxes: tuple[Box | None, ...]
    # what is first seen with this patch
    brings: tuple[Sighting, ...]
    look: str
    passed: str
    warnings: tuple[str, ...]
    build: str
    run: str
    patchset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A base and all that was tried on it."""

    base: str
    commit: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cell in which a finding was seen."""

    label: str
    href: str
    seen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A finding; `marks` are looks over the nights, the oldest first, tonight last."""

    change: Change
    places: tuple[Place, ...]
    more_places: int
    marks: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """The findings that one patch brings; `patch` is "" for the base itself."""

    patch: str
    where: str
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Findings that stand in the same relation to the nights before."""

    kind: str
    title: str
    count: int
    patches: tuple[Brought, ...]
    more: int


def render(
    night: Night,
    earlier: Sequence[Night],
    notes: Sequence[str],
    folder: Path,
    exports: Sequence[str],
) -> str:
    """The page as HTML text; `earlier` nights are newest first, `exports` files beside the page."""
    change = compare(night, merged(earlier))
    columns = list(dict.fromkeys(cell.key.guest for cell in night.cells))
    keys = [next(c.key for c in night.cells if c.key.guest == guest) for guest in columns]
    counts = ended(night.cells)
    return html.template("night.html.j2").render(
        night=night,
        day=day(night.started_s),
        tone=words.tone(night, change),
        badge=words.badge(night, change),
        headline=words.headline(night, change),
        tiles=_tiles(night, change, counts),
        notes=list(notes),
        columns=[words.guest_label(key, keys) for key in keys],
        groups=_groups(night, earlier, columns, folder),
        sections=[
            _section(kind, title, change, night, earlier, folder) for kind, title in _SECTIONS
        ],
        chart=gantt.gantt(night.cells, folder),
        gantt=gantt,
        unjudged=_unjudged(night.cells),
        exports=list(exports),
        mark_words=words.MARK_WORDS,
        is_link=words.is_link,
        css=html.styles("night"),
    )


def _tiles(night: Night, change: Comparison, counts: dict[str, int]) -> list[tuple[str, str, str]]:
    """Name, value, and colour."""
    ran = sum(counts.values())
    took_s = busy_s(night.cells)
    return [
        ("new", str(len(change.new)), "bad" if change.new else "good"),
        ("fixed", str(len(change.fixed)), "good" if change.fixed else ""),
        ("still there", str(len(change.still)), ""),
        ("known", str(len(change.known)), ""),
        ("cells ran", f"{ran} of {len(night.cells)}", "" if ran == len(night.cells) else "warn"),
        ("guests", str(_guests(night.cells)), ""),
        ("passed", str(counts["PASS"]), ""),
        ("failed", str(counts["FAIL"]), ""),
        ("not judged", str(counts["else"]), "warn" if counts["else"] else ""),
        ("time", words.short(took_s), ""),
    ]


def _guests(cells: Iterable[Cell]) -> int:
    """How many were booted: cells may share one, and some have two."""
    return len({run for cell in cells for run in (cell.run, cell.again) if run})


def _groups(
    night: Night, earlier: Sequence[Night], columns: Sequence[tuple[object, ...]], folder: Path
) -> list[Group]:
    past = [{cell.key: cell for cell in old.cells} for old in reversed(earlier[:PAST])]
    brought: dict[tuple[str, str, int], list[Sighting]] = {}
    for change in changes_of(night).values():
        where = (change.base, change.series, change.patch_number)
        brought.setdefault(where, []).append(change.sighting)
    kernels: dict[str, dict[tuple[str, int], list[Cell]]] = {}
    for cell in night.cells:
        key = cell.key
        # The base is one kernel, however many series stand on it.
        kernel = (key.series, key.patch_number) if key.patch_number else ("", 0)
        kernels.setdefault(key.base, {}).setdefault(kernel, []).append(cell)
    groups = []
    for base, rows in kernels.items():
        alone = {series for series, number in rows if number == 1}
        alone -= {series for series, number in rows if number > 1}
        # The base first, then series by their names: in the same order each night.
        ordered = sorted(rows.items())
        groups.append(
            Group(
                base=base,
                commit=next((c.commit for c in night.cells if c.key.base == base), ""),
                rows=tuple(
                    _row(series, number, cells, columns, past, brought, folder, series in alone)
                    for (series, number), cells in ordered
                ),
            )
        )
    return groups


def _row(
    series: str,
    number: int,
    cells: Sequence[Cell],
    columns: Sequence[tuple[object, ...]],
    past: Sequence[dict[CellKey, Cell]],
    brought: dict[tuple[str, str, int], list[Sighting]],
    folder: Path,
    alone: bool,
) -> Row:
    of_guest = {cell.key.guest: cell for cell in reversed(cells)}
    once = list({cell.run or id(cell): cell for cell in cells}.values())
    key = cells[0].key
    seen = [s for c in cells for s in brought.get((key.base, c.key.series, number), ())]
    passed = sum(cell.looked and words.look(cell) == "pass" for cell in of_guest.values())
    return Row(
        series=series,
        number=number,
        subject=key.patch if number else "",
        alone=alone,
        boxes=tuple(
            _box(of_guest[guest], past, folder) if guest in of_guest else None for guest in columns
        ),
        brings=tuple({s.identity: s for s in seen if s.severity is Severity.FAIL}.values()),
        look=words.worst_look(cells),
        passed=f"{passed} of {len(of_guest)}",
        warnings=tuple(dict.fromkeys(line for cell in cells for line in cell.warnings)),
        build=words.duration(max(cell.build_s for cell in cells)) if _built(cells) else "",
        run=words.duration(sum(cell.seconds for cell in once)),
        patchset=cells[0].patchset[:12],
    )


def _built(cells: Iterable[Cell]) -> bool:
    return any(cell.build_s > 0 for cell in cells)


def _box(cell: Cell, past: Sequence[dict[CellKey, Cell]], folder: Path) -> Box:
    counting = sum(sighting.counts for sighting in cell.sightings)
    label = f"{guest_word(cell.key)}: {why(cell) or words.word(cell)}"
    if cell.sightings:
        label += "; " + ", ".join(sighting.title for sighting in cell.sightings[:5])
    return Box(
        look=words.look(cell),
        word=words.word(cell),
        findings=counting,
        href=words.href(cell.run, folder) if cell.run else "",
        label=label,
        time=words.duration(cell.seconds) if cell.seconds else "",
        past=tuple(words.look(old[cell.key]) if cell.key in old else "none" for old in past),
    )


def _section(
    kind: str,
    title: str,
    change: Comparison,
    night: Night,
    earlier: Sequence[Night],
    folder: Path,
) -> Section:
    changes: tuple[Change, ...] = getattr(change, kind)
    shown = changes[:MOST_CARDS]
    return Section(
        kind=kind,
        title=title,
        count=len(changes),
        patches=tuple(
            Brought(
                patch=f"{alike[0].patch_number} {alike[0].patch}" if alike[0].patch_number else "",
                where=f"{alike[0].series} on {alike[0].base}",
                cards=tuple(_card(one, night, earlier, folder) for one in alike),
            )
            for alike in by_patch(shown)
        ),
        more=len(changes) - len(shown),
    )


def _card(change: Change, night: Night, earlier: Sequence[Night], folder: Path) -> Card:
    found = list(_sightings(change, night))
    places = [_seen_at(cell, sighting, folder) for cell, sighting in found[:MOST_PLACES]]
    nights = (*reversed(earlier[:PAST]), night)
    return Card(
        change=change,
        places=tuple(places),
        more_places=max(0, len(found) - MOST_PLACES),
        marks=tuple((_mark(change, one), day(one.started_s)) for one in nights),
    )


def _mark(change: Change, night: Night) -> str:
    of_series = [c for c in night.cells if _where(c.key) == (change.base, change.series)]
    seen = [s for c in of_series for s in c.sightings if s.identity == change.sighting.identity]
    if not seen and not any(cell.looked for cell in of_series):
        return "none"
    return words.MARKS[mark(night, seen)]


def _where(key: CellKey) -> tuple[str, str]:
    return (key.base, key.series)


def _sightings(change: Change, night: Night) -> Iterable[tuple[Cell, Sighting]]:
    for cell in sorted(night.cells, key=lambda cell: cell.key):
        for sighting in cell.sightings:
            same = sighting.identity == change.sighting.identity
            if same and _where(cell.key) == (change.base, change.series):
                yield cell, sighting


def _seen_at(cell: Cell, sighting: Sighting, folder: Path) -> Place:
    number = cell.key.patch_number
    label = f"patch {number}" if number else "base"
    seen = f"{sighting.seen} of {sighting.looked} guests" if sighting.looked > 1 else ""
    return Place(
        label=f"{label}, {plural(cell.key.vcpus, 'vCPU')}",
        href=words.href(sighting.run, folder) if sighting.run else "",
        seen=seen,
    )


def _unjudged(cells: Iterable[Cell]) -> list[tuple[str, list[str]]]:
    """Why cells have no verdict, most cells first, and which they are."""
    found: dict[str, list[str]] = {}
    for cell in sorted(cells, key=lambda cell: cell.key):
        if reason := why(cell):
            number = cell.key.patch_number
            patch = f"patch {number}" if number else "base"
            name = f"{cell.key.series}, {patch}: {guest_word(cell.key)}"
            found.setdefault(reason, []).append(name)
    return sorted(found.items(), key=lambda pair: -len(pair[1]))

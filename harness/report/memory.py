# SPDX-License-Identifier: GPL-2.0-or-later
"""Who owns guest memory at the end of a run, and what ever changed hands: a map in columns."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.events import PAGE_BYTES, Event, Flag, Kind, Stream

FOUR_GIB = 4 << 30
COLUMNS = 250
MOST_RANGES = 64
# A byte per page is kept while the map is made.
MOST_RAM_BYTES = 64 << 30

# States of a page. Only what was once shared can be anything but PRIVATE.
PRIVATE, RETURNED, SHARED, PENDING = range(4)

_TO_SHARED = bytes([SHARED]) * 256
_TO_PRIVATE = bytes([PRIVATE, RETURNED, PENDING, PENDING]) + bytes(252)
_ACCEPT = bytes([PRIVATE, RETURNED, SHARED, RETURNED]) + bytes(252)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A stretch of RAM from guest-physical `base`, one state per page."""

    name: str
    base: int
    pages: bytearray

    def apply(self, gpa: int, size: int, table: bytes) -> None:
        """Change the pages of [gpa, gpa + size) that lie in this region by a table of states."""
        first = max(0, (gpa - self.base) // PAGE_BYTES)
        end = min(len(self.pages), (gpa + size - self.base) // PAGE_BYTES)
        if first < end:
            self.pages[first:end] = self.pages[first:end].translate(table)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A column of the map that is not all private; counts are of pages."""

    column: int
    start: int
    end: int
    pages: int
    shared: int
    pending: int
    returned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Pages that follow each other and are in one state at the end."""

    start: int
    end: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """The map of one region, with its totals in bytes."""

    name: str
    start: int
    end: int
    cells: tuple[Cell, ...]
    shared: int
    pending: int
    returned: int
    ranges: tuple[Range, ...]
    more_ranges: int


def _change(event: Event) -> tuple[int, int, bytes] | None:
    gpa, size, status = event.args[0], event.args[1], event.args[2]
    if event.kind is Kind.CONVERT and status == 0 and not event.flags & Flag.BAD:
        return gpa, size, _TO_SHARED if event.flags & Flag.TO_SHARED else _TO_PRIVATE
    if event.kind is Kind.ACCEPT and status == 0:
        return gpa, PAGE_BYTES << 9 * min(event.args[1], 2), _ACCEPT
    return None


def regions(stream: Stream) -> tuple[Region, ...]:
    """RAM below and above 4 GiB after all events; none when the guest is larger than is drawn."""
    header = stream.header
    if header.ram_below_4g + header.ram_above_4g > MOST_RAM_BYTES:
        return ()
    found = tuple(
        Region(name=name, base=base, pages=bytearray(size // PAGE_BYTES))
        for name, base, size in (
            ("RAM below 4 GiB", 0, header.ram_below_4g),
            ("RAM above 4 GiB", FOUR_GIB, header.ram_above_4g),
        )
        if size >= PAGE_BYTES
    )
    for event in stream.events:
        change = _change(event)
        if change:
            for region in found:
                region.apply(*change)
    return found


def _cells(region: Region) -> Iterator[Cell]:
    total = len(region.pages)
    columns = min(COLUMNS, total)
    for column in range(columns):
        first, end = total * column // columns, total * (column + 1) // columns
        part = region.pages[first:end]
        if part.count(PRIVATE) != len(part):
            yield Cell(
                column=column,
                start=region.base + first * PAGE_BYTES,
                end=region.base + end * PAGE_BYTES,
                pages=len(part),
                shared=part.count(SHARED),
                pending=part.count(PENDING),
                returned=part.count(RETURNED),
            )


def strip(region: Region) -> Strip:
    """The region in at most COLUMNS columns, and the ranges that are not private at its end."""
    pages = region.pages
    ranges = [
        Range(
            start=region.base + match.start() * PAGE_BYTES,
            end=region.base + match.end() * PAGE_BYTES,
            state="shared" if match.group()[0] == SHARED else "pending",
        )
        for match in re.finditer(rb"\x02+|\x03+", pages)
    ]
    return Strip(
        name=region.name,
        start=region.base,
        end=region.base + len(pages) * PAGE_BYTES,
        cells=tuple(_cells(region)),
        shared=pages.count(SHARED) * PAGE_BYTES,
        pending=pages.count(PENDING) * PAGE_BYTES,
        returned=pages.count(RETURNED) * PAGE_BYTES,
        ranges=tuple(ranges[:MOST_RANGES]),
        more_ranges=max(0, len(ranges) - MOST_RANGES),
    )

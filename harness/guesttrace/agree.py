# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own trace held against the stub's exact record of the same run.

The trace knows less: no store, no other mapping, no TDCALL of the test module's own. So the record
may tell of more. What only the trace claims is a contradiction: one of the two is wrong. They are
compared between the marks that both have; where the stub was told to ignore what the guest does, or
to misbehave, the two must differ.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.conversions import changed_owner, direction
from harness.events import LINE_BYTES, PAGE_BYTES, Event, Flag, Kind

_MOST_TOLD = 3
# What of an event's place in memory both have to name alike: first address, bytes, direction.
_Key = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the two compare."""

    # conversions that both saw
    conversions: int
    # one sentence for each thing that the trace alone claims
    contradictions: tuple[str, ...]


def agreement(traced: Sequence[Event], record: Sequence[Event]) -> Agreement:
    """Compare between marks."""
    parts = _parts(record)
    both = 0
    claims: list[str] = []
    for mark, part in _parts(traced).items():
        other = parts.get(mark)
        if other is None or any(event.kind in (Kind.FAULT, Kind.VMM) for event in other):
            continue
        both += sum(changed_owner(event) for event in part)
        claims += _of_conversions(part, other)
        claims += _of_translations(part, other)
        # A conversion that the record has not may be of more memory than there is.
        if not any(_unknown(part, other)):
            claims += _of_order(part, other)
    more = [f"{len(claims) - _MOST_TOLD} more"] if len(claims) > _MOST_TOLD else []
    return Agreement(both, (*claims[:_MOST_TOLD], *more))


def _parts(events: Sequence[Event]) -> dict[int, list[Event]]:
    """The events between the marks of each id, those between inner marks left to these."""
    within: list[tuple[int, list[Event]]] = []
    found: dict[int, list[Event]] = {}
    for event in events:
        begins, mark = event.args[0] == 1, event.args[1]
        if event.kind is not Kind.MARK:
            if within:
                within[-1][1].append(event)
        elif begins:
            within.append((mark, []))
        elif mark in (names := [name for name, _ in within]):
            # What began inside and did not end is compared no more.
            found[mark] = within[names.index(mark)][1]
            del within[names.index(mark) :]
    return found


def _of_conversions(traced: Sequence[Event], record: Sequence[Event]) -> Iterator[str]:
    ours, others = _by_key(traced), _by_key(record)
    for key, events in ours.items():
        gpa, size, way = key
        where = f"{size >> 10} KiB at {gpa:#x}, {way}"
        known = others.get(key, [])
        if len(events) > len(known):
            yield f"{len(events)} conversions of {where}, not {len(known)}"
        elif len(events) == len(known):
            yield from (
                f"conversion of {where}: {claim}"
                for event, other in zip(events, known, strict=True)
                for claim in _of_lines(event, other)
            )


def _unknown(traced: Sequence[Event], record: Sequence[Event]) -> Iterator[bool]:
    """Of each range that was traced, whether the record has fewer conversions of it."""
    known = _by_key(record)
    return (len(events) > len(known.get(key, ())) for key, events in _by_key(traced).items())


def _of_lines(traced: Event, record: Event) -> Iterator[str]:
    """A line that was not stored to is dirty to the trace alone; one that was flushed must not."""
    lines = traced.args[1] // LINE_BYTES
    flushed, seen = traced.args[4] >> 32, record.args[4] >> 32
    if flushed > seen:
        yield f"{flushed} lines flushed, not {seen}"
    if traced.args[3] and not record.args[3] and seen >= lines:
        yield f"{traced.args[3]} dirty lines, where all were flushed"


def _by_key(events: Sequence[Event]) -> dict[_Key, list[Event]]:
    found: dict[_Key, list[Event]] = {}
    for event in events:
        if changed_owner(event):
            found.setdefault((event.args[0], event.args[1], direction(event)), []).append(event)
    return found


def _of_translations(traced: Sequence[Event], record: Sequence[Event]) -> Iterator[str]:
    known = set(_stale(record))
    for claim in dict.fromkeys(_stale(traced)):
        if claim not in known:
            page, way, vcpu = claim
            yield f"vCPU {vcpu} did not invalidate page {page:#x}, {way}"


def _of_order(traced: Sequence[Event], record: Sequence[Event]) -> Iterator[str]:
    known = set(_out_of_order(record))
    for claim in dict.fromkeys(_out_of_order(traced)):
        if claim not in known:
            page, way = claim
            yield f"the mapping of page {page:#x} changed while it was shared, {way}"


def _out_of_order(events: Sequence[Event]) -> Iterator[tuple[int, str]]:
    """Pages whose mapping changed while they were shared, as private-access-to-shared has it."""
    shared: set[int] = set()
    for event in events:
        if changed_owner(event):
            pages = _pages(event.args[0], event.args[1])
            (shared.update if event.flags & Flag.TO_SHARED else shared.difference_update)(pages)
        elif event.kind is Kind.PTE_CHANGE:
            to_shared, away = event.flags & Flag.TO_SHARED, event.flags & Flag.AWAY
            for page in _pages(event.args[1], event.args[4]):
                if page in shared and not (to_shared and away):
                    yield page, direction(event)


def _pages(start: int, size: int) -> range:
    first = start // PAGE_BYTES * PAGE_BYTES
    return range(first, first + (size or PAGE_BYTES), PAGE_BYTES)


def _stale(events: Sequence[Event]) -> Iterator[tuple[int, str, int]]:
    for event in events:
        if event.kind is Kind.STALE:
            for page in _pages(event.args[1], event.args[2]):
                yield page, direction(event), event.vcpu

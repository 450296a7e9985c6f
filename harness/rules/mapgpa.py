# SPDX-License-Identifier: GPL-2.0-or-later
"""mapgpa-failure-handling: what the guest makes of a MapGPA that said RETRY, or failed.

GHCI, "TDG.VP.VMCALL<MapGPA>": behind RETRY the guest asks again, from the address in R11 to the end
of the range. Behind anything else the state of the pages is unknown, and they must not be used.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.conversions import TO_SHARED, caller_of, direction
from harness.events import PAGE_BYTES, Event, Flag, Kind
from harness.rules.context import Context, caller_key, counted, finding, grouped, places, span
from harness.verdict import Finding, Site

RETRY = 1
_SHARED_BIT = 1 << 52
# A guest may give up where nothing moves; it has to ask again at least once.
_MOST_STUCK = 2


@dataclass(frozen=True, slots=True)
class _Told:
    """A call that was answered with RETRY."""

    event: Event
    # where the guest has to go on
    next: int
    # answers in a row that held it at one address
    stuck: int

    @property
    def start(self) -> int:
        return self.event.args[1]

    @property
    def end(self) -> int:
        return self.event.args[1] + self.event.args[2]


def mapgpa_failure_handling(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion that was not gone on with as told, and per failed conversion,
    vCPU and kind of access for its pages that were used."""
    return [*_not_as_told(events, context), *_used(events, context)]


def _not_as_told(events: Sequence[Event], context: Context) -> list[Finding]:
    found: list[Finding] = []
    waiting: list[_Told] = []
    for event in _calls(events):
        start, end = _range_of(event)
        stuck = 0
        for told in [t for t in waiting if start < t.end and t.start < end]:
            waiting.remove(told)
            if direction(event) != direction(told.event):
                found += _gave_up(told, context)
            elif (start, end) != (told.next, told.end):
                found.append(_elsewhere(told, event, context))
            else:
                stuck = told.stuck
        if event.kind is Kind.VMM and (where := _told_to(event)) is not None:
            waiting.append(_Told(event, where, stuck + 1 if where == start else 0))
    return found + [f for told in waiting for f in _gave_up(told, context)]


def _calls(events: Sequence[Event]) -> list[Event]:
    """The MapGPAs, each once: one that was answered wrongly has a record beside its conversion."""
    calls: list[Event] = []
    done_at: int | None = None
    for event in events:
        if event.kind is Kind.VMM:
            calls.append(event)
            done_at = event.args[1] if event.args[0] >> 32 else None
        elif event.kind is Kind.CONVERT:
            if event.args[0] != done_at:
                calls.append(event)
            done_at = None
    return calls


def _range_of(event: Event) -> tuple[int, int]:
    at = 1 if event.kind is Kind.VMM else 0
    return event.args[at], event.args[at] + event.args[at + 1]


def _told_to(event: Event) -> int | None:
    """Where RETRY sent the guest; None for another answer, or an address out of range."""
    _, gpa, size, status, r11 = event.args
    where = r11 & ~_SHARED_BIT
    return where if status == RETRY and gpa <= where < gpa + size else None


def _elsewhere(told: _Told, event: Event, context: Context) -> Finding:
    start, end = _range_of(event)
    return _finding(
        event,
        context,
        f"told to go on with the conversion at {told.next:#x} up to {told.end - 1:#x}, the guest "
        f"asked for {start:#x}-{end - 1:#x}",
        gpa=start,
        extra={"told": [told.next, told.end], "asked": [start, end]},
    )


def _gave_up(told: _Told, context: Context) -> list[Finding]:
    if told.stuck >= _MOST_STUCK:
        return []
    return [
        _finding(
            told.event,
            context,
            f"told to go on with the conversion at {told.next:#x}, the guest gave up",
            gpa=told.next,
            extra={"told": [told.next, told.end]},
        )
    ]


def _used(events: Sequence[Event], context: Context) -> list[Finding]:
    groups = grouped(
        (e for e in events if e.kind is Kind.DISOWNED),
        lambda e: (e.args[3], e.vcpu, bool(e.flags & Flag.WRITE)),
    )
    return [
        _use(group, context.misbehaved.get(seq), context) for (seq, _, _), group in groups.items()
    ]


def _use(group: Sequence[Event], failed: Event | None, context: Context) -> Finding:
    first = group[0]
    start, end = span((e.args[1] // PAGE_BYTES * PAGE_BYTES, PAGE_BYTES) for e in group)
    verb = "wrote to" if first.flags & Flag.WRITE else "read"
    which = f"page {start:#x}" if len(group) == 1 else (
        f"{counted(len(group), 'page')} of {start:#x}-{end - 1:#x}"
    )  # fmt: skip
    mapping = "a shared" if first.flags & Flag.SHARED else "a private"
    by = caller_key(failed, context) if failed else "a conversion"
    caller = f"{by:#x}" if isinstance(by, int) else by
    made = "shared" if failed and direction(failed) == TO_SHARED else "private"
    return _finding(
        first,
        context,
        f"vCPU {first.vcpu} {verb} {which} through {mapping} mapping, though MapGPA had refused "
        f"{caller} to make it {made}",
        gpa=start,
        gva=first.args[0],
        conversion_site=_caller(failed, context) if failed else None,
        count=len(group),
        extra={"range": [start, end], "refused": failed.seq if failed else None},
        direction=direction(failed) if failed else None,
    )


def _caller(event: Event, context: Context) -> Site | None:
    return caller_of(context.symbols.trace(event.pc, event.stack))


def _finding(event: Event, context: Context, summary: str, **fields: Any) -> Finding:
    return finding(
        "mapgpa-failure-handling",
        summary,
        vcpu=event.vcpu,
        seq=event.seq,
        **places(event, context),
        **({"direction": direction(event)} | fields),
    )

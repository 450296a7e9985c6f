# SPDX-License-Identifier: GPL-2.0-or-later
"""The history of a guest's pages: conversions, PTE changes, and which step was at work."""

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from harness.events import PAGE_BYTES, Event, Flag, Kind
from harness.steps import Step
from harness.symbols import Symbols
from harness.verdict import Site

TO_SHARED = "private to shared"
TO_PRIVATE = "shared to private"

# Functions between a caller and the TDCALL of its conversion: the TDCALL itself, the TDX code, the
# generic conversion around it, and the test module's own ways to make one.
_MACHINERY = re.compile(
    r"_*(tdx|tdcall|tdvmcall|tdg|set_memory_(en|de)crypted|set_memory_enc)(_|\b)|"
    r"(try_accept_one|tdh_map_gpa|tdh_accept|tdh_tdcall)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One MapGPA that changed the owner of a range; `bytes` in bytes, the rest in 64-byte lines."""

    seq: int
    gpa: int
    bytes: int
    # TO_SHARED or TO_PRIVATE
    direction: str
    vcpu: int
    # dirty under the old key when the range changed hands
    dirty: int
    # flushed since the conversion before, and flushed once more without a store between
    flushed: int
    flushed_again: int
    # who converted: the first function of the trace outside the conversion itself; "" if unknown
    caller: str
    # name of the workload step, "" outside all steps
    step: str
    # the caller's place and the whole call trace, innermost first
    site: Site | None
    trace: tuple[Site, ...]

    @property
    def lines(self) -> int:
        """Lines in the range."""
        return self.bytes // 64


def direction(event: Event) -> str:
    """The direction of a CONVERT, STALE or PTE_CHANGE."""
    return TO_SHARED if event.flags & Flag.TO_SHARED else TO_PRIVATE


def changed_owner(event: Event) -> bool:
    """Whether the event is a MapGPA that succeeded."""
    return event.kind is Kind.CONVERT and event.args[2] == 0 and not event.flags & Flag.BAD


def caller_of(trace: Sequence[Site]) -> Site | None:
    """The first place of a trace outside the conversion itself; None if none has a symbol."""
    return next((s for s in trace if s.symbol and not _MACHINERY.match(s.symbol)), None)


def conversions(
    events: Sequence[Event], symbols: Symbols, steps: Sequence[Step] = ()
) -> list[Conversion]:
    """Every conversion that succeeded, in order; `steps` name those within their marks."""
    return [
        _conversion(event, symbols, step)
        for step, part in by_step(events, steps)
        for event in part
        if changed_owner(event)
    ]


def _conversion(event: Event, symbols: Symbols, step: str) -> Conversion:
    gpa, size, _, dirty, counts = event.args
    trace = symbols.trace(event.pc, event.stack)
    site = caller_of(trace)
    return Conversion(
        seq=event.seq,
        gpa=gpa,
        bytes=size,
        direction=direction(event),
        vcpu=event.vcpu,
        dirty=dirty,
        flushed=counts >> 32,
        flushed_again=counts & 0xFFFFFFFF,
        caller=str(site) if site else "",
        step=step,
        site=site,
        trace=trace,
    )


class StepNames:
    """Which step was at work, by the marks that the guest set; fed with marks in their order.

    Marks nest: a test has its own around those of the steps that it runs. The innermost counts.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self._names = {step.mark: step.name for step in steps if step.mark is not None}
        self._open: list[int] = []

    def mark(self, begins: bool, mark_id: int) -> str:
        """The name of the step from this mark on, "" outside all; a mark without a step keeps
        its number as a name."""
        if begins:
            self._open.append(mark_id)
        elif mark_id in self._open:
            # Whatever began inside and did not end is over as well.
            del self._open[self._open.index(mark_id) :]
        if not self._open:
            return ""
        return self._names.get(self._open[-1], f"mark {self._open[-1]}")


def by_step(events: Sequence[Event], steps: Sequence[Step]) -> list[tuple[str, tuple[Event, ...]]]:
    """The events cut at the marks, each part with the name of its step."""
    names = StepNames(steps)
    parts: list[tuple[str, list[Event]]] = [("", [])]
    for event in events:
        if event.kind is Kind.MARK:
            parts.append((names.mark(event.args[0] == 1, event.args[1]), []))
        else:
            parts[-1][1].append(event)
    return [(name, tuple(part)) for name, part in parts if part]


class History:
    """Look-ups of what happened to a page, by sequence number."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._converts = [event for event in events if changed_owner(event)]
        self._by_page: dict[int, list[Event]] = {}
        self._changes: dict[tuple[int, int], list[Event]] = {}
        for event in events:
            if event.kind is Kind.PTE_CHANGE:
                gva, size = event.args[0], event.args[4] or PAGE_BYTES
                self._changes.setdefault((size, gva // size), []).append(event)
        self._sizes = sorted({size for size, _ in self._changes})

    def _converts_of(self, gpa: int) -> list[Event]:
        page = gpa // PAGE_BYTES
        if page not in self._by_page:
            at = page * PAGE_BYTES
            self._by_page[page] = [
                e for e in self._converts if e.args[0] <= at < e.args[0] + e.args[1]
            ]
        return self._by_page[page]

    def convert_before(self, seq: int, gpa: int) -> Event | None:
        """The last conversion of the page before `seq`."""
        events = self._converts_of(gpa)
        index = bisect_left(events, seq, key=lambda event: event.seq)
        return events[index - 1] if index else None

    def convert_after(self, seq: int, gpa: int) -> Event | None:
        """The first conversion of the page at or after `seq`."""
        events = self._converts_of(gpa)
        index = bisect_left(events, seq, key=lambda event: event.seq)
        return events[index] if index < len(events) else None

    def around(self, seq: int, gva: int, gpa: int) -> tuple[Event | None, Event | None]:
        """The last conversion or PTE change of a mapped page before `seq`, and the first behind."""
        seen = [*self._converts_of(gpa)]
        for size in self._sizes:
            seen += self._changes.get((size, gva // size), ())
        before = max((e for e in seen if e.seq < seq), key=lambda e: e.seq, default=None)
        after = min((e for e in seen if e.seq > seq), key=lambda e: e.seq, default=None)
        return before, after

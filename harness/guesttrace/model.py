# SPDX-License-Identifier: GPL-2.0-or-later
"""From a guest's trace to events of the kinds that the stub makes: the same rules judge both.

The worst case is taken, as by the stub: when its conversion begins, every line of a range is dirty
under the private key, and every CPU holds its translations. What the trace shows takes away from
that: a line is clean once it was flushed between the beginning and the page tables' change, a CPU's
translation is gone once that CPU invalidated it behind the change. Not seen are stores, so a line
that was stored to again after its flush counts as clean, other ways to reach the range (an alias in
vmalloc), and what a page table entry came to hold.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.events import LINE_BYTES, PAGE_BYTES, Event, Flag, Header, Kind, Stream
from harness.guesttrace.record import Record, Section, Word, sections

# What has to be seen for a conversion to be judged, and where its lines are flushed.
_NEEDED = (
    Word.CONVERT,
    Word.CHANGED,
    Word.MAP,
    Word.MAPPED,
    Word.INVALIDATE,
    Word.INVALIDATE_ALL,
    Word.LINES,
)
_FLUSHER = "cpa_flush+"
_ALL_LINES = (1 << PAGE_BYTES // LINE_BYTES) - 1
# No conversion of Linux is larger.
_MOST_PAGES = 1 << 20
_FAILED = 1 << 63


@dataclass(frozen=True, slots=True)
class Trace:
    """What a trace shows."""

    events: tuple[Event, ...] = ()
    # one sentence each: what the trace could not see, and so nothing of it can be judged
    blind: tuple[str, ...] = ()
    # records that found no room
    lost: int = 0

    @property
    def unfit(self) -> str:
        """Why nothing can be judged by it; "" if it can."""
        if self.blind:
            why = "; ".join(self.blind)
            return f"the guest's trace shows no conversion: {why} (--no-guest-trace does without)"
        return f"{self.lost} records of the guest's trace were lost" if self.lost else ""

    @property
    def stream(self) -> Stream:
        """The events as a stream, which tells nothing of its guest."""
        return Stream(Header(0, 0, 0, 0), self.events, True)


def read(text: str) -> Trace:
    """A trace as the harness kept it. Raises EvidenceError for one of another form."""
    events: list[Event] = []
    blind: list[str] = []
    lost = 0
    parts = sections(text)
    for section in parts:
        blind += blindness(section)
        lost += sum(record.args[0] for record in section.records if record.word is Word.LOST)
        events += _Model(section.cpus, len(events)).run(section.records)
    if not parts:
        blind.append("the guest's module put no probe")
    return Trace(tuple(events), tuple(dict.fromkeys(blind)), lost)


def blindness(section: Section) -> list[str]:
    """Why nothing can be told from this kernel's trace; none when it can."""
    seen = {word for word, _ in section.probes}
    found = [f"the kernel has no probe for '{word}'" for word in _NEEDED if word not in seen]
    if not found and (Word.LINES, _FLUSHER) not in {
        (word, place[: len(_FLUSHER)]) for word, place in section.probes
    }:
        found.append("the kernel has no probe for the CLFLUSH of cpa_flush()")
    return found


@dataclass(slots=True)
class _Conversion:
    """A call of __set_memory_enc_pgtable() that has not returned."""

    address: int
    pages: int
    to_shared: bool
    gpa: int
    pc: int
    stack: tuple[int, ...]
    cpu: int
    # lines flushed before the change, as bits, and once more, by page number in the range
    flushed: dict[int, int] = field(default_factory=dict)
    flushed_again: int = 0
    # the PTE_CHANGE, once there is one
    changed: int | None = None
    # page numbers invalidated since, by CPU
    invalidated: dict[int, set[int]] = field(default_factory=dict)
    mapped: bool = False

    def page_of(self, address: int) -> int:
        """The number of an address's page in the range; it may lie outside."""
        return (address - self.address) // PAGE_BYTES

    def flush(self, address: int, size: int) -> None:
        """CLFLUSH of lines in a row; what is behind the change goes through the other mapping."""
        if self.changed is not None and self.to_shared:
            return
        for at in range(address, address + size, LINE_BYTES):
            page = self.page_of(at)
            if 0 <= page < self.pages:
                bit = 1 << at % PAGE_BYTES // LINE_BYTES
                before = self.flushed.get(page, 0)
                self.flushed_again += bool(before & bit)
                self.flushed[page] = before | bit

    def invalidate(self, cpu: int, address: int | None) -> None:
        """An invalidation by a CPU, of everything where there is no address."""
        gone = self.invalidated.setdefault(cpu, set())
        if address is None:
            gone.update(range(self.pages))
        elif 0 <= (page := self.page_of(address)) < self.pages:
            gone.add(page)


class _Model:
    """The conversions of one kernel, from its records in their order."""

    def __init__(self, cpus: Sequence[int], first_seq: int) -> None:
        self._cpus = cpus
        self._first = first_seq
        self._events: list[Event] = []
        # by task
        self._open: dict[int, _Conversion] = {}
        self._mapping: dict[int, Record] = {}
        self._accepting: dict[int, Record] = {}

    def run(self, records: Iterable[Record]) -> list[Event]:
        """The events."""
        for record in records:
            self._take(record)
        return self._events

    def _take(self, record: Record) -> None:
        a, b, _, _ = record.args
        conversion = self._open.get(record.task)
        match record.word:
            case Word.MARK:
                self._emit(Kind.MARK, record.cpu, (a, b, 0, 0, 0))
            case Word.CONVERT:
                # Where its return is not seen, the next one ends it.
                self._converted(record.task)
                self._open[record.task] = _begun(record)
            case Word.CONVERTED:
                self._converted(record.task)
            case Word.LINES if conversion:
                conversion.flush(a, min(b, _MOST_PAGES * PAGE_BYTES))
            case Word.CHANGED if conversion:
                self._changed(conversion)
            case Word.INVALIDATE | Word.INVALIDATE_ALL:
                address = a if record.word is Word.INVALIDATE else None
                for other in self._open.values():
                    other.invalidate(record.cpu, address)
            case Word.MAP:
                self._mapping[record.task] = record
            case Word.MAPPED if asked := self._mapping.pop(record.task, None):
                self._mapped(asked, bool(a), conversion)
            case Word.ACCEPT:
                self._accepting[record.task] = record
            case Word.ACCEPTED if asked := self._accepting.pop(record.task, None):
                self._accepted(asked, a)

    def _emit(
        self,
        kind: Kind,
        cpu: int,
        args: tuple[int, int, int, int, int],
        flags: Flag = Flag(0),  # noqa: B008 - a Flag is immutable
        of: _Conversion | None = None,
    ) -> int:
        seq = self._first + len(self._events)
        pc, stack = (of.pc, of.stack) if of else (0, ())
        self._events.append(Event(seq, kind, cpu, flags, pc, args, stack))
        return seq

    def _changed(self, conversion: _Conversion) -> None:
        """The page tables of a range have changed: what was invalidated before does not count."""
        conversion.changed = self._emit(
            Kind.PTE_CHANGE,
            conversion.cpu,
            (conversion.address, conversion.gpa, 0, 0, conversion.pages * PAGE_BYTES),
            _direction(conversion.to_shared),
            conversion,
        )
        conversion.invalidated = {}

    def _mapped(self, asked: Record, succeeded: bool, conversion: _Conversion | None) -> None:
        start, end, to_shared, _ = asked.args
        pc, stack = _place(asked)
        of = conversion or _Conversion(0, 0, bool(to_shared), start, pc, stack, asked.cpu)
        pages = _pages_in(of, start, end)
        dirty = list(_dirty_runs(of, pages)) if to_shared and succeeded else []
        lines = sum(of.flushed.get(page, 0).bit_count() for page in pages)
        counts = lines << 32 | of.flushed_again
        status = 0 if succeeded else _FAILED
        size = max(0, end - start)
        total = sum(count for _, count in dirty)
        seq = self._emit(
            Kind.CONVERT,
            asked.cpu,
            (start, size, status, total, counts),
            _direction(bool(to_shared)),
            of,
        )
        for gpa, count in dirty:
            self._emit(Kind.DIRTY_RUN, asked.cpu, (gpa, count, 0, 0, seq))
        of.mapped = of.mapped or succeeded
        if to_shared and succeeded:
            self._stale(of, pages)

    def _converted(self, task: int) -> None:
        """Behind a conversion to private the memory is used again: that is its commit."""
        conversion = self._open.pop(task, None)
        if conversion and conversion.mapped and not conversion.to_shared:
            self._stale(conversion, range(conversion.pages))

    def _stale(self, conversion: _Conversion, pages: range) -> None:
        if conversion.changed is None:
            return
        for cpu in self._cpus:
            gone = conversion.invalidated.get(cpu, set())
            for first, count in _runs(page for page in pages if page not in gone):
                offset = first * PAGE_BYTES
                args = (conversion.address + offset, conversion.gpa + offset, count * PAGE_BYTES)
                self._emit(
                    Kind.STALE,
                    cpu,
                    (*args, conversion.changed, 0),
                    _direction(conversion.to_shared),
                    conversion,
                )

    def _accepted(self, asked: Record, size: int) -> None:
        gpa, _, level, _ = asked.args
        if size:
            self._emit(Kind.ACCEPT, asked.cpu, (gpa, max(0, level - 1), 0, 0, 0))


def _begun(record: Record) -> _Conversion:
    address, pages, to_shared, gpa = record.args
    pc, stack = _place(record)
    return _Conversion(
        address, min(pages, _MOST_PAGES), bool(to_shared), gpa, pc, stack, record.cpu
    )


def _place(record: Record) -> tuple[int, tuple[int, ...]]:
    """Where a call came from: its return address, which is the first word on its stack."""
    return (record.stack[0], record.stack[1:]) if record.stack else (0, ())


def _direction(to_shared: bool) -> Flag:
    return Flag.TO_SHARED if to_shared else Flag(0)


def _pages_in(conversion: _Conversion, start: int, end: int) -> range:
    """Numbers of the conversion's pages that lie in a range of guest-physical addresses."""
    first = (start - conversion.gpa) // PAGE_BYTES
    last = (end - conversion.gpa) // PAGE_BYTES
    return range(max(0, first), min(conversion.pages, last))


def _dirty_runs(conversion: _Conversion, pages: range) -> Iterator[tuple[int, int]]:
    """Lines that no flush reached, as (gpa of the first, number), none across pages."""
    for page in pages:
        dirty = _ALL_LINES & ~conversion.flushed.get(page, 0)
        lines = (line for line in range(PAGE_BYTES // LINE_BYTES) if dirty >> line & 1)
        for first, count in _runs(lines):
            yield conversion.gpa + page * PAGE_BYTES + first * LINE_BYTES, count


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as (first, count) of those in a row."""
    first, count = 0, 0
    for number in numbers:
        if count and number == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count

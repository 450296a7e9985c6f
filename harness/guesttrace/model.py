# SPDX-License-Identifier: GPL-2.0-or-later
"""From a guest's trace to events of the kinds that the stub makes: the same rules judge both.

The worst case is taken, as by the stub: when its conversion begins, every line of a range is dirty
under the private key, and every CPU holds its translations. What the trace shows takes away from
that: a line is clean once it was flushed between the beginning and the end of the page tables'
change, a CPU's translation is gone once that CPU invalidated it since the beginning of that change.
Where a conversion changes them twice (not present in between), the first time counts. Not seen are
stores, so a line that was stored to again after its flush counts as clean, other ways to reach the
range (an alias in vmalloc), and what a page table entry came to hold; none of that is held against
the kernel.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.errors import EvidenceError
from harness.events import LINE_BYTES, PAGE_BYTES, Event, Flag, Header, Kind, Stream
from harness.guesttrace.record import Record, Section, Word, sections

# What has to be seen for a conversion to be judged, and where its lines are flushed.
_NEEDED = (
    Word.CONVERT,
    Word.CONVERTED,
    Word.CHANGE,
    Word.CHANGED,
    Word.MAP,
    Word.MAPPED,
    Word.INVALIDATE,
    Word.INVALIDATE_ALL,
    Word.LINES,
)
_FLUSHER = "cpa_flush+"
_LINES = PAGE_BYTES // LINE_BYTES
# Of one conversion: 1 GiB, more than Linux allocates at once when it runs.
_MOST_PAGES = 1 << 18
# Pages looked at for a trace, over all CPUs: a guest can claim more than it can do.
_MOST_WORK = 1 << 22
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
    # its pages were shared before, and are made so again: nothing changes
    void: bool = False
    # page tables began to change
    changing: bool = False
    # the PTE_CHANGE, once there is one
    changed: int | None = None
    # page numbers invalidated since they began to, by CPU, and CPUs that invalidated everything
    invalidated: dict[int, set[int]] = field(default_factory=dict)
    emptied: set[int] = field(default_factory=set)
    mapped: bool = False

    def page_of(self, address: int) -> int:
        """The number of an address's page in the range; it may lie outside."""
        return (address - self.address) // PAGE_BYTES

    def flush(self, address: int, size: int) -> None:
        """CLFLUSH of lines in a row; what is behind the change goes through the other mapping."""
        if self.changed is not None and self.to_shared:
            return
        first = max(0, (address - self.address) // LINE_BYTES)
        end = min(self.pages * _LINES, (address + size - self.address) // LINE_BYTES)
        for page in range(first // _LINES, -(-end // _LINES)):
            start = page * _LINES
            lines = _mask(end - start) & ~_mask(first - start)
            before = self.flushed.get(page, 0)
            self.flushed_again += (before & lines).bit_count()
            self.flushed[page] = before | lines

    def change(self) -> None:
        """Page tables change: what was invalidated before the first time does not count."""
        if not self.changing:
            self.changing = True
            self.invalidated, self.emptied = {}, set()

    def invalidate(self, cpu: int, address: int | None) -> None:
        """An invalidation by a CPU, of everything where there is no address."""
        if address is None:
            self.emptied.add(cpu)
        elif 0 <= (page := self.page_of(address)) < self.pages:
            self.invalidated.setdefault(cpu, set()).add(page)


class _Model:
    """The conversions of one kernel, from its records in their order."""

    def __init__(self, cpus: Sequence[int], first_seq: int) -> None:
        self._cpus = cpus
        self._first = first_seq
        self._events: list[Event] = []
        self._work = 0
        # by task
        self._open: dict[int, _Conversion] = {}
        self._mapping: dict[int, Record] = {}
        self._accepting: dict[int, Record] = {}
        # numbers of pages
        self._shared: set[int] = set()

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
                self._open[record.task] = self._begun(record)
            case Word.CONVERTED:
                self._converted(record.task)
            case Word.LINES if conversion:
                self._spend(min(b // PAGE_BYTES, conversion.pages))
                conversion.flush(a, b)
            case Word.CHANGE if conversion:
                conversion.change()
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

    def _spend(self, pages: int) -> None:
        self._work += pages
        if self._work > _MOST_WORK:
            raise EvidenceError("the guest's trace tells of more conversions than can be looked at")

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

    def _begun(self, record: Record) -> _Conversion:
        address, pages, to_shared, gpa = record.args
        pages = min(pages, _MOST_PAGES)
        self._spend(pages)
        first = gpa // PAGE_BYTES
        void = bool(to_shared) and all(page in self._shared for page in range(first, first + pages))
        return _Conversion(
            address, pages, bool(to_shared), gpa, *_place(record), record.cpu, void=void
        )

    def _changed(self, conversion: _Conversion) -> None:
        """The page tables of a range have changed, for the first time."""
        if conversion.void or conversion.changed is not None:
            return
        conversion.changed = self._emit(
            Kind.PTE_CHANGE,
            conversion.cpu,
            (conversion.address, conversion.gpa, 0, 0, conversion.pages * PAGE_BYTES),
            _direction(conversion.to_shared),
            conversion,
        )

    def _mapped(self, asked: Record, succeeded: bool, conversion: _Conversion | None) -> None:
        start, end, to_shared, _ = asked.args
        pc, stack = _place(asked)
        of = conversion or _Conversion(0, 0, bool(to_shared), start, pc, stack, asked.cpu)
        pages = _pages_in(of, start, end)
        self._spend(len(pages))
        judged = bool(to_shared) and succeeded and not of.void
        dirty = list(_dirty_runs(of, pages)) if judged else []
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
        if succeeded:
            self._own(of, pages, bool(to_shared))
        if judged:
            self._stale(of, pages)

    def _own(self, of: _Conversion, pages: range, to_shared: bool) -> None:
        first = of.gpa // PAGE_BYTES
        converted = range(first + pages.start, first + pages.stop)
        (self._shared.update if to_shared else self._shared.difference_update)(converted)

    def _converted(self, task: int) -> None:
        """Behind a conversion to private the memory is used again: that is its commit."""
        conversion = self._open.pop(task, None)
        if conversion and conversion.mapped and not conversion.to_shared:
            self._stale(conversion, range(conversion.pages))

    def _stale(self, conversion: _Conversion, pages: range) -> None:
        if conversion.changed is None:
            return
        for cpu in self._cpus:
            if cpu in conversion.emptied:
                continue
            self._spend(len(pages))
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
        flushed = conversion.flushed.get(page, 0)
        if not flushed:
            yield conversion.gpa + page * PAGE_BYTES, _LINES
            continue
        for first, count in _runs(line for line in range(_LINES) if not flushed >> line & 1):
            yield conversion.gpa + page * PAGE_BYTES + first * LINE_BYTES, count


def _mask(count: int) -> int:
    """The first lines of a page, as bits; all where there are more."""
    return (1 << max(0, min(count, _LINES))) - 1


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

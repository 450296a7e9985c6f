# SPDX-License-Identifier: GPL-2.0-or-later
"""What the stub must tell, by the plainest model of its rules: sets of lines, and who owes what.

A sequence is a list of steps `(letter, vcpu, *numbers)`, on a few pages that two mappings show:
mapping 0 is global, mapping 1 is not; both begin private, as the pages do, on vCPUs that all run.

    S, L  mapping page offset bytes   store, load
    F, W  mapping page line           CLFLUSH, CLWB
    B                                 WBINVD
    P     mapping page shared         store the page's entry, with this shared bit
    N     mapping page                take the page's entry away: what touches it faults
    I     mapping page                INVLPG
    C, G                              MOV to CR3, the CR4.PGE pair
    M     page pages shared           MapGPA
    H, R                              HLT with interrupts off; INIT, SIPI, and up again
    A     page level                  MEM.PAGE.ACCEPT; level 1 is the 2 MiB that page 0 begins
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from harness.events import Event, Flag, Kind

Step = tuple[str | int, ...]
Fact = tuple[str | int, ...]

VCPUS, PAGES = 2, 3
PAGE, LINE, LARGE = 4096, 64, 2 << 20
ALREADY, MISMATCH, WALK_FAILED = 0x00000B0A << 32, 0xC0000B0B << 32, 0xC0000B00 << 32 | 1
PRIVATE, SHARED, PENDING = 0, 1, 2
STEPS = {
    "S": "store", "L": "load", "F": "clflush", "W": "clwb", "B": "wbinvd", "P": "set_entry",
    "I": "invlpg", "C": "write_cr3", "G": "flush_global", "M": "map_gpa", "A": "accept",
    "N": "unmap", "H": "halt", "R": "restart",
}  # fmt: skip
_NONE = Flag(0)


@dataclass
class Debt:
    """A mapping changed, and these vCPUs have not invalidated it since."""

    mapping: int
    page: int
    shared: bool
    owing: set[int]
    used: set[int] = field(default_factory=set)
    judged: bool = False


@dataclass
class Away:
    """A mapping that was taken away, and who may hold it still."""

    owing: set[int]
    judged: bool = False


class Reference:
    """The state, and the facts that the steps so far gave."""

    def __init__(self) -> None:
        self.owner = [PRIVATE] * PAGES
        self.said: list[set[str]] = [set() for _ in range(PAGES)]
        self.mapped_shared = {(mapping, page): False for mapping in (0, 1) for page in range(PAGES)}
        self.dirty: set[tuple[bool, int, int]] = set()  # by key, page, line
        self.flushed: set[tuple[int, int]] = set()
        self.again = [0] * PAGES
        self.debts: list[Debt] = []
        self.away: dict[tuple[int, int], Away] = {}  # oldest first
        self.running = set(range(VCPUS))
        self.facts: list[Fact] = []

    def run(self, steps: Iterable[Step]) -> list[Fact]:
        """The facts of a whole sequence."""
        for letter, vcpu, *numbers in steps:
            getattr(self, STEPS[str(letter)])(vcpu, *numbers)
        return self.facts

    def store(self, vcpu: int, mapping: int, page: int, offset: int, size: int) -> None:
        at = page * PAGE + offset
        if self.faults(mapping, page, offset + size):
            return
        for line in sorted({byte // LINE for byte in range(at, at + size)}):
            in_page = line * LINE // PAGE
            self.dirty.add((self.mapped_shared[mapping, in_page], in_page, line % (PAGE // LINE)))
            self.access(vcpu, mapping, in_page, Flag.WRITE)

    def load(self, vcpu: int, mapping: int, page: int, offset: int, size: int) -> None:
        first, last = page, page + (offset + size - 1) // PAGE
        if self.faults(mapping, page, offset + size):
            return
        for in_page in sorted({first, last}):
            self.access(vcpu, mapping, in_page, _NONE)

    def clflush(self, vcpu: int, mapping: int, page: int, line: int) -> None:
        key = (self.mapped_shared[mapping, page], page, line)
        if self.faults(mapping, page, 1):
            return
        self.access(vcpu, mapping, page, Flag.CACHE)
        if (page, line) in self.flushed and key not in self.dirty:
            self.again[page] += 1
        self.flushed.add((page, line))
        self.dirty.discard(key)

    def clwb(self, vcpu: int, mapping: int, page: int, line: int) -> None:
        if self.faults(mapping, page, 1):
            return
        self.access(vcpu, mapping, page, Flag.CACHE)
        self.dirty.discard((self.mapped_shared[mapping, page], page, line))

    def wbinvd(self, vcpu: int) -> None:
        self.dirty.clear()
        self.facts.append(("cache_all", vcpu))

    def set_entry(self, vcpu: int, mapping: int, page: int, shared: int) -> None:
        old = self.away.pop((mapping, page), Away(set(self.running)))
        if self.mapped_shared[mapping, page] == bool(shared):
            return
        self.mapped_shared[mapping, page] = bool(shared)
        self.debts.append(Debt(mapping, page, bool(shared), old.owing, judged=old.judged))
        self.facts.append(("pte_change", vcpu, mapping, page, shared))

    def unmap(self, vcpu: int, mapping: int, page: int) -> None:
        if (mapping, page) not in self.away:
            self.away[mapping, page] = Away(set(self.running))

    def invlpg(self, vcpu: int, mapping: int, page: int) -> None:
        self.invalidate(vcpu, lambda place: place == (mapping, page))

    def write_cr3(self, vcpu: int) -> None:
        self.invalidate(vcpu, lambda place: place[0] == 1)

    def flush_global(self, vcpu: int) -> None:
        self.invalidate(vcpu, lambda place: True)

    def halt(self, vcpu: int) -> None:
        self.flush_global(vcpu)
        self.running.discard(vcpu)

    def restart(self, vcpu: int) -> None:
        self.flush_global(vcpu)
        self.running.add(vcpu)

    def invalidate(self, vcpu: int, covers: Callable[[tuple[int, int]], bool]) -> None:
        """The vCPU holds no translation of these places any more."""
        for debt in self.debts:
            if covers((debt.mapping, debt.page)):
                debt.owing.discard(vcpu)
        for place, old in self.away.items():
            if covers(place):
                old.owing.discard(vcpu)

    def faults(self, mapping: int, page: int, end: int) -> bool:
        """Whether not all that is touched, up to `end` from the page's start, is mapped."""
        return bool({(mapping, page), (mapping, page + (end - 1) // PAGE)} & self.away.keys())

    def map_gpa(self, vcpu: int, page: int, pages: int, shared: int) -> None:
        converted = range(page, page + pages)
        for debt in self.debts:
            if shared and debt.shared and debt.page in converted:
                self.commit(debt)
        for (mapping, in_page), old in self.away.items() if shared else ():
            if in_page in converted and not self.mapped_shared[mapping, in_page]:
                self.commit_away(vcpu, mapping, in_page, old)
        lost = sorted((p, line) for key, p, line in self.dirty if p in converted and key != shared)
        flushed = [(p, line) for p, line in self.flushed if p in converted]
        again = sum(self.again[p] for p in converted)
        self.facts.append(("convert", vcpu, page, pages, shared, len(lost), len(flushed), again))
        self.facts += [("dirty", p, line) for p, line in lost]
        self.dirty -= {(not shared, p, line) for p, line in lost}
        self.flushed -= set(flushed)
        for p in converted:
            self.again[p] = 0
            self.said[p].clear()
            if shared:
                self.owner[p] = SHARED
            elif self.owner[p] == SHARED:
                self.owner[p] = PENDING

    def accept(self, vcpu: int, page: int, level: int) -> None:
        before = self.owner[page]
        owners = self.owner if level else [before]
        if SHARED in owners:
            status = WALK_FAILED
        elif PENDING not in owners:
            status = ALREADY | level
        elif level:
            status = MISMATCH | level  # the rest of the 2 MiB is accepted
        else:
            status = 0
            self.owner[page] = PRIVATE
        self.facts.append(("accept", vcpu, page, level, status, before))

    def access(self, vcpu: int, mapping: int, page: int, flags: Flag) -> None:
        """The access is judged by the debts on its address, then by the page's owner."""
        for debt in self.debts:
            if (debt.mapping, debt.page) == (mapping, page):
                if not debt.shared:
                    self.commit(debt)
                if vcpu in debt.owing - debt.used:
                    debt.used.add(vcpu)
                    self.stale(debt, vcpu, flags | Flag.USED)
        shared, owner = self.mapped_shared[mapping, page], self.owner[page]
        if shared and owner != SHARED:
            self.say(
                page, "shared", ("wrong_alias", vcpu, mapping, page, owner, flags | Flag.SHARED)
            )
        elif not shared and owner == SHARED:
            self.say(page, "private", ("wrong_alias", vcpu, mapping, page, owner, flags))
        elif not shared and owner == PENDING:
            self.say(page, "pending", ("unaccepted", vcpu, mapping, page, owner, flags))

    def say(self, page: int, what: str, fact: Fact) -> None:
        """Each kind is told once per page until its next conversion."""
        if what not in self.said[page]:
            self.said[page].add(what)
            self.facts.append(fact)

    def commit(self, debt: Debt) -> None:
        """From here on the old translation is wrong: tell once who may still hold it."""
        for vcpu in sorted(debt.owing if not debt.judged else ()):
            self.stale(debt, vcpu, _NONE)
        debt.judged = True

    def commit_away(self, vcpu: int, mapping: int, page: int, old: Away) -> None:
        """A private mapping that is gone is told of when its page becomes shared."""
        if old.owing and not old.judged:
            self.facts.append(("pte_change", vcpu, mapping, page, 1))
            self.commit(Debt(mapping, page, True, old.owing))
            old.judged = True

    def stale(self, debt: Debt, vcpu: int, flags: Flag) -> None:
        flags |= Flag.TO_SHARED if debt.shared else _NONE
        flags |= Flag.GLOBAL if debt.mapping == 0 else _NONE
        self.facts.append(("stale", vcpu, debt.mapping, debt.page, flags))


def shrink(sequence: list[Step], differs: Callable[[list[Step]], bool]) -> list[Step]:
    """The sequence without what it differs without: no step of the result can be left out."""
    size = len(sequence) // 2
    while size:
        at = 0
        while at < len(sequence):
            shorter = sequence[:at] + sequence[at + size :]
            if differs(shorter):
                sequence = shorter
            else:
                at += size
        size //= 2
    return sequence


def facts_of(events: Iterable[Event], *, first_gpa: int, bases: tuple[int, int]) -> Iterator[Fact]:
    """The events in the reference's words; `bases` are where the mappings show the first page."""

    def place(gva: int) -> tuple[int, int]:
        mapping = int(gva - bases[1] in range(PAGES * PAGE))
        return mapping, (gva - bases[mapping]) // PAGE

    for event in events:
        a, vcpu, shared = event.args, event.vcpu, int(Flag.TO_SHARED in event.flags)
        match event.kind:
            case Kind.CONVERT:
                page, pages = (a[0] - first_gpa) // PAGE, a[1] // PAGE
                yield ("convert", vcpu, page, pages, shared, a[3], a[4] >> 32, a[4] & 0xFFFFFFFF)
            case Kind.DIRTY_RUN:
                line = (a[0] - first_gpa) // LINE
                per_page = PAGE // LINE
                yield from (("dirty", *divmod(i, per_page)) for i in range(line, line + a[1]))
            case Kind.STALE:
                yield ("stale", vcpu, *place(a[0]), event.flags)
            case Kind.PTE_CHANGE:
                yield ("pte_change", vcpu, *place(a[0]), shared)
            case Kind.WRONG_ALIAS | Kind.UNACCEPTED:
                yield (event.kind.name.lower(), vcpu, *place(a[0]), a[2], event.flags)
            case Kind.ACCEPT:
                yield ("accept", vcpu, (a[0] - first_gpa) // PAGE, a[1], a[2], a[3])
            case Kind.CACHE_ALL:
                yield ("cache_all", vcpu)

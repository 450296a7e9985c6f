# SPDX-License-Identifier: GPL-2.0-or-later
"""Event streams made by hand, for tests of whatever reads them."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.events import (
    HEADER,
    MAGIC,
    RECORD,
    VERSION,
    Event,
    Flag,
    Kind,
    Stream,
    VmmBehaviour,
    decode,
)

PC = 0xFFFFFFFF81000010
NO_FLAG = Flag(0)


def encode_header(
    *,
    vcpus: int = 2,
    gpaw: int = 53,
    below_4g: int = 2 << 30,
    above_4g: int = 0,
    version: int = VERSION,
    magic: bytes = MAGIC,
) -> bytes:
    """The header of a stream, as the stub writes it."""
    return HEADER.pack(magic, version, RECORD.size, vcpus, gpaw, below_4g, above_4g)


def encode_record(
    seq: int, kind: int, args: Sequence[int] = (), *, vcpu: int = 0, flags: int = 0, pc: int = 0
) -> bytes:
    """One record; missing arguments are zero."""
    padded = (*args, 0, 0, 0, 0, 0)[:5]
    return RECORD.pack(seq, kind, vcpu, flags, pc, *padded)


def encode_trailer(records: bytes) -> bytes:
    """The trailer that belongs behind these records."""
    count = len(records) // RECORD.size
    return encode_record(count, Kind.TRAILER, (count, zlib.crc32(records)))


@dataclass
class StreamBuilder:
    """Collects records in order; each method returns the sequence number of what it added."""

    vcpus: int = 2
    records: list[bytes] = field(default_factory=list)

    def add(
        self,
        kind: Kind,
        *args: int,
        vcpu: int = 0,
        flags: Flag = NO_FLAG,
        pc: int = PC,
        stack: Iterable[int] = (),
    ) -> int:
        """Add a record of any kind, and its stack behind it."""
        seq = len(self.records)
        self.records.append(encode_record(seq, kind, args, vcpu=vcpu, flags=flags, pc=pc))
        words = list(stack)
        for first in range(0, len(words), 5):
            part = words[first : first + 5]
            self.records.append(encode_record(len(self.records), Kind.STACK, part, vcpu=vcpu))
        return seq

    def mark(self, kind: int, mark_id: int, *, vcpu: int = 0) -> int:
        """The begin (1) or the end (2) of a slice."""
        return self.add(Kind.MARK, kind, mark_id, vcpu=vcpu)

    def convert(
        self,
        gpa: int,
        size: int,
        *,
        to_shared: bool,
        dirty: int = 0,
        flushed: int | None = None,
        flushed_again: int = 0,
        status: int = 0,
        vcpu: int = 0,
        pc: int = PC,
        bad: bool = False,
        stack: Iterable[int] = (),
    ) -> int:
        """A MapGPA; left out, `flushed` is what a correct kernel flushes."""
        if flushed is None:
            flushed = size // 64 if to_shared else 0
        flags = (Flag.TO_SHARED if to_shared else NO_FLAG) | (Flag.BAD if bad else NO_FLAG)
        counts = flushed << 32 | flushed_again
        return self.add(
            Kind.CONVERT,
            *(gpa, size, status, dirty, counts),
            vcpu=vcpu,
            flags=flags,
            pc=pc,
            stack=stack,
        )

    def dirty_run(
        self, gpa: int, lines: int, convert: int, *, store_pc: int = 0, store_vcpu: int = 0
    ) -> int:
        """Lines in a row that conversion `convert` found dirty, from the line at `gpa` on."""
        return self.add(Kind.DIRTY_RUN, gpa, lines, store_pc, store_vcpu, convert, pc=0)

    def pte_change(
        self,
        gva: int,
        gpa: int,
        *,
        to_shared: bool,
        size: int = 4096,
        vcpu: int = 0,
        away: bool = False,
    ) -> int:
        """The shared bit of a kernel leaf PTE flipped; `away`: it was not present in between."""
        private, shared = gpa | 0x163, gpa | 0x163 | 1 << 52
        old, new = (private, shared) if to_shared else (shared, private)
        flags = Flag.GLOBAL | (Flag.TO_SHARED if to_shared else NO_FLAG)
        flags |= Flag.AWAY if away else NO_FLAG
        return self.add(Kind.PTE_CHANGE, gva, gpa, old, new, size, vcpu=vcpu, flags=flags, pc=0)

    def stale(
        self,
        gva: int,
        gpa: int,
        change: int,
        *,
        to_shared: bool,
        vcpu: int,
        used: bool = False,
        size: int = 4096,
        pc: int = PC,
    ) -> int:
        """`vcpu` owed the invalidation of `change`, or used the old translation."""
        flags = (Flag.TO_SHARED if to_shared else NO_FLAG) | (Flag.USED if used else NO_FLAG)
        return self.add(Kind.STALE, gva, gpa, size, change, vcpu=vcpu, flags=flags, pc=pc)

    def wrong_alias(
        self,
        gva: int,
        gpa: int,
        *,
        through_shared: bool,
        state: int = 0,
        vcpu: int = 0,
        pc: int = PC,
    ) -> int:
        """An access whose mapping disagrees with the page's owner."""
        flags = Flag.SHARED if through_shared else NO_FLAG
        return self.add(Kind.WRONG_ALIAS, gva, gpa, state, vcpu=vcpu, flags=flags, pc=pc)

    def accept(
        self,
        gpa: int,
        *,
        level: int = 0,
        status: int = 0,
        state: int = 2,
        bad: bool = False,
        vcpu: int = 0,
    ) -> int:
        """A TDG.MEM.PAGE.ACCEPT; `state` is the page's before."""
        flags = Flag.BAD if bad else NO_FLAG
        return self.add(Kind.ACCEPT, gpa, level, status, state, vcpu=vcpu, flags=flags)

    def vmm(
        self,
        behaviour: VmmBehaviour,
        gpa: int,
        size: int,
        *,
        to_shared: bool,
        done: int = 0,
        r10: int = 0,
        r11: int = 0,
        vcpu: int = 0,
        pc: int = PC,
        stack: Iterable[int] = (),
    ) -> int:
        """A MapGPA that the VMM answered wrongly, and the conversion of the `done` bytes."""
        flags = Flag.TO_SHARED if to_shared else NO_FLAG
        seq = self.add(
            Kind.VMM,
            *(done // 4096 << 32 | behaviour, gpa, size, r10, r11),
            vcpu=vcpu,
            flags=flags,
            pc=pc,
            stack=stack,
        )
        if done:
            self.convert(gpa, done, to_shared=to_shared, vcpu=vcpu, pc=pc, stack=stack)
        return seq

    def encode(self, *, trailer: bool = True) -> bytes:
        """The stream as a file holds it."""
        records = b"".join(self.records)
        return (
            encode_header(vcpus=self.vcpus)
            + records
            + (encode_trailer(records) if trailer else b"")
        )

    def decode(self) -> Stream:
        """The stream as a reader sees it."""
        return decode(self.encode())

    @property
    def events(self) -> tuple[Event, ...]:
        """The decoded events."""
        return self.decode().events

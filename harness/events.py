# SPDX-License-Identifier: GPL-2.0-or-later
"""The stub's event stream: schema, decoder, and the proof that a stream is whole.

The schema is `harness/stub/plugin/events.h`; a unit test compiles that header and compares.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from harness.errors import EvidenceError

MAGIC = b"TDHEVENT"
VERSION = 1
HEADER = struct.Struct("<8sIIIIQQ24x")
RECORD = struct.Struct("<QHHIQ5Q")
LINE_BYTES = 64
PAGE_BYTES = 4096


class Kind(IntEnum):
    """Kinds of records; the arguments of each are listed in events.h."""

    MARK = 1
    TDCALL = 2
    VMCALL = 3
    CONVERT = 4
    DIRTY_RUN = 5
    STALE = 6
    PTE_CHANGE = 7
    WRONG_ALIAS = 8
    UNACCEPTED = 9
    ACCEPT = 10
    STACK = 11
    CACHE_ALL = 12
    COUNTER = 13
    FAULT = 14
    VMM = 15
    POISON = 16
    POISON_READ = 17
    DISOWNED = 20
    TRAILER = 0xFFFF


class Flag(IntFlag):
    """Flags of records; which kinds carry them is said in events.h."""

    TO_SHARED = 1 << 0
    BAD = 1 << 1
    UNKNOWN = 1 << 2
    SHARED = 1 << 3
    WRITE = 1 << 4
    CACHE = 1 << 5
    USED = 1 << 6
    GLOBAL = 1 << 7
    AWAY = 1 << 8


class Counter(IntEnum):
    """Counters written at the end of a stream."""

    CLFLUSH = 1
    INVLPG = 2
    FLUSH_NONGLOBAL = 3
    FLUSH_ALL = 4
    HLT = 5
    WALK = 6
    VMCALL_IO = 7
    PT_STORE = 8


class PageState(IntFlag):
    """State of a page as carried by WRONG_ALIAS, UNACCEPTED and ACCEPT; 0 is private, accepted."""

    SHARED = 1 << 0
    PENDING = 1 << 1


class VmmBehaviour(IntEnum):
    """What the VMM did wrong at a MapGPA, in the low half of a VMM's first argument."""

    # R10 was RETRY: at what was not converted yet, at the call's own address, below the range,
    # behind it
    RETRY = 1
    STUCK = 2
    BELOW = 3
    ABOVE = 4
    ERROR = 5
    # success for a part of the range, a late success
    SHORT = 6
    SLOW = 7
    # no flush: of cache lines of the shared key, of guest-physical mappings
    CACHE = 8
    EPT = 9


class PoisonAction(IntEnum):
    """What came of a read of poisoned memory."""

    TD_DEAD = 0
    GUEST_MCE = 1
    HOST_CRASH = 2


@dataclass(frozen=True, slots=True)
class Header:
    """What the stub knew at its start; sizes in bytes."""

    vcpus: int
    gpaw: int
    ram_below_4g: int
    ram_above_4g: int


@dataclass(frozen=True, slots=True)
class Event:
    """One record, with the stack candidates of the STACK records that followed it."""

    seq: int
    kind: Kind
    vcpu: int
    flags: Flag
    pc: int
    args: tuple[int, int, int, int, int]
    stack: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """A decoded stream; `complete` is true only if the trailer was there and agreed."""

    header: Header
    events: tuple[Event, ...]
    complete: bool


def _decode_header(data: bytes) -> Header:
    if len(data) < HEADER.size:
        raise EvidenceError(f"the event stream is {len(data)} bytes, shorter than its header")
    magic, version, record_size, vcpus, gpaw, below, above = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise EvidenceError(f"this is no event stream: it begins with {magic!r}")
    if version != VERSION or record_size != RECORD.size:
        raise EvidenceError(
            f"event schema {version} with {record_size}-byte records, this harness reads "
            f"schema {VERSION} with {RECORD.size}",
            hint="judge the run with the version of the harness that made it",
        )
    return Header(vcpus, gpaw, below, above)


def _records(data: bytes) -> Iterator[tuple[int, Event]]:
    """Yield (offset, event) for every whole record; raise on a broken one."""
    for offset in range(HEADER.size, len(data) - RECORD.size + 1, RECORD.size):
        seq, kind, vcpu, flags, pc, *args = RECORD.unpack_from(data, offset)
        index = (offset - HEADER.size) // RECORD.size
        if seq != index:
            raise EvidenceError(f"event record {index} carries sequence number {seq}")
        try:
            known = Kind(kind)
        except ValueError as error:
            raise EvidenceError(f"event record {index} has unknown kind {kind}") from error
        a0, a1, a2, a3, a4 = args
        yield offset, Event(seq, known, vcpu, Flag(flags), pc, (a0, a1, a2, a3, a4))


def decode(data: bytes) -> Stream:
    """Decode a stream, whole or still growing.

    A missing trailer gives `complete=False`; whether that may be judged is the caller's question.
    Raises EvidenceError for a wrong header, a record out of order, or a trailer that disagrees.
    """
    header = _decode_header(data)
    events: list[Event] = []
    stacks: dict[int, list[int]] = {}
    for offset, event in _records(data):
        if event.kind is Kind.TRAILER:
            crc = zlib.crc32(data[HEADER.size : offset])
            if event.args[0] != event.seq or event.args[1] != crc:
                raise EvidenceError("the event stream's trailer disagrees with its records")
            if len(data) != offset + RECORD.size:
                raise EvidenceError("the event stream goes on behind its trailer")
            return Stream(header, _with_stacks(events, stacks), True)
        if event.kind is Kind.STACK:
            stacks.setdefault(len(events) - 1, []).extend(word for word in event.args if word)
        else:
            events.append(event)
    return Stream(header, _with_stacks(events, stacks), False)


def _with_stacks(events: list[Event], stacks: dict[int, list[int]]) -> tuple[Event, ...]:
    for index, words in stacks.items():
        if index < 0:
            raise EvidenceError("the event stream begins with a stack that belongs to nothing")
        e = events[index]
        events[index] = Event(e.seq, e.kind, e.vcpu, e.flags, e.pc, e.args, tuple(words))
    return tuple(events)


def slice_between(stream: Stream, mark_id: int) -> tuple[Event, ...]:
    """The events between MARK begin and MARK end of `mark_id`, both marks included.

    Raises EvidenceError unless both marks are there, in order.
    """
    begin = end = None
    for position, event in enumerate(stream.events):
        if event.kind is Kind.MARK and event.args[1] == mark_id:
            if event.args[0] == 1:
                begin = position
            elif event.args[0] == 2:
                end = position
    if begin is None or end is None or end < begin:
        raise EvidenceError(f"the event stream does not hold both marks of slice {mark_id:#x}")
    return stream.events[begin : end + 1]


_ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    Kind.MARK: ("mark", "id"),
    Kind.TDCALL: ("leaf", "rcx", "rdx", "r8", "status"),
    Kind.VMCALL: ("r11", "r12", "r13", "r10_out", "r11_out"),
    Kind.CONVERT: ("gpa", "bytes", "r10_out", "dirty", "flushed"),
    Kind.DIRTY_RUN: ("gpa", "lines", "store_pc", "store_vcpu", "convert_seq"),
    Kind.STALE: ("gva", "gpa", "bytes", "pte_change_seq"),
    Kind.PTE_CHANGE: ("gva", "gpa", "old_pte", "new_pte", "bytes"),
    Kind.WRONG_ALIAS: ("gva", "gpa", "page_state"),
    Kind.UNACCEPTED: ("gva", "gpa", "page_state"),
    Kind.ACCEPT: ("gpa", "level", "status", "page_state"),
    Kind.CACHE_ALL: ("opcode",),
    Kind.COUNTER: ("counter", "value"),
    Kind.FAULT: ("fault", "gpa", "bytes", "lines_or_vcpus", "convert_seq"),
    Kind.VMM: ("pages_and_behaviour", "gpa", "bytes", "r10_out", "r11_out"),
    Kind.POISON: ("gpa", "lines", "convert_seq"),
    Kind.POISON_READ: ("gva", "gpa", "action", "convert_seq"),
    Kind.DISOWNED: ("gva", "gpa", "page_state", "vmm_seq"),
}


def _flag_names(event: Event) -> list[str]:
    return [flag.name.lower() for flag in Flag if flag in event.flags and flag.name]


def to_text(event: Event) -> str:
    """One line for people."""
    names = _ARGUMENTS.get(event.kind, ())
    words = [f"{name}={value:#x}" for name, value in zip(names, event.args, strict=False)]
    flags = ",".join(_flag_names(event))
    head = f"{event.seq:8} vcpu{event.vcpu} {event.kind.name.lower():12} pc={event.pc:#x}"
    return " ".join([head, *words, *([f"[{flags}]"] if flags else [])])


def to_json_line(event: Event) -> str:
    """One JSON object, on one line."""
    names = _ARGUMENTS.get(event.kind, ())
    return json.dumps(
        {
            "seq": event.seq,
            "kind": event.kind.name.lower(),
            "vcpu": event.vcpu,
            "pc": event.pc,
            "flags": _flag_names(event),
            **dict(zip(names, event.args, strict=False)),
            "stack": list(event.stack),
        }
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace that a guest's own module makes of conversions, line by line.

A line of `guest-images/module/trace.c` is a number, which orders what all CPUs did, the CPU, the
task, a word and four arguments. Before them stand the answers of the module to the commands that
put its probes: `probe=WORD at=PLACE error=ERRNO` each, and `cpus=LIST`. With them a trace begins
anew, for a second kernel in the TD has one of its own. All of it comes from the guest: a line of
any other form makes the trace broken, and what is wrong in it is never shown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import EvidenceError

MOST_CPUS = 64
_RECORD = re.compile(
    r"([0-9a-f]{1,16}) (\d{1,4}) ([0-9a-f]{1,16}) ([a-z-]{1,20})"
    r" ([0-9a-f]{1,16}) ([0-9a-f]{1,16}) ([0-9a-f]{1,16}) ([0-9a-f]{1,16})",
    re.ASCII,
)
_PROBE = re.compile(r"probe=([a-z-]{1,20}) at=([\w.+]{1,100}) error=(-?\d{1,5})", re.ASCII)
_CPUS = re.compile(r"cpus=([\d,-]{1,100})", re.ASCII)


class Word(StrEnum):
    """What a record is of, and its arguments."""

    # mark (1 begin, 2 end), id
    MARK = "mark"
    # __set_memory_enc_pgtable(): address, pages, 1 to shared, gpa of the first page
    CONVERT = "convert"
    # its result
    CONVERTED = "converted"
    # __change_page_attr_set_clr(), which calls itself
    CHANGE = "change"
    # result of __change_page_attr_set_clr(): the page table entries have changed
    CHANGED = "changed"
    # tdx_map_gpa(): start, end, 1 to shared
    MAP = "map"
    # 1 when it succeeded
    MAPPED = "mapped"
    # try_accept_one(): start, bytes left, level (1: 4 KiB, 2: 2 MiB, 3: 1 GiB)
    ACCEPT = "accept"
    # bytes accepted, 0 when it failed
    ACCEPTED = "accepted"
    # flush_tlb_one_kernel(): address
    INVALIDATE = "invalidate"
    # native_flush_tlb_global()
    INVALIDATE_ALL = "invalidate-all"
    # CLFLUSH: address, bytes
    LINES = "lines"
    # up to four words of the stack, of the record before it
    STACK = "stack"
    # records that found no room
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Record:
    """One line, with its stack."""

    number: int
    cpu: int
    task: int
    word: Word
    args: tuple[int, int, int, int]
    stack: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """The trace of one kernel."""

    cpus: tuple[int, ...]
    # the words that there are probes for, each with its places
    probes: tuple[tuple[str, str], ...]
    records: tuple[Record, ...]


def sections(text: str) -> tuple[Section, ...]:
    """A trace, kernel by kernel. Raises EvidenceError for a line of another form."""
    found: list[Section] = []
    probes: list[tuple[str, str]] = []
    cpus: tuple[int, ...] = ()
    records: list[Record] = []

    def end() -> None:
        if cpus:
            found.append(Section(cpus, tuple(probes), tuple(_with_stacks(records))))

    for number, line in enumerate(text.splitlines(), 1):
        if match := _RECORD.fullmatch(line):
            records.append(_record(match, number))
        elif match := _PROBE.fullmatch(line):
            if cpus:
                end()
                probes, cpus, records = [], (), []
            probes += [(match[1], match[2])] if match[3] == "0" else []
        elif match := _CPUS.fullmatch(line):
            cpus = _cpus(match[1], number)
        elif line:
            raise EvidenceError(f"line {number} of the guest's trace is no record")
    end()
    return tuple(found)


def _record(match: re.Match[str], number: int) -> Record:
    try:
        word = Word(match[4])
    except ValueError:
        raise EvidenceError(f"line {number} of the guest's trace has an unknown word") from None
    cpu = int(match[2])
    if cpu >= MOST_CPUS:
        raise EvidenceError(f"line {number} of the guest's trace is of CPU {cpu}")
    a, b, c, d = (int(match[group], 16) for group in range(5, 9))
    return Record(int(match[1], 16), cpu, int(match[3], 16), word, (a, b, c, d))


def _with_stacks(records: list[Record]) -> Iterator[Record]:
    """Records in their order, with the stack records that follow each; none stands alone."""
    last: Record | None = None
    words: list[int] = []
    before = -1
    for record in records:
        if record.number <= before and record.word is not Word.LOST:
            raise EvidenceError(f"record {record.number} of the guest's trace is out of order")
        # What tells of lost records has the number of the one that comes next.
        before = record.number - (record.word is Word.LOST)
        if record.word is Word.STACK:
            words += [word for word in record.args if word]
            continue
        if last:
            yield _with_stack(last, words)
        last, words = record, []
    if last:
        yield _with_stack(last, words)


def _with_stack(record: Record, words: list[int]) -> Record:
    if not words:
        return record
    return Record(record.number, record.cpu, record.task, record.word, record.args, tuple(words))


def _cpus(text: str, number: int) -> tuple[int, ...]:
    """`0-1,3` as the kernel prints a mask of CPUs."""
    found: list[int] = []
    for part in text.split(","):
        first, is_range, last = part.partition("-")
        last = last if is_range else first
        numbers = first.isdigit() and last.isdigit()
        if not numbers or not int(first) <= int(last) < MOST_CPUS:
            raise EvidenceError(f"line {number} of the guest's trace is no list of CPUs")
        found += range(int(first), int(last) + 1)
    return tuple(found)

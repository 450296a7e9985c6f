# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine checks in what a kernel printed: records, and what the kernel said around them.

The forms are those of arch/x86/kernel/cpu/mce/core.c (__print_mce, mce_panic), mm/memory-failure.c,
drivers/edac/edac_mc.c and KVM's vp_enter error; the same since 3.x but for fields at line ends.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.hostmce.record import MceRecord, Source, valid_address, valid_misc
from harness.kernellog_lines import Neighbours, kernel_lines, shape_of, without_control
from harness.text import printable

MOST_RECORDS = 10_000
# Kinds of lines beside the records; further ones would tell nothing new.
MOST_NOTES = 200
_MOST_SAID = 4
_HARDWARE = r"(?:mce: )?(?:\[Hardware Error\]: )"
_HEAD = re.compile(
    _HARDWARE + r"CPU (\d{1,6}): Machine Check(?: Exception)?: "
    r"([0-9a-f]{1,16}) Bank (\d{1,3}): ([0-9a-f]{1,16})\b",
    re.I,
)
_RIP = re.compile(_HARDWARE + r"RIP(?: !INEXACT!)? [0-9a-f]{2}:<([0-9a-f]{8,16})>\s*(?:\{(.*?)\})?")
_AUX = re.compile(_HARDWARE + r"TSC ([0-9a-f]{1,16})\b((?: [A-Z]{4} [0-9a-f]{1,16})*)")
_PAIR = re.compile(r" ([A-Z]{4}) ([0-9a-f]{1,16})")
_PROCESSOR = re.compile(
    _HARDWARE + r"PROCESSOR \d{1,3}:([0-9a-f]{1,8}) TIME (\d{1,12}) SOCKET (\d{1,6}) "
    r"APIC ([0-9a-f]{1,8})(?: microcode ([0-9a-f]{1,8}))?"
)
_SAID = re.compile(_HARDWARE + r"Machine check: (.+)")
_LOGGED = re.compile(_HARDWARE + r"Machine check events logged")
_PANIC = re.compile(r"Kernel panic - not syncing: (.*)")
# Beside the records: what else a host says when its memory or a TD is at fault.
_NOTES = re.compile(
    r"Memory failure: 0x[0-9a-f]+: |mce: Uncorrected hardware memory error|"
    r"EDAC MC\d+: \d+ [CU]E |kvm\b.{0,40}TD vp_enter_ret|"
    r"(?:mce: )?CPU\d+ BANK\d+ CMCI storm|mce: CMCI storm|"
    r"\{\d+\}\[Hardware Error\]: Hardware error from APEI|"
    r"mce: CPU#?\d+: Unexpected|mce: CPUs not responding to MCE broadcast|"
    r"Kernel panic - not syncing: "
)
# One look tells a line that matters.
WORDS = (
    "Hardware Error",
    "Machine check",
    "Memory failure",
    "mce: ",
    "EDAC MC",
    "CMCI storm",
    "TD vp_enter_ret",
    "Kernel panic",
)
_INTERESTING = re.compile("|".join(WORDS))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a kernel without its stamp; `caller` is a task or CPU, "" where not known."""

    text: str
    number: int | None = None
    caller: str = ""
    uptime_s: float | None = None


@dataclass(slots=True)
class KernelTold:
    """What a kernel's log tells of machine checks."""

    records: list[MceRecord] = field(default_factory=list)
    # lines beside the records that matter, and how many times each came
    notes: dict[str, int] = field(default_factory=dict)
    # records beyond what is kept
    left_out: int = 0
    # "Machine check events logged": the records may have gone elsewhere
    logged: int = 0
    # what it panicked with; "" when it did not
    panic: str = ""

    def note_lines(self) -> tuple[str, ...]:
        """The notes, alike ones once."""
        return tuple(
            note if times == 1 else f"{note} ({times:,} times)"
            for note, times in self.notes.items()
        )


class Reader:
    """Takes the lines of one log in their order; what it holds is bounded however long that is."""

    def __init__(self, source: Source, boot_id: str = "") -> None:
        self._source = source
        self._boot_id = boot_id
        self.told = KernelTold()
        # the latest record of each caller, by its place
        self._latest: dict[str, int] = {}

    def feed(self, line: Line) -> None:
        """Read one line."""
        if not _INTERESTING.search(line.text):
            return
        if head := _HEAD.match(line.text):
            self._begin(line, head)
        elif line.caller in self._latest and self._more(self._latest[line.caller], line.text):
            return
        elif _LOGGED.match(line.text):
            self.told.logged += 1
        elif _NOTES.match(line.text):
            self._note(line.text)

    def _begin(self, line: Line, head: re.Match[str]) -> None:
        if len(self.told.records) == MOST_RECORDS:
            self.told.left_out += 1
            self._latest.pop(line.caller, None)
            return
        status = int(head[4], 16)
        self._latest[line.caller] = len(self.told.records)
        self.told.records.append(
            MceRecord(
                bank=int(head[3]),
                status=status,
                mcgstatus=int(head[2], 16),
                cpu=int(head[1]),
                addr=valid_address(status, None),
                misc=valid_misc(status, None),
                uptime_s=line.uptime_s,
                boot_id=self._boot_id,
                sources=(self._source,),
                line=line.number,
            )
        )

    def _more(self, place: int, text: str) -> bool:
        """Whether the line says more about this record."""
        record = self.told.records[place]
        if aux := _AUX.match(text):
            record = _with_aux(record, aux)
        elif rip := _RIP.match(text):
            symbol = printable(rip[2] or "", 200)
            record = dataclasses.replace(record, ip=int(rip[1], 16), symbol=symbol)
        elif processor := _PROCESSOR.match(text):
            cpuid, time_s, socket, apicid, microcode = processor.groups()
            record = dataclasses.replace(
                record,
                cpuid=int(cpuid, 16),
                time_s=int(time_s),
                socket=int(socket),
                apicid=int(apicid, 16),
                microcode=int(microcode, 16) if microcode else None,
            )
        elif said := _SAID.match(text):
            if len(record.said) == _MOST_SAID:
                return True
            record = dataclasses.replace(record, said=(*record.said, printable(said[1].strip())))
        else:
            return False
        self.told.records[place] = record
        return True

    def _note(self, text: str) -> None:
        panic = _PANIC.match(text)
        if panic and not self.told.panic:
            self.told.panic = printable(panic[1].strip())
        note = printable(text.strip())
        if note not in self.told.notes:
            if len(self.told.notes) == MOST_NOTES:
                return
            self.told.notes[note] = 0
        self.told.notes[note] += 1


def _with_aux(record: MceRecord, aux: re.Match[str]) -> MceRecord:
    pairs = {name: int(value, 16) for name, value in _PAIR.findall(aux[2])}
    return dataclasses.replace(
        record,
        tsc=int(aux[1], 16),
        ppin=pairs.get("PPIN"),
        addr=valid_address(record.status, pairs.get("ADDR")),
        misc=valid_misc(record.status, pairs.get("MISC")),
    )


def read_lines(lines: Iterable[Line], source: Source, boot_id: str = "") -> KernelTold:
    """All that the lines tell."""
    reader = Reader(source, boot_id)
    for line in lines:
        reader.feed(line)
    return reader.told


def read_log(log: bytes, source: Source, boot_id: str = "") -> KernelTold:
    """What a kernel's own log, or a console, tells; what users print counts for nothing."""
    return read_lines(stamped_lines(log), source, boot_id)


def stamped_lines(log: bytes) -> Iterator[Line]:
    """A console's lines that are of the kernel's shape and matter here."""
    log = without_control(log)
    shape = shape_of(log)
    neighbours = Neighbours(log, shape)
    number, counted = 1, 0
    for line in kernel_lines(log, shape):
        if not _INTERESTING.search(line.text):
            continue
        if not neighbours.genuine(line.start, line.time_s or 0.0):
            continue
        number += log.count(b"\n", counted, line.start)
        counted = line.start
        yield Line(line.text, number, line.caller, line.time_s)


_PASTED = re.compile(r"(?:mce: )?\[Hardware Error\]: |CPU \d{1,6}: Machine Check|" + _NOTES.pattern)
_BARE_HEAD = re.compile(r"CPU \d{1,6}: Machine Check", re.I)


def pasted_lines(texts: Iterable[str]) -> Iterator[Line]:
    """Lines of any log or mail: whatever stands before the kernel's own words is dropped."""
    for number, text in enumerate(texts, 1):
        found = _PASTED.search(text)
        if found:
            words = text[found.start() :].rstrip("\r\n")
            yield Line(("[Hardware Error]: " if _BARE_HEAD.match(words) else "") + words, number)

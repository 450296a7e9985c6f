# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine check record, whatever told of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from harness.errors import EvidenceError
from harness.hostmce import codes
from harness.hostmce.status import Grade, Mcg, Status, describe, grade
from harness.text import printable

# Physical address bits of a host that runs TDs, less those that KeyIDs take: ADDR holds the KeyID
# above them. The kernel prints the number in /proc/cpuinfo.
PHYS_BITS = 46
_PAGE_BYTES = 4096
_U64 = (1 << 64) - 1
# What arch/x86/virt/vmx/tdx/tdx.c:tdx_dump_mce_info() adds when the address is a TD's.
TDX_WORDS = "TDX private memory error"


class Source(StrEnum):
    """Who told of a record; declared most trusted first."""

    KERNEL_LOG = "kernel log"
    TRACE = "trace event"
    RASDAEMON = "rasdaemon"
    MCELOG = "mcelog"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class MceRecord:
    """One bank of one CPU at one time. None: the source does not say, or the bank did not hold it.

    Registers are unsigned. Times are of the host's clocks, which nothing is compared with.
    """

    bank: int
    status: int
    mcgstatus: int = 0
    cpu: int | None = None
    addr: int | None = None
    misc: int | None = None
    mcgcap: int | None = None
    # of the time stamp counter; 0 for banks that were polled without it
    tsc: int | None = None
    # the clock on the wall, Unix, and time since boot, as the source has it
    time_s: int | None = None
    uptime_s: float | None = None
    socket: int | None = None
    apicid: int | None = None
    # leaf 1, EAX
    cpuid: int | None = None
    microcode: int | None = None
    ppin: int | None = None
    # of the instruction, with its symbol where the kernel gave one
    ip: int | None = None
    symbol: str = ""
    boot_id: str = ""
    sources: tuple[Source, ...] = ()
    # what the kernel itself said of it: "Data load error in SEAM non-root mode"
    said: tuple[str, ...] = ()
    # number of the line in its log, from 1
    line: int | None = None
    # how many alike were folded into this one (harness.hostmce.merge.fold)
    count: int = 1

    @property
    def grade(self) -> Grade:
        """The SDM's class."""
        return grade(self.status, self.mcgstatus, self.mcgcap)

    @property
    def meaning(self) -> tuple[str, ...]:
        """The registers in short phrases."""
        return describe(self.status, self.mcgstatus, bank=self.bank, cpuid=self.cpuid or 0)

    @property
    def overflowed(self) -> bool:
        """Whether further errors of this bank were lost."""
        return bool(self.status & Status.OVER)

    def of_tdx(self) -> bool:
        """Whether the hardware or the kernel ties it to a TD."""
        return (
            bool(self.mcgstatus & Mcg.SEAM_NR)
            or codes.of_tdx(self.status, self.bank, self.cpuid or 0)
            or any(TDX_WORDS in words for words in self.said)
        )

    def address(self, phys_bits: int = PHYS_BITS) -> tuple[int, int] | None:
        """KeyID and physical address, without the low bits that MISC calls meaningless."""
        if self.addr is None:
            return None
        key_id, address = split_address(self.addr, phys_bits)
        return key_id, address >> self.granularity << self.granularity

    @property
    def granularity(self) -> int:
        """How many low bits of the address mean nothing (MISC, bits 5:0)."""
        if self.misc is None or not self.status & Status.MISCV:
            return 0
        return self.misc & 0x3F

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, with what the registers mean; `from_json` reads it."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["sources"] = [source.value for source in self.sources]
        data["said"] = list(self.said)
        return {
            **{key: value for key, value in data.items() if value not in (None, "", [])},
            "grade": self.grade.value,
            "meaning": list(self.meaning),
        }


def split_address(address: int, phys_bits: int = PHYS_BITS) -> tuple[int, int]:
    """KeyID and physical address out of MCi_ADDR."""
    return address >> phys_bits, address & ((1 << phys_bits) - 1)


def valid_address(status: int, addr: int | None) -> int | None:
    """`addr` if the bank says that it holds one.

    A source that prints none, or a zero where nothing was read, tells the same then.
    """
    return (addr or 0) if status & Status.ADDRV else None


def valid_misc(status: int, misc: int | None) -> int | None:
    """The same of `misc`."""
    return (misc or 0) if status & Status.MISCV else None


_INTEGERS = (
    "bank", "status", "mcgstatus", "cpu", "addr", "misc", "mcgcap", "tsc", "time_s", "socket",
    "apicid", "cpuid", "microcode", "ppin", "ip", "line", "count",
)  # fmt: skip


def from_json(data: object) -> MceRecord:
    """A record as `to_json` made it. Raises EvidenceError for anything else."""
    if not isinstance(data, Mapping):
        raise EvidenceError("a machine check record is no JSON object")
    try:
        numbers = {name: _integer(data[name]) for name in _INTEGERS if data.get(name) is not None}
        uptime = data.get("uptime_s")
        return MceRecord(
            **numbers,
            uptime_s=None if uptime is None else float(uptime),
            symbol=printable(str(data.get("symbol", "")), 200),
            boot_id=printable(str(data.get("boot_id", "")), 64),
            sources=tuple(Source(word) for word in data.get("sources", ())),
            said=tuple(printable(str(word)) for word in data.get("said", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"a machine check record has another form: {error!r}") from error


def _integer(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= _U64:
        raise ValueError("a register holds 64 bits")
    return value


def page_of(address: int) -> int:
    """The 4 KiB page that holds the address."""
    return address // _PAGE_BYTES * _PAGE_BYTES

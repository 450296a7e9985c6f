# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces of a guest's conversions made by hand, for tests of whatever reads them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

DIRECT_MAP = 0xFF11000000000000
PAGE, LINE = 4096, 64
# What the kernel's code holds on the stack of a conversion, innermost first.
STACK = (0xFFFFFFFF81000010, 0xFFFFFFFF81000210, 0xFFFFFFFF81000310)
# One probe for each word, where the kernels that were looked at have it.
PLACES = MappingProxyType(
    {
        "convert": "__set_memory_enc_pgtable+9",
        "converted": "__set_memory_enc_dec+72",
        "change": "__change_page_attr_set_clr+5",
        "changed": "__set_memory_enc_pgtable+336",
        "map": "tdx_map_gpa+9",
        "mapped": "tdx_enc_status_changed+56",
        "accept": "try_accept_one+9",
        "accepted": "tdx_accept_memory+114",
        "invalidate": "flush_tlb_one_kernel+9",
        "invalidate-all": "native_flush_tlb_global+9",
        "lines": "cpa_flush+388",
    }
)


def answers(*, without: Collection[str] = (), cpus: str = "0-1") -> str:
    """What the module said to the commands that put its probes; those `without` were refused."""
    probes = (
        f"probe={word} at={place} error={-2 if word in without else 0}\n"
        for word, place in PLACES.items()
    )
    return f"{''.join(probes)}cpus={cpus}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Memory that a task converts, and the CPU on which it does."""

    gpa: int = 0x1234000
    pages: int = 2
    task: int = 0x50
    cpu: int = 0

    @property
    def address(self) -> int:
        """Where it is mapped."""
        return DIRECT_MAP + self.gpa

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.pages * PAGE


@dataclass
class TraceBuilder:
    """Collects records in order. What a method is called is what the kernel did."""

    head: str = field(default_factory=answers)
    # CPUs that invalidate unless a method is told others
    cpus: Sequence[int] = (0, 1)
    lines: list[str] = field(default_factory=list)

    def add(
        self, word: str, *args: int, cpu: int = 0, task: int = 0x50, stack: Iterable[int] = ()
    ) -> None:
        """A record of any word, and its stack behind it; missing arguments are zero."""
        numbers = " ".join(f"{arg:x}" for arg in (*args, 0, 0, 0, 0)[:4])
        self.lines.append(f"{len(self.lines):x} {cpu} {task:x} {word} {numbers}")
        words = list(stack)
        for first in range(0, len(words), 4):
            self.add("stack", *words[first : first + 4], cpu=cpu, task=task)

    def mark(self, kind: int, mark_id: int) -> None:
        """The begin (1) or the end (2) of a slice."""
        self.add("mark", kind, mark_id, task=0x40)

    def convert(self, area: Area, *, to_shared: bool) -> None:
        """A conversion begins."""
        args = (area.address, area.pages, int(to_shared), area.gpa)
        self.add("convert", *args, cpu=area.cpu, task=area.task, stack=STACK)

    def flush(self, area: Area, pieces: Iterable[tuple[int, int]] | None = None) -> None:
        """Lines of an area, all unless told as (offset, bytes)."""
        for offset, size in ((0, area.bytes),) if pieces is None else pieces:
            self.add("lines", area.address + offset, size, cpu=area.cpu, task=area.task)

    def changed(self, area: Area) -> None:
        """The page tables change, and have changed."""
        self.add("change", cpu=area.cpu, task=area.task)
        self.add("changed", cpu=area.cpu, task=area.task)

    def invalidate(self, area: Area, cpus: Iterable[int] | None = None) -> None:
        """Page by page; a CPU that was asked to does so in whatever task runs there."""
        for cpu in self.cpus if cpus is None else cpus:
            task = area.task if cpu == area.cpu else 0
            for page in range(area.pages):
                self.add("invalidate", area.address + page * PAGE, cpu=cpu, task=task)

    def map(self, area: Area, *, to_shared: bool, succeeds: bool = True) -> None:
        """MapGPA and its result."""
        args = (area.gpa, area.gpa + area.bytes, int(to_shared))
        self.add("map", *args, cpu=area.cpu, task=area.task, stack=STACK)
        self.add("mapped", int(succeeds), cpu=area.cpu, task=area.task)

    def accept(self, area: Area) -> None:
        """Each page, as a page of 4 KiB."""
        for page in range(area.pages):
            args = (area.gpa + page * PAGE, area.bytes - page * PAGE, 1)
            self.add("accept", *args, cpu=area.cpu, task=area.task)
            self.add("accepted", PAGE, cpu=area.cpu, task=area.task)

    def converted(self, area: Area) -> None:
        """The conversion returns."""
        self.add("converted", cpu=area.cpu, task=area.task)

    def to_shared(
        self,
        area: Area,
        *,
        pieces: Iterable[tuple[int, int]] | None = None,
        cpus: Iterable[int] | None = None,
    ) -> None:
        """A whole conversion in Linux's order: what it flushes (see `flush`) and the CPUs that
        invalidate behind the change can be told."""
        self.convert(area, to_shared=True)
        self.invalidate(area)
        self.flush(area, pieces)
        self.changed(area)
        self.invalidate(area, cpus)
        self.map(area, to_shared=True)
        self.converted(area)

    def to_private(
        self,
        area: Area,
        *,
        pieces: Iterable[tuple[int, int]] = (),
        cpus: Iterable[int] | None = None,
    ) -> None:
        """The way back, in Linux's order, which flushes nothing."""
        self.convert(area, to_shared=False)
        self.flush(area, pieces)
        self.map(area, to_shared=False)
        self.accept(area)
        self.changed(area)
        self.invalidate(area, cpus)
        self.converted(area)

    @property
    def text(self) -> str:
        """The trace as the harness keeps it."""
        return self.head + "".join(f"{line}\n" for line in self.lines)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses of a running guest to `function+0xoffset/0xsize`, and stacks to call traces."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from harness.callchain import MOST_FRAMES, MOST_WORDS, Frame, best_chain, frame_of
from harness.functions import NAME_LENGTH, Function, FunctionTable, NameTable, parse_system_map
from harness.kallsyms import parse_kallsyms
from harness.text import printable
from harness.verdict import Site
from harness.vmlinux import ElfText, kernel_text, vmlinux

# The kernel's own mapping; modules follow it.
KERNEL_BASE = 0xFFFFFFFF80000000
KERNEL_BYTES = 1 << 30
# KASLR moves the kernel by multiples of this (CONFIG_PHYSICAL_ALIGN is at least as large).
SLIDE_STEP = 2 << 20
# Every TDCALL of 6.2 and later is in one of these, and 6.1's in the other two.
TDCALL_FUNCTIONS = frozenset(
    {"__tdcall", "__tdcall_ret", "__tdcall_saved_ret", "__tdx_module_call", "__tdx_hypercall"}
)
_MOST_MODULES = 1000
_MOST_MODULE_SYMBOLS = 100_000
# A module's last function has no symbol behind it to end it.
_LAST_FUNCTION_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded module, at run-time addresses."""

    name: str
    functions: NameTable


@dataclass(frozen=True, slots=True)
class GuestSymbols:
    """What the guest told of its addresses, in symbols.json."""

    text_base: int | None = None
    modules: tuple[Module, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the files of a kernel tell, at link addresses."""

    functions: FunctionTable
    text_base: int
    text: ElfText | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbols:
    """Everything known of one guest's code. `slide` is run-time minus link address."""

    kernel: Kernel | None = None
    slide: int | None = None
    modules: tuple[Module, ...] = ()
    # return addresses looked at before: the same few make up all stacks
    _frames: dict[int, Frame | None] = field(default_factory=dict, compare=False, repr=False)

    def find(self, address: int) -> Function | None:
        """The function at a run-time address; a module's name follows in brackets."""
        if self.kernel and self.slide is not None:
            function = self.kernel.functions.find(address - self.slide)
            if function:
                return Function(
                    function.name, function.start + self.slide, function.end + self.slide
                )
        for module in self.modules:
            function = module.functions.find(address)
            if function:
                return Function(f"{function.name} [{module.name}]", function.start, function.end)
        return None

    def site(self, address: int) -> Site:
        """The address with its symbol, as the kernel prints it, where it is known."""
        function = self.find(address)
        if not function:
            return Site(address=address)
        name, bracket, module = function.name.partition(" ")
        offset, size = address - function.start, function.end - function.start
        return Site(address=address, symbol=f"{name}+{offset:#x}/{size:#x}{bracket}{module}")

    def trace(self, pc: int, words: Sequence[int]) -> tuple[Site, ...]:
        """The call trace of `pc`, innermost first, out of the words found on its stack.

        Without the kernel's code it holds every word that lies in a function.
        """
        frames = [frame for word in words[:MOST_WORDS] if (frame := self._frame(word))]
        inner = self.find(pc)
        if self.kernel and self.kernel.text and inner:
            frames = best_chain(Frame(pc, inner), frames)
        return (self.site(pc), *(self.site(f.address) for f in frames[:MOST_FRAMES]))

    def _frame(self, word: int) -> Frame | None:
        if word not in self._frames:
            text = self.kernel.text if self.kernel else None
            self._frames[word] = frame_of(word, self.find, text, self.slide or 0)
        return self._frames[word]


def read_kernel(image: bytes | None, system_map: str | None) -> Kernel | None:
    """Symbols and code out of a kernel's files; System.map wins, the image's own table stands in.

    None when neither names a function.
    """
    elf = vmlinux(image) if image else None
    text = kernel_text(elf) if elf else None
    functions: FunctionTable | None = parse_system_map(system_map) if system_map else None
    if functions is None and elf:
        functions = parse_kallsyms(elf)
    if functions is None:
        return None
    base = functions.addresses_of(frozenset({"_text"})).get("_text") if text is None else None
    if text:
        base = min(address for address, _ in text.sections)
    return None if base is None else Kernel(functions, base, text)


def parse_guest_symbols(data: object) -> GuestSymbols:
    """symbols.json as the guest made it: whatever has the right form is kept, the rest is not."""
    if not isinstance(data, Mapping):
        return GuestSymbols()
    text_base, modules = data.get("text_base"), data.get("modules")
    base = text_base if _is_address(text_base) and text_base % SLIDE_STEP == 0 else None
    if not isinstance(modules, Mapping):
        modules = {}
    named = list(modules.items())[:_MOST_MODULES]
    return GuestSymbols(base, tuple(m for m in (_module(n, d) for n, d in named) if m))


def _module(name: object, data: object) -> Module | None:
    if not isinstance(data, Mapping) or not isinstance(data.get("symbols"), Mapping):
        return None
    entries = [
        (address, "t", printable(str(symbol), NAME_LENGTH))
        for symbol, address in list(data["symbols"].items())[:_MOST_MODULE_SYMBOLS]
        if _is_address(address)
    ]
    if not entries:
        return None
    entries.append((max(entries)[0] + _LAST_FUNCTION_BYTES, "a", ""))
    return Module(printable(str(name), NAME_LENGTH), NameTable(entries))


def _is_address(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and KERNEL_BASE <= value < 1 << 64


def slide_of(kernel: Kernel | None, guest: GuestSymbols, tdcall_pcs: Iterable[int]) -> int | None:
    """Run-time minus link address: by the guest's word, or by where its TDCALLs were."""
    if not kernel:
        return None
    if guest.text_base is not None:
        return guest.text_base - kernel.text_base
    return slide_from_tdcalls(kernel.functions.addresses_of(TDCALL_FUNCTIONS), kernel, tdcall_pcs)


def slide_from_tdcalls(
    functions: Mapping[str, int], kernel: Kernel, tdcall_pcs: Iterable[int]
) -> int | None:
    """The one slide that puts at least two different TDCALLs into functions made for them.

    A module may hold TDCALLs of its own, and one address may fit by chance: hence two that agree,
    and no answer when another slide has as many.
    """
    ranges = [kernel.functions.find(address) for address in functions.values()]
    votes: dict[int, int] = {}
    for pc in {pc for pc in tdcall_pcs if KERNEL_BASE <= pc < KERNEL_BASE + KERNEL_BYTES}:
        slides = {
            (pc - f.start) // SLIDE_STEP * SLIDE_STEP
            for f in ranges
            if f and (pc - f.start) % SLIDE_STEP < f.end - f.start
        }
        for slide in slides:
            votes[slide] = votes.get(slide, 0) + 1
    best = max(votes.values(), default=0)
    winners = [slide for slide, count in votes.items() if count == best]
    return winners[0] if best >= 2 and len(winners) == 1 else None

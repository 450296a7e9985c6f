# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a kernel's conversions are traced: places in its own code, for kprobes by breakpoint.

A function is probed behind the call to ftrace that begins it, its return where its caller goes on,
a flush at the CLFLUSH instruction itself. What looks like an instruction and lies in the middle of
another one is refused by the kernel, which decodes its code from the function's start.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.functions import Function
from harness.guesttrace.record import Word
from harness.symbols import Kernel

# By what a hit tells of, the function whose beginning is probed.
_ENTRIES: Mapping[Word, str] = MappingProxyType(
    {
        Word.CONVERT: "__set_memory_enc_pgtable",
        Word.CHANGE: "__change_page_attr_set_clr",
        Word.MAP: "tdx_map_gpa",
        Word.ACCEPT: "try_accept_one",
        Word.INVALIDATE: "flush_tlb_one_kernel",
        Word.INVALIDATE_ALL: "native_flush_tlb_global",
    }
)
# By what a hit tells of, the function that has returned, and those that call it.
_RETURNS: Mapping[Word, tuple[str, tuple[str, ...]]] = MappingProxyType(
    {
        Word.CONVERTED: (
            "__set_memory_enc_pgtable",
            ("set_memory_encrypted", "set_memory_decrypted", "__set_memory_enc_dec"),
        ),
        Word.CHANGED: ("__change_page_attr_set_clr", ("__set_memory_enc_pgtable",)),
        Word.MAPPED: (
            "tdx_map_gpa",
            (
                "tdx_enc_status_changed",
                "tdx_enc_status_change_prepare",
                "tdx_enc_status_change_finish",
                "tdx_kexec_finish",
            ),
        ),
        Word.ACCEPTED: ("try_accept_one", ("tdx_accept_memory",)),
    }
)
# cpa_flush() has clflush_cache_range_opt() inlined in all builds that were seen.
_FLUSHERS = ("cpa_flush", "clflush_cache_range")
_ENDBR = b"\xf3\x0f\x1e\xfa"
_CALL, _CALL_BYTES = 0xE8, 5
# A NOP of five bytes, as the linker may have left it in place of the call to ftrace.
_NOP = b"\x0f\x1f\x44\x00\x00"
_FENTRY = "__fentry__"
# CLFLUSHOPT (66 0F AE /7), and CLFLUSH as Linux keeps it to be patched into that (3E 0F AE /7).
_CLFLUSH = re.compile(
    rb"[\x3e\x66]([\x40-\x4f]?)\x0f\xae([\x38-\x3f\x78-\x7f\xb8-\xbf])", re.DOTALL
)
_SIB, _RIP = 4, 5
_DISPLACEMENT_BYTES = (0, 1, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One place; a flushed line is where register `base` points, plus bytes."""

    word: Word
    symbol: str
    offset: int
    # as instructions count registers: 0 is RAX
    base: int = 0
    displacement: int = 0
    # of the flush, in bytes
    length: int = 0

    @property
    def command(self) -> str:
        """What has the guest's module put it."""
        place = f"tdh probe kind={self.word} symbol={self.symbol} offset={self.offset}"
        if self.word is not Word.LINES:
            return place
        bits = self.displacement & 0xFFFFFFFF
        return f"{place} base={self.base} displacement={bits} length={self.length}"


def probes_of(kernel: Kernel) -> tuple[Probe, ...]:
    """All places that are found; none where the kernel's code is not at hand."""
    callers = {caller for _, names in _RETURNS.values() for caller in names}
    called = {name for name, _ in _RETURNS.values()}
    names = {*_ENTRIES.values(), *callers, *called, *_FLUSHERS, _FENTRY}
    addresses = kernel.functions.addresses_of(frozenset(names))
    found: list[Probe] = []
    for name in sorted(addresses):
        function = kernel.functions.find(addresses[name])
        if not function or not kernel.text:
            continue
        code = kernel.text.at(function.start, function.end - function.start)
        if code is None:
            continue
        found += _entries(name, function, code, addresses.get(_FENTRY))
        found += _returns(name, function, code, addresses)
        found += _flushes(name, code) if name in _FLUSHERS else ()
    return tuple(found)


def _entries(name: str, function: Function, code: bytes, fentry: int | None) -> Iterator[Probe]:
    at = len(_ENDBR) if code.startswith(_ENDBR) else 0
    if code[at : at + _CALL_BYTES] == _NOP or (
        fentry is not None and _target(function, code, at) == fentry
    ):
        at += _CALL_BYTES
    for word, symbol in _ENTRIES.items():
        if symbol == name:
            yield Probe(word=word, symbol=name, offset=at)


def _returns(
    name: str, function: Function, code: bytes, addresses: Mapping[str, int]
) -> Iterator[Probe]:
    """Behind each CALL of a function whose return is of interest."""
    for word, (called, callers) in _RETURNS.items():
        if name not in callers or called not in addresses:
            continue
        at = code.find(_CALL)
        while at >= 0:
            if _target(function, code, at) == addresses[called]:
                yield Probe(word=word, symbol=name, offset=at + _CALL_BYTES)
            at = code.find(_CALL, at + 1)


def _target(function: Function, code: bytes, at: int) -> int | None:
    """Where a CALL at this offset leads; None for another instruction."""
    instruction = code[at : at + _CALL_BYTES]
    if len(instruction) < _CALL_BYTES or instruction[0] != _CALL:
        return None
    distance = int.from_bytes(instruction[1:], "little", signed=True)
    return function.start + at + _CALL_BYTES + distance


def _flushes(name: str, code: bytes) -> Iterator[Probe]:
    for match in _CLFLUSH.finditer(code):
        rex, modrm = match[1][0] if match[1] else 0, match[2][0]
        mod, rm = modrm >> 6, modrm & 7
        if rm == _SIB or (rm == _RIP and not mod):
            continue
        end = match.end() + _DISPLACEMENT_BYTES[mod]
        yield Probe(
            word=Word.LINES,
            symbol=name,
            offset=match.start(),
            base=rm | (rex & 1) << 3,
            displacement=int.from_bytes(code[match.end() : end], "little", signed=True),
            length=end - match.start(),
        )

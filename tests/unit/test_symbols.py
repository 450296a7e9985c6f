# SPDX-License-Identifier: GPL-2.0-or-later
import gzip
import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.conversions import caller_of
from harness.functions import Function, parse_system_map
from harness.kallsyms import parse_kallsyms
from harness.symbols import (
    GuestSymbols,
    Kernel,
    Symbols,
    parse_guest_symbols,
    read_kernel,
    slide_of,
)
from harness.testing.vmlinux import TEXT, Symbol, bzimage, elf, kallsyms
from harness.text import printable
from harness.verdict import Site
from harness.vmlinux import ElfText

SLIDE = 0x2A000000
MAP = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 t alpha
ffffffff81000100 t alias_of_alpha
ffffffff81000200 D data
ffffffff81000300 W gamma
nonsense
ffffffff81000400 B __bss_start
"""
STUB_MAP = "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n"


def kernel(text: ElfText | None = None) -> Kernel:
    functions = parse_system_map(MAP)
    assert functions
    return Kernel(functions, TEXT, text)


@pytest.mark.parametrize(
    ("address", "symbol"),
    [
        (TEXT + 0x100, "alpha+0x0/0x100"),
        (TEXT + 0x1FF, "alpha+0xff/0x100"),
        (TEXT + 0x350, "gamma+0x50/0x100"),
        (TEXT + 0x200, None),
        (TEXT + 0x400, None),
        (TEXT - 1, None),
        (0, None),
    ],
)
def test_system_map_with_kaslr(address: int, symbol: str | None) -> None:
    symbols = Symbols(kernel=kernel(), slide=SLIDE)
    assert symbols.site(address + SLIDE) == Site(address=address + SLIDE, symbol=symbol)
    assert Symbols(kernel=kernel()).site(address).symbol is None


def test_system_map_of_a_distribution_that_holds_none() -> None:
    assert parse_system_map(STUB_MAP) is None
    assert parse_system_map("") is None
    assert read_kernel(None, STUB_MAP) is None
    assert read_kernel(None, None) is None


def test_guest_symbols_keep_what_has_the_right_form() -> None:
    base = 0xFFFFFFFFC0000000
    data = {
        "text_base": TEXT + SLIDE,
        "modules": {
            "good": {"base": base, "symbols": {"f": base, "g": base + 0x40, "no": "x", "low": 7}},
            "empty": {"symbols": {}},
            "wrong": 3,
            "\x1b[2J": {"symbols": {"\n" * 500: base + 0x100000}},
        },
    }
    guest = parse_guest_symbols(data)
    assert guest.text_base == TEXT + SLIDE
    symbols = Symbols(modules=guest.modules)
    assert symbols.site(base + 0x41).symbol == "g+0x1/0x1000 [good]"
    hostile = symbols.site(base + 0x100001).symbol
    assert hostile and hostile.isprintable() and len(hostile) < 200


@pytest.mark.parametrize(
    "junk", [None, [], 3, {"text_base": "x"}, {"text_base": TEXT + 1}, {"modules": []}]
)
def test_guest_symbols_of_another_form_are_none(junk: object) -> None:
    assert parse_guest_symbols(junk) == GuestSymbols()


def tdcall_kernel() -> Kernel:
    functions = parse_system_map(
        "ffffffff81000000 T _text\nffffffff81200710 T __tdcall\n"
        "ffffffff81200750 T __tdcall_ret\nffffffff812007a0 T __tdcall_saved_ret\n"
        "ffffffff81200800 T after\n"
    )
    assert functions
    return Kernel(functions, TEXT)


RET, SAVED = 0xFFFFFFFF81200760 + SLIDE, 0xFFFFFFFF812007D0 + SLIDE


@pytest.mark.parametrize(
    ("pcs", "slide"),
    [
        ((RET, SAVED), SLIDE),
        ((RET, SAVED, 0xFFFFFFFFC0123760), SLIDE),
        ((RET, SAVED, 0x1000760), SLIDE),
        ((RET - SLIDE, SAVED - SLIDE), 0),
        ((RET,), None),
        ((RET, RET), None),
        ((RET, SAVED + (2 << 20)), None),
        ((RET + 0x100000, SAVED + 0x100000), None),
        ((), None),
    ],
)
def test_slide_from_tdcalls(pcs: tuple[int, ...], slide: int | None) -> None:
    assert slide_of(tdcall_kernel(), GuestSymbols(), pcs) == slide


def test_slide_by_the_word_of_the_guest_comes_first() -> None:
    assert slide_of(tdcall_kernel(), GuestSymbols(TEXT + 0x600000), (RET, SAVED)) == 0x600000
    assert slide_of(None, GuestSymbols(TEXT), ()) is None


def many() -> list[Symbol]:
    """More symbols than fit between two markers, with digits in their names."""
    rows = [(TEXT + 16 * i, "t" if i % 3 else "D", f"function_{i}") for i in range(700)]
    rows[0] = (TEXT, "T", "_text")
    rows[300] = (TEXT + 16 * 300, "T", "long_" + "x" * 200)
    return rows


TOKENS = (b"function_", b"_1")


def image(layout: str, symbols: Sequence[Symbol]) -> bytes:
    code = bytes(16 * 700)
    tables = kallsyms(symbols, layout=layout, at=TEXT + len(code), tokens=TOKENS)
    return elf([(".text", code, True), (".rodata", tables + bytes(64), False)])


@pytest.mark.parametrize("layout", ["base", "first", "percpu", "place"])
def test_kallsyms_in_the_image(layout: str) -> None:
    symbols = many()
    if layout == "percpu":
        symbols = [(0, "A", "fixed_percpu_data"), (0x5000, "A", "cpu_info"), *symbols]
    found = parse_kallsyms(image(layout, symbols))
    assert found
    assert found.find(TEXT + 16 * 4 + 5) == Function("function_4", TEXT + 64, TEXT + 80)
    assert found.find(TEXT + 16 * 511) == Function("function_511", TEXT + 8176, TEXT + 8192)
    assert found.find(TEXT + 16 * 300) == Function("long_" + "x" * 200, TEXT + 4800, TEXT + 4816)
    assert found.find(TEXT + 16 * 3) is None
    assert found.find(TEXT - 1) is None
    assert found.find(TEXT + 16 * 699) is None
    assert found.addresses_of(frozenset({"function_100", "nobody"})) == {
        "function_100": TEXT + 1600
    }


def test_an_image_without_symbols_has_none() -> None:
    assert parse_kallsyms(elf([(".text", bytes(4096), True)])) is None
    assert parse_kallsyms(b"") is None
    whole = image("base", many())
    digits = whole.rindex(b"0\x001\x002\x003\x00")
    for end in (digits + 20, digits + 400, digits + 1000, digits + 2000):
        assert parse_kallsyms(whole[:end]) is None


def test_symbols_and_text_of_an_image_without_system_map() -> None:
    found = read_kernel(bzimage(gzip.compress(image("base", many()))), STUB_MAP)
    assert found and found.text and found.text_base == TEXT
    symbols = Symbols(kernel=found, slide=SLIDE)
    assert symbols.site(TEXT + SLIDE + 17).symbol == "function_1+0x1/0x10"


@given(st.binary(max_size=300))
def test_any_image_can_be_read(data: bytes) -> None:
    read_kernel(data, data.decode("latin-1"))
    read_kernel(bzimage(data), None)
    read_kernel(b"\x7fELF" + data, None)


def call(address: int, target: int) -> bytes:
    """CALL rel32 at `address`."""
    return b"\xe8" + struct.pack("<i", target - address - 5)


INDIRECT = {
    "call *%rax": b"\xff\xd0",
    "call *%r11": b"\x41\xff\xd3",
    "call *(%rbx)": b"\xff\x13",
    "call *8(%rbx)": b"\xff\x53\x08",
    "call *8(%rsp)": b"\xff\x54\x24\x08",
    "call *(%rax,%rcx,8)": b"\xff\x14\xc8",
    "call *table(,%rax,8)": b"\xff\x14\xc5\x00\x00\x00\x81",
    "call *0x100(%rbx)": b"\xff\x93\x00\x01\x00\x00",
    "call *pv_ops(%rip)": b"\xff\x15\x00\x01\x00\x00",
    "call *0x100(%rsp)": b"\xff\x94\x24\x00\x01\x00\x00",
}
NOPS = b"\x90" * 16


@pytest.mark.parametrize("how", INDIRECT)
def test_indirect_calls_are_calls(how: str) -> None:
    text = ElfText(((TEXT, NOPS + INDIRECT[how] + NOPS),))
    found = text.call_before(TEXT + 16 + len(INDIRECT[how]), lambda _: False)
    assert found and found.target is None


def test_other_instructions_are_none() -> None:
    jump, push, load = b"\xff\xe0", b"\xff\x33", b"\x48\x8b\x05\x10\x00\x00\x00"
    for code in (jump, push, load, b"\x90", b"\xc3"):
        text = ElfText(((TEXT, NOPS + code + NOPS),))
        assert text.call_before(TEXT + 16 + len(code), lambda _: False) is None
    assert ElfText(()).call_before(TEXT, lambda _: False) is None


def test_calls_that_the_kernel_patched() -> None:
    thunk = TEXT + 0x100
    pv = ElfText(((TEXT, NOPS + b"\xff\x15\x00\x01\x00\x00" + NOPS),))
    assert pv.call_before(TEXT + 16 + 5, lambda _: False)
    retpoline = ElfText(((TEXT, NOPS + call(TEXT + 16, thunk) + NOPS),))
    for length in (2, 3, 5):
        found = retpoline.call_before(TEXT + 16 + length, lambda a: a == thunk)
        assert found and found.target is None
    for length in (2, 3):
        assert retpoline.call_before(TEXT + 16 + length, lambda _: False) is None


class Code:
    """Functions of 0x100 bytes each, filled with calls by the tests."""

    def __init__(self, *names: str) -> None:
        self.starts = {name: TEXT + 0x100 * i for i, name in enumerate(names)}
        self.bytes = bytearray(b"\x90" * 0x100 * len(names))

    def put(self, name: str, offset: int, code: bytes) -> int:
        """Write an instruction; returns the run-time address behind it."""
        at = self.starts[name] - TEXT + offset
        self.bytes[at : at + len(code)] = code
        return TEXT + at + len(code) + SLIDE

    def call(self, name: str, offset: int, target: str) -> int:
        """Write a direct call; returns its return address."""
        return self.put(name, offset, call(self.starts[name] + offset, self.starts[target]))

    def find(self, address: int) -> Function | None:
        for name, start in self.starts.items():
            if start <= address < start + 0x100:
                return Function(name, start, start + 0x100)
        return None

    def addresses_of(self, names: frozenset[str]) -> dict[str, int]:
        return {name: start for name, start in self.starts.items() if name in names}

    def chain(self, pc: int, words: Sequence[int], *, with_text: bool = True) -> list[str]:
        text = ElfText(((TEXT, bytes(self.bytes)),)) if with_text else None
        symbols = Symbols(kernel=Kernel(self, TEXT, text), slide=SLIDE)
        _, *frames = symbols.trace(pc, words)
        return [str(site).partition("+")[0] for site in frames]


def test_trace_leaves_out_what_no_call_explains() -> None:
    c = Code("leaf", "middle", "outer", "old", "older", "tail", "far")
    pc = c.starts["leaf"] + 0x10 + SLIDE
    middle = c.call("middle", 0x20, "leaf")
    outer = c.call("outer", 0x30, "middle")
    indirect = c.put("far", 0x40, b"\xff\xd0")
    old = c.call("old", 0x50, "older")
    older = c.call("older", 0x50, "old")
    no_call = c.starts["old"] + 0x90 + SLIDE
    outside = TEXT + SLIDE - 0x1000
    words = [old, middle, no_call, older, outside, outer, indirect]
    assert c.chain(pc, words) == ["middle", "outer", "far"]


@pytest.mark.parametrize("thunk", ["__x86_indirect_thunk_rax", "__pi___x86_indirect_thunk_r11"])
def test_trace_goes_through_retpolines(thunk: str) -> None:
    c = Code("leaf", thunk, "middle", "outer")
    pc = c.starts["leaf"] + SLIDE
    middle = c.call("middle", 0x20, thunk)
    outer = c.call("outer", 0x20, "middle")
    assert c.chain(pc, [middle, outer]) == ["middle", "outer"]
    assert c.chain(pc, [middle - 3, outer]) == ["middle", "outer"]


def test_trace_goes_through_tail_calls_and_cold_parts() -> None:
    c = Code("leaf", "wrapper", "outer", "outer.cold", "top")
    pc = c.starts["leaf"] + SLIDE
    jump = c.starts["leaf"] - (c.starts["wrapper"] + 0x40 + 5)
    c.put("wrapper", 0x40, b"\xe9" + struct.pack("<i", jump))
    outer = c.call("outer.cold", 0x10, "wrapper")
    top = c.call("top", 0x10, "outer")
    assert c.chain(pc, [outer, top]) == ["outer.cold", "top"]


def test_trace_goes_through_two_tail_calls_and_not_through_three() -> None:
    names = ("leaf", "third", "second", "first", "outer")
    c = Code(*names)
    for inner, jumper in pairwise(names[:4]):
        jump = c.starts[inner] - (c.starts[jumper] + 0x40 + 5)
        c.put(jumper, 0x40, b"\xe9" + struct.pack("<i", jump))
    pc = c.starts["leaf"] + SLIDE
    assert c.chain(pc, [c.call("outer", 0x10, "second")]) == ["outer"]
    assert c.chain(pc, [c.call("outer", 0x10, "first")]) == []


def test_trace_ends_at_a_call_of_someone_else() -> None:
    c = Code("leaf", "middle", "stranger", "other")
    pc = c.starts["leaf"] + SLIDE
    middle = c.call("middle", 0x20, "leaf")
    stranger = c.call("stranger", 0x20, "other")
    assert c.chain(pc, [middle, stranger]) == ["middle"]


def test_trace_without_text_keeps_all_functions_but_no_pointers_to_them() -> None:
    c = Code("leaf", "one", "two")
    one, two, leaf = (c.starts[name] + 5 + SLIDE for name in ("one", "two", "leaf"))
    words = [one, TEXT - 100, c.starts["two"] + SLIDE, two, leaf]
    assert c.chain(c.starts["leaf"] + SLIDE, words, with_text=False) == ["one", "two", "leaf"]


def test_trace_believes_modules() -> None:
    base = 0xFFFFFFFFC0000000
    guest = parse_guest_symbols({"modules": {"m": {"symbols": {"f": base, "g": base + 64}}}})
    symbols = Symbols(
        kernel=kernel(ElfText(((TEXT, bytes(0x400)),))), slide=SLIDE, modules=guest.modules
    )
    trace = symbols.trace(TEXT + SLIDE + 0x110, [TEXT + SLIDE + 0x320, base + 64, base + 8])
    assert [site.symbol for site in trace] == ["alpha+0x10/0x100", "f+0x8/0x40 [m]"]


def test_caller_is_the_first_outside_the_machinery() -> None:
    names = (
        "__tdcall_saved_ret",
        "__tdx_hypercall",
        "tdx_map_gpa.isra.0",
        "tdx_enc_status_changed",
        "tdx_enc_status_change_finish",
        "__set_memory_enc_pgtable",
        "set_memory_decrypted",
        "swiotlb_update_mem_attributes",
        "mem_encrypt_init",
    )
    trace = [Site(address=i, symbol=f"{name}+0x1/0x2") for i, name in enumerate(names)]
    assert caller_of(trace) == trace[7]
    assert caller_of(trace[:7]) is None
    assert caller_of([Site(address=1)]) is None


def test_printable_is_bounded_and_escaped() -> None:
    assert printable("a\x1b[2J\u202e\U000e0001\n") == "a\\x1b[2J\\u202e\\U000e0001\\x0a"
    assert printable("x" * 300, 10) == "xxxxxxx..."
    assert printable("\n" * 10, 10) == "\\x0a\\x0..."
    assert printable("é ü", 3) == "é ü"

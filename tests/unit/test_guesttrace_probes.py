# SPDX-License-Identifier: GPL-2.0-or-later
from collections.abc import Mapping

import pytest

from harness.functions import NameTable
from harness.guesttrace.probes import Probe, probes_of
from harness.guesttrace.record import Word
from harness.symbols import Kernel
from harness.testing.vmlinux import TEXT
from harness.vmlinux import ElfText

SIZE = 0x100
ENDBR, NOP, PUSH, RET = b"\xf3\x0f\x1e\xfa", b"\x0f\x1f\x44\0\0", b"\x55", b"\xc3"
CALL, JMP = 0xE8, 0xE9
NAMES = (
    "__change_page_attr_set_clr", "__fentry__", "__set_memory_enc_dec", "__set_memory_enc_pgtable",
    "change_page_attr_set_clr", "clflush_cache_range", "cpa_flush", "flush_tlb_one_kernel",
    "native_flush_tlb_global", "other", "set_memory_decrypted", "set_memory_encrypted",
    "tdx_accept_memory", "tdx_enc_status_change_finish", "tdx_enc_status_change_prepare",
    "tdx_enc_status_changed", "tdx_kexec_finish", "tdx_map_gpa", "try_accept_one",
)  # fmt: skip
ADDRESS = {name: TEXT + number * SIZE for number, name in enumerate(NAMES)}
# An instruction's bytes, or an opcode with the function that it leads to.
Part = bytes | tuple[int, str]
ENTRIES = {
    "__change_page_attr_set_clr": Word.CHANGE,
    "__set_memory_enc_pgtable": Word.CONVERT,
    "tdx_map_gpa": Word.MAP,
    "try_accept_one": Word.ACCEPT,
    "flush_tlb_one_kernel": Word.INVALIDATE,
    "native_flush_tlb_global": Word.INVALIDATE_ALL,
}


def assembled(start: int, parts: tuple[Part, ...]) -> bytes:
    code = b""
    for part in parts:
        if isinstance(part, bytes):
            code += part
        else:
            distance = ADDRESS[part[1]] - (start + len(code) + 5)
            code += bytes([part[0]]) + distance.to_bytes(4, "little", signed=True)
    return code


def kernel(code: Mapping[str, tuple[Part, ...]], *, without: tuple[str, ...] = ()) -> Kernel:
    """Functions of one size in a row; those that are not told return at once."""
    text = b""
    for name in NAMES:
        text += assembled(ADDRESS[name], code.get(name, (RET,))).ljust(SIZE, b"\xcc")
    entries = [(address, "t", name) for name, address in ADDRESS.items() if name not in without]
    return Kernel(
        NameTable([*entries, (TEXT + len(text), "a", "")]), TEXT, ElfText(((TEXT, text),))
    )


def places(found: Kernel, word: Word) -> list[tuple[str, int]]:
    return [(probe.symbol, probe.offset) for probe in probes_of(found) if probe.word is word]


FENTRY: Part = (CALL, "__fentry__")
BEGINNINGS: list[tuple[tuple[Part, ...], int]] = [
    ((ENDBR, FENTRY, PUSH), 9),
    ((FENTRY, PUSH), 5),
    ((ENDBR, NOP, PUSH), 9),
    ((NOP, PUSH), 5),
    ((ENDBR, PUSH), 4),
    ((PUSH,), 0),
    ((PUSH, FENTRY), 0),
    (((CALL, "other"), PUSH), 0),
    (((JMP, "__fentry__"), PUSH), 0),
    ((ENDBR, ENDBR, FENTRY), 4),
    ((FENTRY, NOP, PUSH), 5),
]


@pytest.mark.parametrize(("beginning", "offset"), BEGINNINGS)
def test_a_function_is_probed_behind_the_call_that_begins_it(
    beginning: tuple[Part, ...], offset: int
) -> None:
    found = kernel(dict.fromkeys(ENTRIES, beginning))
    for name, word in ENTRIES.items():
        assert places(found, word) == [(name, offset)]


def test_without_the_symbol_of_ftrace_no_call_is_stepped_over() -> None:
    code = {"tdx_map_gpa": (ENDBR, FENTRY, PUSH)}
    assert places(kernel(code), Word.MAP) == [("tdx_map_gpa", 9)]
    assert places(kernel(code, without=("__fentry__",)), Word.MAP) == [("tdx_map_gpa", 4)]


def test_a_function_that_the_kernel_has_not_is_not_probed() -> None:
    everything = {probe.word for probe in probes_of(kernel({}))}
    assert everything == set(ENTRIES.values())
    found = probes_of(kernel({}, without=("tdx_map_gpa",)))
    assert {probe.word for probe in found} == everything - {Word.MAP}


RETURNS = [
    (Word.CONVERTED, "__set_memory_enc_pgtable", "set_memory_encrypted"),
    (Word.CONVERTED, "__set_memory_enc_pgtable", "set_memory_decrypted"),
    (Word.CONVERTED, "__set_memory_enc_pgtable", "__set_memory_enc_dec"),
    (Word.CHANGED, "__change_page_attr_set_clr", "__set_memory_enc_pgtable"),
    (Word.MAPPED, "tdx_map_gpa", "tdx_enc_status_changed"),
    (Word.MAPPED, "tdx_map_gpa", "tdx_enc_status_change_prepare"),
    (Word.MAPPED, "tdx_map_gpa", "tdx_enc_status_change_finish"),
    (Word.MAPPED, "tdx_map_gpa", "tdx_kexec_finish"),
    (Word.ACCEPTED, "try_accept_one", "tdx_accept_memory"),
]


@pytest.mark.parametrize(("word", "called", "caller"), RETURNS)
def test_a_return_is_probed_where_each_of_its_callers_goes_on(
    word: Word, called: str, caller: str
) -> None:
    code = (ENDBR, FENTRY, (CALL, called), (CALL, "other"), PUSH, (CALL, called), RET)
    found = kernel({caller: code})
    assert places(found, word) == [(caller, 14), (caller, 25)]
    others = {one for one, _, _ in RETURNS} - {word}
    assert not any(places(found, other) for other in others)


@pytest.mark.parametrize("code", [
    ((JMP, "try_accept_one"),),
    ((CALL, "other"),),
    # MOV of the bytes of a CALL: they lead elsewhere from where they stand.
    (b"\xb8" + b"\xe8\0\0\0", RET),
    (b"\xff\xd0", RET),
    # Right before the CALL, MOV of a byte that is the same.
    (b"\xb0\xe8",),
])  # fmt: skip
def test_what_is_no_call_of_the_function_is_no_return(code: tuple[Part, ...]) -> None:
    call: Part = (CALL, "try_accept_one")
    assert places(kernel({"tdx_accept_memory": code}), Word.ACCEPTED) == []
    behind = len(assembled(TEXT, code)) + 5
    assert places(kernel({"tdx_accept_memory": (*code, call)}), Word.ACCEPTED) == [
        ("tdx_accept_memory", behind)
    ]


def test_another_caller_of_the_function_is_not_probed() -> None:
    call: Part = (CALL, "__change_page_attr_set_clr")
    found = kernel({"change_page_attr_set_clr": (call,), "__set_memory_enc_pgtable": (call,)})
    assert places(found, Word.CHANGED) == [("__set_memory_enc_pgtable", 5)]
    found = kernel({"tdx_kexec_finish": (call, (CALL, "tdx_map_gpa"))})
    assert places(found, Word.CHANGED) == []
    assert places(found, Word.MAPPED) == [("tdx_kexec_finish", 10)]


def test_a_function_that_the_kernel_has_not_has_no_return() -> None:
    code: dict[str, tuple[Part, ...]] = {"tdx_accept_memory": ((CALL, "try_accept_one"),)}
    assert places(kernel(code), Word.ACCEPTED) == [("tdx_accept_memory", 5)]
    assert places(kernel(code, without=("try_accept_one",)), Word.ACCEPTED) == []


def test_a_call_that_the_end_of_the_function_cuts_short_is_none() -> None:
    filling = bytes([0x90]) * (SIZE - 5)
    call: Part = (CALL, "try_accept_one")
    assert places(kernel({"tdx_accept_memory": (filling, call)}), Word.ACCEPTED) == [
        ("tdx_accept_memory", SIZE)
    ]
    whole = assembled(ADDRESS["tdx_accept_memory"] + 1, (filling, call))
    cut = (b"\x90" + whole)[:SIZE]
    assert places(kernel({"tdx_accept_memory": (cut,)}), Word.ACCEPTED) == []


def flush(at: int, base: int, displacement: int, length: int, symbol: str = "cpa_flush") -> Probe:
    return Probe(
        word=Word.LINES,
        symbol=symbol,
        offset=at,
        base=base,
        displacement=displacement,
        length=length,
    )


def flushes(code: bytes, name: str = "cpa_flush") -> list[Probe]:
    return [probe for probe in probes_of(kernel({name: (code,)})) if probe.word is Word.LINES]


@pytest.mark.parametrize(
    ("instruction", "base", "displacement"),
    [
        ("3e 0f ae 38", 0, 0),
        ("66 0f ae 38", 0, 0),
        ("66 0f ae 3f", 7, 0),
        ("3e 41 0f ae 38", 8, 0),
        ("66 41 0f ae 3f", 15, 0),
        ("66 48 0f ae 39", 1, 0),
        ("3e 0f ae 7d 00", 5, 0),
        ("66 0f ae 7a 7f", 2, 127),
        ("3e 0f ae 7b f8", 3, -8),
        ("66 41 0f ae 7e 80", 14, -128),
        ("66 0f ae b8 00 10 00 00", 0, 4096),
        ("3e 0f ae be c0 ff ff ff", 6, -64),
        ("66 41 0f ae bd ff ff ff 7f", 13, (1 << 31) - 1),
        ("66 0f ae bf 00 00 00 80", 7, -(1 << 31)),
    ],
)
@pytest.mark.parametrize("name", ["cpa_flush", "clflush_cache_range"])
def test_a_flush_is_probed_with_its_operand(
    instruction: str, base: int, displacement: int, name: str
) -> None:
    code = bytes.fromhex(instruction)
    assert flushes(PUSH + code + RET, name) == [flush(1, base, displacement, len(code), name)]


@pytest.mark.parametrize(
    "instruction",
    [
        pytest.param("3e 0f ae 3c 08", id="base and index"),
        pytest.param("66 0f ae 7c 08 40", id="base and index, 8 bits"),
        pytest.param("66 0f ae bc 08 00 10 00 00", id="base and index, 32 bits"),
        pytest.param("66 41 0f ae 3c 24", id="r12"),
        pytest.param("66 0f ae 3d 00 10 00 00", id="by rip"),
        pytest.param("66 41 0f ae 3d 00 10 00 00", id="by rip with rex.b"),
        pytest.param("0f ae 38", id="without a prefix"),
        pytest.param("66 0f ae 30", id="clwb"),
        pytest.param("66 0f ae f8", id="a register"),
        pytest.param("0f ae f0", id="mfence"),
        pytest.param("66 0f af 38", id="another opcode"),
    ],
)
def test_another_form_is_passed_over(instruction: str) -> None:
    code, good = bytes.fromhex(instruction), bytes.fromhex("66 0f ae 3b")
    assert flushes(code) == []
    assert flushes(code + good) == [flush(len(code), 3, 0, 4)]


def test_all_flushes_of_a_function_are_probed_and_those_of_others_are_not() -> None:
    code = bytes.fromhex("3e 0f ae 38 66 0f ae 7b 40")
    assert flushes(code) == [flush(0, 0, 0, 4), flush(4, 3, 64, 5)]
    assert flushes(code, "other") == []
    assert flushes(code, "set_memory_encrypted") == []


def test_the_commands() -> None:
    entry = Probe(word=Word.INVALIDATE_ALL, symbol="native_flush_tlb_global", offset=9)
    assert entry.command == "tdh probe kind=invalidate-all symbol=native_flush_tlb_global offset=9"
    assert flush(388, 14, -8, 6).command == (
        "tdh probe kind=lines symbol=cpa_flush offset=388 base=14 displacement=4294967288 length=6"
    )
    assert flush(0, 0, 64, 5).command.endswith(" base=0 displacement=64 length=5")


def test_a_kernel_without_code_is_not_probed() -> None:
    whole = kernel({"tdx_map_gpa": (FENTRY,)})
    assert probes_of(whole)
    assert probes_of(Kernel(whole.functions, TEXT)) == ()
    assert probes_of(kernel({}, without=NAMES)) == ()


def test_a_function_without_code_is_not_probed() -> None:
    whole = kernel({"tdx_map_gpa": (FENTRY,)})
    part = ElfText(((TEXT - SIZE, b"\xcc" * SIZE),))
    assert probes_of(Kernel(whole.functions, TEXT, part)) == ()

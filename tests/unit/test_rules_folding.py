# SPDX-License-Identifier: GPL-2.0-or-later
"""What findings say, and which repeats become one."""

from collections.abc import Callable, Sequence

import pytest

from harness.conversions import conversions
from harness.events import Event, Flag, Kind
from harness.functions import NameTable
from harness.rules.accept import accept_shared, double_accept
from harness.rules.alias import private_access_to_shared, shared_access_to_private
from harness.rules.cache import guest_cache_flush, redundant_flush
from harness.rules.check import check_events
from harness.rules.context import Context, context_of
from harness.rules.contract import tdcall_contract
from harness.rules.data import dma_data, failed_steps, guest_failures
from harness.rules.tlb import guest_tlb_flush
from harness.steps import Dma, Step
from harness.symbols import Module, Symbols
from harness.testing.events import StreamBuilder
from harness.verdict import Finding, Severity

GPA, GVA, PAGE = 0x1234000, 0xFF11000001234000, 4096
MODULE = 0xFFFFFFFFC0000000
MIB2 = 2 << 20
PC = MODULE + 0x110
STACK = [MODULE + 0x210, MODULE + 0x310]
STORE = MODULE + 0x420


def symbols() -> Symbols:
    names = ("__tdcall_saved_ret", "set_memory_decrypted", "dma_direct_alloc", "memset", "last")
    table = NameTable([(MODULE + 0x100 * i, "t", name) for i, name in enumerate(names, 1)])
    return Symbols(modules=(Module("m", table),))


def run(
    check: Callable[[Sequence[Event], Context], list[Finding]], s: StreamBuilder
) -> list[Finding]:
    return check(s.events, context_of(s.events, symbols()))


def half_flushed() -> StreamBuilder:
    s = StreamBuilder()
    convert = s.convert(GPA, PAGE, to_shared=True, dirty=3, flushed=61, pc=PC, stack=STACK)
    s.dirty_run(GPA + 5 * 64, 2, convert, store_pc=STORE, store_vcpu=1)
    s.dirty_run(GPA + 63 * 64, 1, convert)
    return s


def test_dirty_lines_are_one_finding_with_all_that_is_known() -> None:
    (f,) = run(guest_cache_flush, half_flushed())
    assert f.summary == (
        "3 of 64 lines of page 0x1234000 were still dirty under the private key when "
        "dma_direct_alloc+0x10/0x100 [m] made it shared; CLFLUSH reached 61 lines of the range"
    )
    assert (f.gpa, f.lines, f.direction) == (GPA, (5, 6, 63), "private to shared")
    assert str(f.store_site) == "memset+0x20/0x100 [m]"
    assert str(f.site) == "__tdcall_saved_ret+0x10/0x100 [m]"
    assert [str(s).split("+")[0] for s in f.trace] == [
        "__tdcall_saved_ret",
        "set_memory_decrypted",
        "dma_direct_alloc",
    ]
    assert f.extra["dirty_lines"] == 3
    assert f.extra["runs"][0]["vcpu"] == 1


def test_dirty_lines_without_symbols_still_make_sense() -> None:
    s = StreamBuilder()
    s.convert(GPA, MIB2, to_shared=True, dirty=MIB2 // 64, flushed=0)
    (f,) = guest_cache_flush(s.events, context_of(s.events))
    assert f.summary == (
        "32768 of 32768 lines of 512 pages at 0x1234000-0x1433fff were still dirty under the "
        "private key when MapGPA made it shared; no CLFLUSH reached them"
    )
    assert f.lines == () and f.store_site is None


def test_flush_with_the_wrong_key_is_said() -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True, dirty=64, flushed=64)
    (f,) = guest_cache_flush(s.events, context_of(s.events))
    assert "through a mapping with the other key" in f.summary


@pytest.mark.parametrize("fields", [{"status": 1}, {"bad": True, "status": 1 << 63}])
def test_a_refused_conversion_left_nothing_dirty(fields: dict[str, int]) -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True, dirty=64, flushed=0, **fields)  # type: ignore[arg-type]
    assert guest_cache_flush(s.events, context_of(s.events)) == []


def test_stale_translations_of_one_conversion_and_vcpu_are_folded() -> None:
    s = StreamBuilder()
    changes = [s.pte_change(GVA + i * PAGE, GPA + i * PAGE, to_shared=True) for i in range(512)]
    for i, change in enumerate(changes):
        for vcpu in (1, 2):
            s.stale(GVA + i * PAGE, GPA + i * PAGE, change, to_shared=True, vcpu=vcpu)
    convert = s.convert(GPA, MIB2, to_shared=True, pc=PC, stack=STACK)
    s.stale(GVA, GPA, changes[0], to_shared=True, vcpu=1, used=True, pc=STORE)
    one, two, used = run(guest_tlb_flush, s)
    assert (one.vcpu, one.count, one.evidence) == (1, 512, "unflushed")
    assert (two.vcpu, two.count) == (2, 512)
    assert [str(s).split("+")[0] for s in one.trace][-1] == "dma_direct_alloc"
    assert one.extra["range"] == [GVA, GVA + MIB2] and one.extra["conversion"] == convert
    assert one.summary == (
        "vCPU 1 had not invalidated 512 translations of 0xff11000001234000-0xff11000001433fff "
        "when dma_direct_alloc+0x10/0x100 [m] made the memory shared"
    )
    assert (used.vcpu, used.count, used.evidence) == (1, 1, "used")
    assert str(used.site) == "memset+0x20/0x100 [m]"


def test_translations_of_two_mappings_of_a_page_are_not_told_as_one_range() -> None:
    s = StreamBuilder()
    image = 0xFFFFFFFF82000000
    for offset in (0, PAGE):
        for base in (GVA, image):
            change = s.pte_change(base + offset, GPA + offset, to_shared=True)
            s.stale(base + offset, GPA + offset, change, to_shared=True, vcpu=1)
    s.convert(GPA, 2 * PAGE, to_shared=True)
    (finding,) = run(guest_tlb_flush, s)
    assert (
        "4 translations of 0xff11000001234000-0xff11000001235fff and of 1 other range"
        in finding.summary
    )
    assert finding.extra["range"] == [GVA, GVA + 2 * PAGE]


def test_stale_translations_of_two_conversions_stay_apart() -> None:
    s = StreamBuilder()
    for _ in range(2):
        change = s.pte_change(GVA, GPA, to_shared=True)
        s.stale(GVA, GPA, change, to_shared=True, vcpu=1)
        s.convert(GPA, PAGE, to_shared=True)
        s.convert(GPA, PAGE, to_shared=False)
        change = s.pte_change(GVA, GPA, to_shared=False)
        s.stale(GVA, GPA, change, to_shared=False, vcpu=0)
    found = run(guest_tlb_flush, s)
    assert [(f.direction, f.vcpu) for f in found] == [
        ("private to shared", 1),
        ("shared to private", 0),
    ] * 2
    assert "used again after" in found[1].summary


def test_stale_translation_of_a_kernel_that_converts_late_to_private() -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True)
    change = s.pte_change(GVA, GPA, to_shared=False)
    late = s.convert(GPA, PAGE, to_shared=False)
    s.stale(GVA, GPA, change, to_shared=False, vcpu=1, used=True)
    (finding,) = run(guest_tlb_flush, s)
    assert finding.extra["conversion"] == late


def test_stale_translation_without_a_conversion() -> None:
    s = StreamBuilder()
    s.stale(GVA, GPA, 0, to_shared=True, vcpu=1, used=True)
    (finding,) = run(guest_tlb_flush, s)
    assert "after a conversion made the memory shared" in finding.summary
    assert finding.extra["conversion"] is None


def test_shared_access_in_the_middle_of_a_conversion_is_none() -> None:
    s = StreamBuilder()
    s.pte_change(GVA, GPA, to_shared=True)
    s.wrong_alias(GVA, GPA, through_shared=True)
    s.convert(GPA, PAGE, to_shared=True)
    s.convert(GPA, PAGE, to_shared=False)
    s.wrong_alias(GVA, GPA, through_shared=True, vcpu=1)
    s.accept(GPA)
    s.pte_change(GVA, GPA, to_shared=False)
    assert run(shared_access_to_private, s) == []


def test_shared_access_when_the_other_half_never_comes() -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=False)
    s.wrong_alias(GVA, GPA, through_shared=True)
    (finding,) = run(shared_access_to_private, s)
    assert finding.severity is Severity.REPORT
    s = StreamBuilder()
    s.pte_change(GVA, GPA, to_shared=True)
    s.wrong_alias(GVA, GPA, through_shared=True)
    s.pte_change(GVA, GPA, to_shared=False)
    assert len(run(shared_access_to_private, s)) == 1


def test_shared_access_through_another_mapping_is_found() -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=False)
    s.pte_change(GVA, GPA, to_shared=False)
    s.wrong_alias(0xFFFFC90000001000, GPA, through_shared=True)
    assert len(run(shared_access_to_private, s)) == 1


def test_firmware_memory_is_left_alone_until_it_is_converted() -> None:
    s = StreamBuilder()
    s.wrong_alias(GVA, GPA, through_shared=True)
    assert len(shared_access_to_private(s.events, context_of(s.events))) == 1
    firmware = ((GPA, GPA + PAGE),)
    context = context_of(s.events, firmware=firmware)
    assert shared_access_to_private(s.events, context) == []
    s.convert(GPA, PAGE, to_shared=False)
    s.wrong_alias(GVA, GPA, through_shared=True)
    assert len(shared_access_to_private(s.events, context_of(s.events, firmware=firmware))) == 1


def test_wrong_accesses_after_one_conversion_are_folded() -> None:
    s = StreamBuilder()
    s.convert(GPA, 4 * PAGE, to_shared=True, pc=PC, stack=STACK)
    for i in range(4):
        s.wrong_alias(GVA + i * PAGE, GPA + i * PAGE, through_shared=False, vcpu=i % 2)
    found = run(private_access_to_shared, s)
    assert [(f.vcpu, f.count) for f in found] == [(0, 2), (1, 2)]
    assert "2 pages of 0x1234000-0x1236fff" in found[0].summary


def test_accept_of_a_large_page_with_a_shared_one_in_it() -> None:
    s = StreamBuilder()
    s.accept(GPA, level=1, status=0xC0000B0000000001, state=2)
    (finding,) = run(accept_shared, s)
    assert finding.extra["range"] == [GPA, GPA + MIB2]


def test_accepts_of_one_caller_are_folded() -> None:
    s = StreamBuilder()
    for i in range(8):
        s.accept(GPA + i * PAGE, status=0x00000B0A00000000, state=0)
    (finding,) = run(double_accept, s)
    assert finding.count == 8 and "8 ranges of 0x1234000-0x123bfff" in finding.summary


@pytest.mark.parametrize("level", [0, 1, 2])
def test_probing_for_the_size_is_no_finding(level: int) -> None:
    s = StreamBuilder()
    for status in (0xC0000B0B00000000 | level, 0xC000010000000001):
        for state in (0, 1, 2):
            s.accept(GPA, level=level, status=status, state=state)
    assert check_events(s.events, context_of(s.events)) == []


@pytest.mark.parametrize(
    ("kind", "args", "flags", "words"),
    [
        (Kind.TDCALL, (5, 0, 0, 0, 1), Flag.UNKNOWN, "TDCALL leaf 0x5 is no call that exists"),
        (Kind.TDCALL, (8, 0, 0, 0, 1), Flag.BAD, "TDG.VM.WR (TDCALL leaf 8) broke its contract"),
        (Kind.VMCALL, (0x99, 1, 2, 3, 0), Flag.UNKNOWN, "TDVMCALL 0x99 is no call"),
        (Kind.VMCALL, (0x10002, 1, 2, 3, 0), Flag.BAD, "TDVMCALL GetQuote broke its contract"),
        (Kind.VMCALL, (0x10001, 1, 2, 0, 0), Flag.BAD, "reserved bits in RCX"),
        (Kind.VMCALL, (0x10003, 0, 0, 0, 0), Flag.BAD, "the guest gave up"),
        (Kind.CONVERT, (GPA + 1, PAGE, 1 << 63, 0, 0), Flag.BAD, "TDVMCALL MapGPA broke"),
        (Kind.ACCEPT, (GPA, 3, 1, 0, 0), Flag.BAD, "TDG.MEM.PAGE.ACCEPT broke"),
    ],
)
def test_contract_says_which_call(
    kind: Kind, args: tuple[int, ...], flags: Flag, words: str
) -> None:
    s = StreamBuilder()
    for _ in range(3):
        s.add(kind, *args, flags=flags)
    (finding,) = run(tdcall_contract, s)
    assert words in finding.summary and finding.summary.endswith(", 3 times")
    assert finding.count == 3


def test_redundant_flushes_of_one_caller_are_folded() -> None:
    s = StreamBuilder()
    for _ in range(42):
        s.convert(GPA, PAGE, to_shared=True, flushed_again=1, pc=PC, stack=STACK)
        s.convert(GPA, PAGE, to_shared=False, flushed=64, pc=PC, stack=STACK)
    again, all_of_them = run(redundant_flush, s)
    assert (again.count, again.extra["redundant_lines"]) == (42, 42)
    assert (all_of_them.count, all_of_them.extra["redundant_lines"]) == (42, 42 * 64)
    assert all_of_them.direction == "shared to private"


def test_what_each_conversion_could_save_is_told() -> None:
    s = StreamBuilder()
    for back in (0, 3):
        s.convert(GPA, PAGE, to_shared=True, flushed=64, pc=PC, stack=STACK)
        s.convert(GPA, PAGE, to_shared=False, flushed=64, flushed_again=back, pc=PC, stack=STACK)
    (finding,) = run(redundant_flush, s)
    assert finding.severity is Severity.REPORT
    assert finding.extra["redundant_lines"] == 64 + 67
    assert finding.extra["flushed_lines"] == 128
    saved = [(row["gpa"], row["lines"], row["redundant_lines"]) for row in _rows(finding)]
    assert saved == [(GPA, 64, 64), (GPA, 64, 67)]


def _rows(finding: Finding) -> list[dict[str, int]]:
    return list(finding.extra["conversions"])


def test_findings_are_not_folded_across_steps() -> None:
    s = StreamBuilder()
    for mark in (1, 2):
        s.mark(1, mark)
        s.convert(GPA, PAGE, to_shared=False, flushed=64)
        s.mark(2, mark)
    s.convert(GPA, PAGE, to_shared=False, flushed=64)
    steps = [Step(name="first", ok=True, mark=1)]
    found = check_events(s.events, context_of(s.events), steps)
    assert [f.extra["step"] for f in found] == ["first", "mark 2", ""]


def test_conversions_as_data() -> None:
    s = StreamBuilder()
    s.mark(1, 3)
    seq = s.convert(
        GPA,
        2 * PAGE,
        to_shared=True,
        dirty=1,
        flushed=5,
        flushed_again=2,
        vcpu=1,
        pc=PC,
        stack=STACK,
    )
    s.mark(2, 3)
    s.convert(GPA, PAGE, to_shared=True, status=1)
    (row,) = conversions(s.events, symbols(), [Step(name="dma", ok=True, mark=3)])
    assert (row.seq, row.gpa, row.bytes, row.lines, row.vcpu) == (seq, GPA, 8192, 128, 1)
    assert (row.dirty, row.flushed, row.flushed_again) == (1, 5, 2)
    assert (row.direction, row.step) == ("private to shared", "dma")
    assert row.caller == "dma_direct_alloc+0x10/0x100 [m]"
    assert [c.step for c in conversions(s.events, Symbols())] == ["mark 3"]


def test_dma_mismatch() -> None:
    good = Dma(device="edu", direction="to-device", bytes=4096, mismatches=0)
    bad = Dma(device="edu", direction="from-device", bytes=64, mismatches=3, first_mismatch=16)
    assert dma_data([]) == []
    assert dma_data([Step(name="edu", ok=True, dma=(good,))]) == []
    (finding,) = dma_data([Step(name="edu", ok=False, dma=(good, bad))])
    assert finding.summary == (
        "edu: 3 of 64 bytes differ after a transfer from-device, first at offset 0x10 (step edu)"
    )


def test_failed_steps() -> None:
    steps = [
        Step(name="good", ok=True, rc=0),
        Step(name="bad", ok=False, rc=3, last_line="failed: no buffer"),
        Step(name="lost", ok=False),
        Step(name="explained", ok=False, rc=1),
    ]
    bad, lost = failed_steps(steps, frozenset({"explained"}))
    assert bad.summary == "the guest's own check failed in bad with status 3: failed: no buffer"
    assert lost.summary == "the step lost never ended"
    assert failed_steps([], frozenset()) == []


def test_marks_nest() -> None:
    s = StreamBuilder()
    s.mark(1, 1)
    for mark in (2, 3):
        s.mark(1, mark)
        s.convert(GPA, PAGE, to_shared=True)
    s.mark(2, 2)
    s.convert(GPA, PAGE, to_shared=True)
    s.mark(2, 9)
    s.mark(2, 1)
    s.convert(GPA, PAGE, to_shared=True)
    steps = [Step(name="inner", ok=True, mark=2)]
    rows = conversions(s.events, Symbols(), steps)
    assert [row.step for row in rows] == ["inner", "mark 3", "mark 1", ""]


def test_guest_failures_are_told_once() -> None:
    steps = [Step(name="lost", ok=False), Step(name="done", ok=True, rc=0)]
    sentences = ("boot: it hung", "lost: no answer", "done: late")
    found = guest_failures(sentences, steps)
    assert [f.summary for f in found] == [
        "the guest failed: boot: it hung",
        "the guest failed: done: late",
    ]
    assert guest_failures((), steps) == []
    assert len(guest_failures(sentences, [])) == 3

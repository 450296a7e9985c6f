# SPDX-License-Identifier: GPL-2.0-or-later
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.events import Event, Flag, Kind, VmmBehaviour
from harness.functions import NameTable
from harness.rules.accept import accept_shared, double_accept
from harness.rules.alias import (
    private_access_to_shared,
    shared_access_to_private,
    unaccepted_access,
)
from harness.rules.cache import guest_cache_flush, redundant_flush
from harness.rules.check import CHECKS, check_events
from harness.rules.context import Context, context_of
from harness.rules.contract import tdcall_contract
from harness.rules.mapgpa import mapgpa_failure_handling
from harness.rules.table import RULES
from harness.rules.tlb import guest_tlb_flush
from harness.rules.vmm import vmm_cache_flush, vmm_ept_flush
from harness.symbols import Module, Symbols
from harness.testing.events import StreamBuilder
from harness.verdict import Finding

GPA, GVA, PAGE = 0x1234000, 0xFF11000001234000, 4096
MODULE = 0xFFFFFFFFC0000000
MIB2 = 2 << 20
Check = Callable[[Sequence[Event], Context], list[Finding]]


def symbols() -> Symbols:
    names = {
        "__tdcall_saved_ret": 0x100,
        "set_memory_decrypted": 0x200,
        "dma_direct_alloc": 0x300,
        "memset": 0x400,
        "last": 0x500,
    }
    return Symbols(
        modules=(Module("m", NameTable([(MODULE + at, "t", n) for n, at in names.items()])),)
    )


PC = MODULE + 0x110
STACK = [MODULE + 0x210, MODULE + 0x310]
STORE = MODULE + 0x420


def correct() -> StreamBuilder:
    """A guest that keeps all rules: one page to shared and back."""
    s = StreamBuilder()
    change = s.pte_change(GVA, GPA, to_shared=True)
    assert change == 0
    s.convert(GPA, PAGE, to_shared=True, pc=PC, stack=STACK)
    s.convert(GPA, PAGE, to_shared=False, dirty=64, pc=PC, stack=STACK)
    s.accept(GPA, level=2, status=0xC000010000000001)
    s.accept(GPA, level=1, status=0xC0000B0B00000001)
    s.accept(GPA)
    s.pte_change(GVA, GPA, to_shared=False)
    s.add(Kind.TDCALL, 1, 0, 0, 0, 0)
    s.add(Kind.VMCALL, 0x0A)
    return s


def cache_flush() -> StreamBuilder:
    s = correct()
    convert = s.convert(GPA, PAGE, to_shared=True, dirty=3, flushed=61, pc=PC, stack=STACK)
    s.dirty_run(GPA + 5 * 64, 2, convert, store_pc=STORE, store_vcpu=1)
    s.dirty_run(GPA + 63 * 64, 1, convert)
    return s


def tlb_flush() -> StreamBuilder:
    s = correct()
    change = s.pte_change(GVA, GPA, to_shared=True)
    s.stale(GVA, GPA, change, to_shared=True, vcpu=1, pc=PC)
    s.convert(GPA, PAGE, to_shared=True, pc=PC, stack=STACK)
    return s


def private_access() -> StreamBuilder:
    s = correct()
    s.convert(GPA, PAGE, to_shared=True, pc=PC, stack=STACK)
    s.wrong_alias(GVA + 64, GPA + 64, through_shared=False, state=1, vcpu=1, pc=STORE)
    return s


def shared_access() -> StreamBuilder:
    s = correct()
    s.wrong_alias(GVA, GPA, through_shared=True, vcpu=1, pc=STORE)
    return s


def unaccepted() -> StreamBuilder:
    s = correct()
    s.convert(GPA, PAGE, to_shared=False, pc=PC, stack=STACK)
    s.add(Kind.UNACCEPTED, GVA, GPA, 2, flags=Flag.WRITE, vcpu=1, pc=STORE)
    return s


def twice_accepted() -> StreamBuilder:
    s = correct()
    s.accept(GPA, status=0x00000B0A00000000, state=0)
    return s


def shared_accepted() -> StreamBuilder:
    s = correct()
    s.accept(GPA, status=0xC0000B0000000001, state=1)
    return s


def flushed_for_nothing() -> StreamBuilder:
    s = correct()
    s.convert(GPA, PAGE, to_shared=False, flushed=64, pc=PC, stack=STACK)
    return s


def contract_broken() -> StreamBuilder:
    s = correct()
    s.add(Kind.TDCALL, 4, 0x1001, 0, 0, 0xC000010000000001, flags=Flag.BAD, pc=PC)
    return s


def retried_from_the_start() -> StreamBuilder:
    s = correct()
    told = GPA + PAGE
    s.vmm(VmmBehaviour.RETRY, GPA, 2 * PAGE, to_shared=True, done=PAGE, r10=1, r11=told | 1 << 52)
    s.convert(GPA, 2 * PAGE, to_shared=True, pc=PC, stack=STACK)
    return s


def lines_not_flushed() -> StreamBuilder:
    s = correct()
    s.vmm(VmmBehaviour.CACHE, GPA, PAGE, to_shared=False)
    convert = s.convert(GPA, PAGE, to_shared=False, pc=PC, stack=STACK)
    s.add(Kind.POISON, GPA, 0b1001, convert, pc=0)
    return s


def mapping_kept() -> StreamBuilder:
    s = correct()
    s.vmm(VmmBehaviour.EPT, GPA, PAGE, to_shared=True, done=PAGE, pc=PC, stack=STACK)
    return s


BROKEN: dict[str, tuple[Check, Callable[[], StreamBuilder]]] = {
    "guest-cache-flush": (guest_cache_flush, cache_flush),
    "guest-tlb-flush": (guest_tlb_flush, tlb_flush),
    "private-access-to-shared": (private_access_to_shared, private_access),
    "shared-access-to-private": (shared_access_to_private, shared_access),
    "unaccepted-access": (unaccepted_access, unaccepted),
    "double-accept": (double_accept, twice_accepted),
    "accept-shared": (accept_shared, shared_accepted),
    "redundant-flush": (redundant_flush, flushed_for_nothing),
    "tdcall-contract": (tdcall_contract, contract_broken),
    "mapgpa-failure-handling": (mapgpa_failure_handling, retried_from_the_start),
    "vmm-cache-flush": (vmm_cache_flush, lines_not_flushed),
    "vmm-ept-flush": (vmm_ept_flush, mapping_kept),
}


def run(check: Check, s: StreamBuilder) -> list[Finding]:
    return check(s.events, context_of(s.events, symbols()))


@pytest.mark.parametrize("rule", BROKEN)
def test_rule_finds_its_fault_and_no_other_rule_does(rule: str) -> None:
    check, build = BROKEN[rule]
    (finding,) = run(check, build())
    assert finding.rule == rule
    assert finding.severity is RULES[rule].severity
    assert finding.summary and finding.look_at
    assert finding.seq is not None and finding.vcpu is not None
    events = build().events
    assert [f.rule for f in check_events(events, context_of(events, symbols()))] == [rule]


@pytest.mark.parametrize("rule", BROKEN)
def test_rule_passes_a_correct_guest(rule: str) -> None:
    assert run(BROKEN[rule][0], correct()) == []


@pytest.mark.parametrize("rule", BROKEN)
def test_rule_finds_nothing_in_nothing(rule: str) -> None:
    assert run(BROKEN[rule][0], StreamBuilder()) == []


def test_every_check_has_its_case() -> None:
    assert {check for check, _ in BROKEN.values()} == set(CHECKS)
    judged_elsewhere = {"dma-data", "host-mce", "guest-mce", "kernel-log", "workload"}
    assert set(RULES) == set(BROKEN) | judged_elsewhere


words64 = st.integers(0, (1 << 64) - 1)
near = st.sampled_from([GPA, GPA + PAGE, GVA, 0, 1, 2, PAGE, MIB2, 0xB0A << 32, 1 << 63])
args = st.lists(st.one_of(near, words64), min_size=5, max_size=5)
kinds = st.sampled_from([k for k in Kind if k not in (Kind.TRAILER, Kind.STACK)])


@given(st.lists(st.tuples(kinds, args, st.integers(0, 255), st.integers(0, 7)), max_size=12))
def test_any_events_can_be_checked(
    records: list[tuple[Kind, list[int], int, int]],
) -> None:
    s = StreamBuilder()
    for kind, values, flags, vcpu in records:
        s.add(kind, *values, flags=Flag(flags), vcpu=vcpu, stack=values[:2])
    for finding in check_events(s.events, context_of(s.events, symbols())):
        assert finding.rule in RULES and finding.summary.isprintable()

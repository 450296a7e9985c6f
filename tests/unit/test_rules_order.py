# SPDX-License-Identifier: GPL-2.0-or-later
"""private-access-to-shared without an access: the order of MapGPA and page table change."""

from harness.conversions import TO_PRIVATE, TO_SHARED
from harness.functions import NameTable
from harness.rules.alias import private_access_to_shared
from harness.rules.context import context_of
from harness.symbols import Module, Symbols
from harness.testing.events import StreamBuilder
from harness.verdict import Finding

GPA, GVA, PAGE = 0x1234000, 0xFF11000001234000, 4096
MODULE = 0xFFFFFFFFC0000000
PC = MODULE + 0x110
STACK = [MODULE + 0x210, MODULE + 0x310]


def found_in(s: StreamBuilder) -> list[Finding]:
    names = ("__tdcall_saved_ret", "set_memory_decrypted", "dma_direct_alloc", "last")
    table = NameTable([(MODULE + 0x100 * i, "t", name) for i, name in enumerate(names, 1)])
    symbols = Symbols(modules=(Module("m", table),))
    return private_access_to_shared(s.events, context_of(s.events, symbols))


def test_order_that_maps_a_shared_page_as_private_is_found_without_an_access() -> None:
    early = StreamBuilder()
    convert = early.convert(GPA, 2 * PAGE, to_shared=True, pc=PC, stack=STACK)
    early.pte_change(GVA, GPA, to_shared=True)
    early.pte_change(GVA + PAGE, GPA + PAGE, to_shared=True)
    late = StreamBuilder()
    late.pte_change(GVA, GPA, to_shared=True)
    late.convert(GPA, PAGE, to_shared=True)
    late.pte_change(GVA, GPA, to_shared=False)
    late.convert(GPA, PAGE, to_shared=False, pc=PC, stack=STACK)
    (first,) = found_in(early)
    (second,) = found_in(late)
    assert [(f.evidence, f.direction, f.count) for f in (first, second)] == [
        ("mapped", TO_SHARED, 2),
        ("mapped", TO_PRIVATE, 1),
    ]
    assert "as private when dma_direct_alloc+0x10/0x100 [m] made it shared" in first.summary
    assert first.extra["range"] == [GPA, GPA + 2 * PAGE]
    assert first.trace and second.conversion_site == first.conversion_site
    assert "0x1234000-0x1234fff as private again before dma_direct_alloc+0x10" in second.summary
    assert convert < (first.seq or 0)


def test_mapping_that_was_away_meanwhile_is_no_private_one() -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True)
    s.pte_change(GVA, GPA, to_shared=True, away=True)
    assert found_in(s) == []
    s.pte_change(GVA, GPA, to_shared=False, away=True)
    assert len(found_in(s)) == 1


def test_mapping_made_private_of_a_page_that_stays_shared_is_found() -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True)
    s.pte_change(GVA, GPA, to_shared=False)
    (finding,) = found_in(s)
    assert finding.evidence == "mapped" and "before MapGPA ended" in finding.summary

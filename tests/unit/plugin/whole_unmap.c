/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mappings taken away and made again: the translation of before may be cached
 * until invalidated. */
#include "whole.h"

#include "guest.h"
#include "stub.h"

#define NONGLOBAL (256 * GIB)

static uint64_t target;

static void start(unsigned vcpus)
{
    guest_prepare(5);
    target = at(SMALL);
    guest_map(at(NONGLOBAL), SMALL, 0, 0);
    guest_map(at(NONGLOBAL + MIB2), LARGE_AT, 1, 0);
    guest_boot(vcpus, NULL);
}

/* A bit per vCPU whose stale translation was told. */
static unsigned told(void)
{
    unsigned vcpus = 0;

    for (size_t i = 0; i < guest_events(); i++) {
        if (guest_event(i)->kind == EV_STALE) {
            vcpus |= 1u << guest_event(i)->vcpu;
        }
    }
    return vcpus;
}

/* Not present, no flush, shared: a change as any other. */
TEST(a_change_by_way_of_not_present)
{
    start(2);
    guest_unmap(0, target, 0);
    CHECK_EQ(guest_events(), 0);
    guest_set_shared(0, target, 0, true);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->flags, EF_TO_SHARED | EF_GLOBAL | EF_AWAY);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[1], SMALL);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[2] & (SHARED_BIT | PTE_PRESENT), PTE_PRESENT);
    guest_store(1, target, 8);
    CHECK_EQ(guest_last(EV_STALE)->flags, EF_USED | EF_WRITE | EF_TO_SHARED | EF_GLOBAL);
    guest_invlpg(1, target);
    guest_forget();
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    CHECK_EQ(told(), 1);
}

/* The owed invalidation may come while nothing is mapped, on each vCPU in its
 * way. */
TEST(invalidations_while_not_present)
{
    start(4);
    guest_unmap(0, target, 0);
    guest_invlpg(0, target + 5);
    guest_flush_global(1);
    guest_write_cr3(2, guest.root);
    guest_invlpg(3, target + PAGE_BYTES);
    guest_set_shared(0, target, 0, true);
    CHECK_EQ(guest_count(EV_PTE_CHANGE), 1);
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    CHECK_EQ(told(), 4 | 8);
}

TEST(a_mapping_that_is_not_global)
{
    start(3);
    target = at(NONGLOBAL);
    guest_unmap(0, target, 0);
    guest_write_cr3(0, guest.root);
    guest_invpcid(1, 0, 0, target);
    guest_set_shared(0, target, 0, true);
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    CHECK_EQ(told(), 4);
}

TEST(pcids_while_not_present)
{
    start(1);
    target = at(NONGLOBAL);
    guest_write_cr4(0, fake_get(0, REG_CR4) | CR4_PCIDE);
    guest_write_cr3(0, guest.root | 3);
    for (unsigned pcid = 3; pcid <= 4; pcid++) {
        guest_forget();
        guest_unmap(0, target, 0);
        guest_invpcid(0, 0, 4, target);
        guest_invpcid(0, 1, pcid, 0);
        guest_set_shared(0, target, 0, true);
        guest_map_gpa(0, SMALL, PAGE_BYTES, true);
        CHECK_EQ(told(), pcid == 4);
        guest_flush_global(0);
        guest_set_shared(0, target, 0, false);
        guest_flush_global(0);
    }
}

/* MapGPA while nothing is mapped: the private translation of before is told at
 * once, once. */
TEST(a_conversion_while_not_present)
{
    start(3);
    guest_unmap(0, target, 0);
    guest_invlpg(2, target);
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    CHECK_EQ(told(), 3);
    CHECK_EQ(guest_count(EV_PTE_CHANGE), 1);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->flags, EF_TO_SHARED | EF_GLOBAL | EF_AWAY);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[3], 0);
    CHECK_EQ(guest_last(EV_STALE)->arg[3], guest_last(EV_PTE_CHANGE)->seq);
    guest_forget();
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    CHECK_EQ(told(), 0);
    guest_set_shared(0, target, 0, true);
    CHECK_EQ(told(), 0);
    guest_load(1, target, 8);
    CHECK_EQ(guest_last(EV_STALE)->flags, EF_USED | EF_TO_SHARED | EF_GLOBAL);
}

/* As kexec does it: shared, not present, MapGPA to private, one flush of all;
 * then private. */
TEST(kexec)
{
    start(2);
    guest_convert(0, SMALL, PAGE_BYTES, true);
    guest_forget();
    guest_unmap(0, target, 0);
    guest_map_gpa(0, SMALL, PAGE_BYTES, false);
    guest_accept(0, SMALL, 0);
    CHECK_EQ(guest_count(EV_STALE), 0);
    guest_flush_global(0);
    guest_set_shared(0, target, 0, false);
    guest_load(0, target, 8);
    CHECK_EQ(told(), 2);
}

/* vmalloc: unmapped, flushed late, another page mapped there; and the same page
 * as before. */
TEST(a_reused_address)
{
    start(2);
    guest_unmap(0, target, 0);
    guest_flush_global(0);
    guest_flush_global(1);
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    guest_write(0, guest_slot(target, 0), (SMALL + PAGE_BYTES) | PTE_BITS | PTE_GLOBAL);
    guest_load(1, target, 8);
    guest_unmap(0, at(SMALL + 2 * PAGE_BYTES), 0);
    guest_set_shared(0, at(SMALL + 2 * PAGE_BYTES), 0, false);
    guest_map_gpa(0, SMALL + 2 * PAGE_BYTES, PAGE_BYTES, true);
    CHECK_EQ(guest_events(), 2);
    CHECK_EQ(guest_count(EV_CONVERT), 2);
}

/* A large leaf goes, small ones come in its place, and one of them is another.
 */
TEST(a_large_leaf_comes_back_in_parts)
{
    uint64_t table = 28 * MIB, slot, va;

    start(2);
    va = at(NONGLOBAL + MIB2);
    slot = guest_slot(va, 1);
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        *(uint64_t *)fake_ram(table + i * 8, 8) =
            (LARGE_AT + i * PAGE_BYTES) | PTE_BITS | (i == 9 ? SHARED_BIT : 0);
    }
    guest_unmap(0, va, 1);
    guest_write(0, slot, table | PTE_BITS);
    CHECK_EQ(guest_events(), 1);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[0], va + 9 * PAGE_BYTES);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[4], PAGE_BYTES);
    guest_write_cr3(1, guest.root);
    guest_map_gpa(0, LARGE_AT + 9 * PAGE_BYTES, PAGE_BYTES, true);
    /* The page's debt, and the large leaf's, which is gone for the rest of its
     * pages too. */
    CHECK_EQ(told(), 1);
}

/* Thousands of leaves that were flushed since are forgotten; one that was not
 * is kept. */
TEST(what_is_flushed_is_forgotten)
{
    start(1);
    guest_unmap(0, target, 0);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 1; i < 512; i++) {
            guest_unmap(0, at(SMALL + i * PAGE_BYTES), 0);
            guest_invlpg(0, at(SMALL + i * PAGE_BYTES));
        }
        for (unsigned i = 1; i < 512; i++) {
            guest_set_shared(0, at(SMALL + i * PAGE_BYTES), 0, false);
        }
    }
    CHECK_EQ(stub.gone.count, 1);
    for (unsigned i = 0; i < 4 * 4096; i++) {
        Gone gone = {.gva = at(GIB) + i * PAGE_BYTES, .bytes = PAGE_BYTES};

        gone_add(&stub.gone, &gone);
    }
    CHECK_EQ(stub.gone.count <= 4096, true);
    guest_set_shared(0, target, 0, true);
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    CHECK_EQ(told(), 1);
}

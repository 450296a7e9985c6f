/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whole conversions: order of PTE change, flushes, uses and MapGPA; wrong aliases; page tables. */
#include "whole.h"

#include <string.h>

#include "guest.h"
#include "stub.h"

static void flush_all_vcpus(void)
{
    for (unsigned v = 0; v < guest.vcpus; v++) {
        guest_flush_global(v);
    }
}

/* __set_memory_enc_pgtable() of Linux 6.12, both ways: nothing but the facts of the conversion. */
TEST(a_correct_conversion_tells_of_nothing)
{
    guest_start(3);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t bytes = (1 + i) * PAGE_BYTES;

        guest_store(i % 3, at(SMALL) + 100, 8);
        guest_convert(i % 3, SMALL, bytes, true);
        CHECK_EQ(guest_last(EV_CONVERT)->arg[3], 0);
        CHECK_EQ(guest_last(EV_CONVERT)->arg[4], (64ull * (1 + i)) << 32);
        guest_store(2, at(SMALL) + 200, 8);
        guest_load(1, at(SMALL) + 200, 8);
        guest_convert(1, SMALL, bytes, false);
        guest_store(0, at(SMALL) + 100, 8);
    }
    CHECK_EQ(guest_count(EV_STALE), 0);
    CHECK_EQ(guest_count(EV_WRONG_ALIAS), 0);
    CHECK_EQ(guest_count(EV_UNACCEPTED), 0);
    /* Lines that are dirty under the shared key are the VMM's: one store each time. */
    CHECK_EQ(guest_count(EV_DIRTY_RUN), 6);
    CHECK_EQ(guest_count(EV_PTE_CHANGE), 42);
}

/* Between change and invalidation a translation is used: told once per vCPU, with the access. */
TEST(a_use_before_the_invalidation)
{
    const EventRecord *record;

    guest_start(2);
    /* What is remembered of the mapping does not hide the change. */
    guest_store(1, at(SMALL) + 8, 8);
    guest_set_shared(0, at(SMALL), 0, true);
    guest_forget();
    guest_store(1, at(SMALL) + 8, 8);
    guest_load(1, at(SMALL) + 8, 8);
    CHECK_EQ(guest_count(EV_STALE), 1);
    record = guest_last(EV_STALE);
    CHECK_EQ(record->vcpu, 1);
    CHECK_EQ(record->flags, EF_USED | EF_WRITE | EF_TO_SHARED | EF_GLOBAL);
    CHECK_EQ(record->pc, GUEST_PC);
    guest_clflush(0, at(SMALL));
    CHECK_EQ(guest_count(EV_STALE), 2);
    CHECK_EQ(guest_last(EV_STALE)->vcpu, 0);
    CHECK_EQ(guest_last(EV_STALE)->flags, EF_USED | EF_CACHE | EF_TO_SHARED | EF_GLOBAL);
    guest_invlpg(0, at(SMALL));
    guest_invlpg(1, at(SMALL));
    guest_forget();
    guest_store(1, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_STALE), 0);
}

/* To private the first use is the commit: it tells who has not invalidated. */
TEST(shared_to_private_is_judged_at_the_first_use)
{
    guest_start(3);
    guest_convert(0, SMALL, PAGE_BYTES, true);
    guest_map_gpa(0, SMALL, PAGE_BYTES, false);
    guest_accept(0, SMALL, 0);
    guest_set_shared(0, at(SMALL), 0, false);
    guest_invlpg(0, at(SMALL));
    guest_forget();
    guest_store(0, at(SMALL), 8);
    CHECK_EQ(guest_events(), 2);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(guest_event(i)->kind, EV_STALE);
        CHECK_EQ(guest_event(i)->flags, EF_GLOBAL);
        CHECK_EQ(guest_event(i)->vcpu, 1 + i);
    }
    guest_load(1, at(SMALL), 8);
    CHECK_EQ(guest_events(), 3);
    CHECK_EQ(guest_event(2)->flags, EF_USED | EF_GLOBAL);
    guest_load(1, at(SMALL), 8);
    guest_invlpg(2, at(SMALL));
    guest_load(2, at(SMALL), 8);
    CHECK_EQ(guest_events(), 3);
}

/* A 2 MiB leaf is one debt, paid by an INVLPG anywhere in it. */
TEST(a_large_page_flips_at_once)
{
    guest_start(2);
    guest_set_shared(0, at(LARGE_AT), 1, true);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[4], MIB2);
    guest_invlpg(0, at(LARGE_AT) + MIB2 - 1);
    guest_map_gpa(0, LARGE_AT + 9 * PAGE_BYTES, PAGE_BYTES, true);
    CHECK_EQ(guest_count(EV_STALE), 1);
    CHECK_EQ(guest_last(EV_STALE)->vcpu, 1);
    CHECK_EQ(guest_last(EV_STALE)->arg[2], MIB2);
}

#define NEW_TABLE (28 * MIB)

static void fill_table(uint64_t gpa, uint64_t bits)
{
    for (unsigned i = 0; i < TABLE_ENTRIES; i++) {
        uint64_t entry = (gpa + i * PAGE_BYTES) | PTE_BITS | PTE_GLOBAL | bits;

        memcpy(fake_ram(NEW_TABLE + i * 8, 8), &entry, 8);
    }
}

/* As CPA does it: a table of 512 equal entries is linked, then one entry changes. */
TEST(split_and_join)
{
    uint64_t slot, large;

    guest_start(2);
    slot = guest_slot(at(LARGE_AT), 1);
    large = guest_entry(slot);
    fill_table(LARGE_AT, 0);
    guest_write(0, slot, NEW_TABLE | PTE_BITS);
    flush_all_vcpus();
    CHECK_EQ(guest_events(), 0);
    guest_set_shared(1, at(LARGE_AT + 5 * PAGE_BYTES), 0, true);
    CHECK_EQ(guest_events(), 1);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[0], at(LARGE_AT + 5 * PAGE_BYTES));
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->vcpu, 1);
    flush_all_vcpus();
    guest_forget();
    /* Joined again: page 5 changes with it, and the others do not. */
    guest_write(0, slot, large);
    CHECK_EQ(guest_events(), 1);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[0], at(LARGE_AT + 5 * PAGE_BYTES));
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[1], LARGE_AT + 5 * PAGE_BYTES);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[4], PAGE_BYTES);
    flush_all_vcpus();
    /* The table's page is data from here on, and costs no more than data. */
    CHECK_EQ(memory_page(&stub.memory, NEW_TABLE)->state, 0);
    guest_forget();
    guest_write(0, NEW_TABLE + 5 * 8, (LARGE_AT + 5 * PAGE_BYTES) | PTE_BITS | SHARED_BIT);
    guest_store(0, at(NEW_TABLE) + 64, 8);
    CHECK_EQ(guest_events(), 0);
    CHECK_EQ(guest_dirty(NEW_TABLE, true), 3);
}

/* Linked with another shared bit than the large page had: every page changes. */
TEST(a_split_that_changes_all_of_it)
{
    guest_start(1);
    fill_table(LARGE_AT, SHARED_BIT);
    guest_write(0, guest_slot(at(LARGE_AT), 1), NEW_TABLE | PTE_BITS);
    CHECK_EQ(guest_count(EV_PTE_CHANGE), TABLE_ENTRIES);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[0], at(LARGE_AT + 511 * PAGE_BYTES));
}

/* A large leaf with the PAT bit (bit 12 of a large entry, SDM volume 3, table 4-18). */
TEST(join_into_a_leaf_with_the_pat_bit)
{
    uint64_t slot, large;

    guest_start(1);
    slot = guest_slot(at(LARGE_AT), 1);
    large = guest_entry(slot);
    fill_table(LARGE_AT, 0);
    guest_write(0, slot, NEW_TABLE | PTE_BITS);
    guest_set_shared(0, at(LARGE_AT + 5 * PAGE_BYTES), 0, true);
    flush_all_vcpus();
    guest_forget();
    guest_write(0, slot, large | 1ull << 12);
    CHECK_EQ(guest_events(), 1);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[1], LARGE_AT + 5 * PAGE_BYTES);
}

/* A table that was replaced in the tables without the stub seeing it holds data: no event. */
TEST(a_page_that_was_a_table_once)
{
    uint64_t slot, old;

    guest_start(1);
    guest_store(0, at(SMALL), 8);
    slot = guest_slot(at(SMALL), 1);
    old = guest_entry(slot) & PTE_ADDRESS;
    guest_map(at(SMALL), SMALL, 1, PTE_GLOBAL); /* behind the stub's back */
    guest_flush_global(0);
    guest_write(0, old, SMALL | PTE_BITS | SHARED_BIT);
    CHECK_EQ(guest_events(), 0);
}

/* Only the shared bit makes an event; narrow stores do as well as wide ones. */
TEST(changes_of_other_bits)
{
    uint64_t slot, entry;

    guest_start(1);
    slot = guest_slot(at(SMALL), 0);
    entry = guest_entry(slot);
    guest_write(0, slot, entry & ~2ull);
    guest_write(0, slot, entry);
    guest_write(0, slot, 0);
    guest_write(0, slot, entry);
    CHECK_EQ(guest_events(), 0);
    *(uint64_t *)fake_ram(slot, 8) = entry | SHARED_BIT;
    guest_store(0, at(slot) + 6, 1);
    CHECK_EQ(guest_count(EV_PTE_CHANGE), 1);
    *(uint64_t *)fake_ram(slot, 8) = entry;
    *(uint64_t *)fake_ram(slot + 8, 8) |= SHARED_BIT;
    guest_store(0, at(slot), 16);
    CHECK_EQ(guest_count(EV_PTE_CHANGE), 3);
}

/* Two mappings of a page changed, and one was invalidated: the other still owes. */
TEST(two_mappings_owe_apart)
{
    guest_start(1);
    guest_set_shared(0, at(SMALL), 0, true);
    guest_set_shared(0, at(SHARED_ALIAS + SMALL), 0, false);
    guest_invlpg(0, at(SHARED_ALIAS + SMALL));
    guest_forget();
    guest_load(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_STALE), 1);
    CHECK_EQ(guest_last(EV_STALE)->arg[0], at(SMALL));
}

/* A load of up to 8 bytes that only ends in the wrong page, from wherever it begins. */
TEST(loads_that_reach_into_the_next_page)
{
    guest_start(1);
    for (uint64_t begin = PAGE_BYTES - 9; begin <= PAGE_BYTES; begin++) {
        guest_map_gpa(0, SMALL + PAGE_BYTES, PAGE_BYTES, true);
        guest_load(0, at(SMALL), 8);
        guest_forget();
        guest_load(0, at(SMALL) + begin, 8);
        CHECK_EQ(guest_count(EV_WRONG_ALIAS), begin + 8 > PAGE_BYTES);
    }
}

/* A wrong alias is told once per page and kind, until the next conversion. */
TEST(wrong_aliases_are_told_once)
{
    const EventRecord *record;

    guest_start(2);
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    guest_forget();
    guest_load(1, at(SMALL) + 4, 4);
    record = guest_last(EV_WRONG_ALIAS);
    CHECK_EQ(record->vcpu, 1);
    CHECK_EQ(record->flags, 0);
    CHECK_EQ(record->arg[0], at(SMALL) + 4);
    CHECK_EQ(record->arg[1], SMALL + 4);
    CHECK_EQ(record->arg[2], PAGE_SHARED);
    guest_store(0, at(SMALL), 8);
    CHECK_EQ(guest_events(), 1);
    guest_map_gpa(0, SMALL, PAGE_BYTES, false);
    guest_forget();
    guest_store(0, at(SMALL), 8);
    guest_store(0, at(SMALL), 8);
    guest_store(0, at(SHARED_ALIAS + SMALL), 8);
    guest_store(1, at(SHARED_ALIAS + SMALL), 8);
    CHECK_EQ(guest_events(), 2);
    CHECK_EQ(guest_event(0)->kind, EV_UNACCEPTED);
    CHECK_EQ(guest_event(0)->flags, EF_WRITE);
    CHECK_EQ(guest_event(0)->arg[2], PAGE_PENDING);
    CHECK_EQ(guest_event(1)->kind, EV_WRONG_ALIAS);
    CHECK_EQ(guest_event(1)->flags, EF_WRITE | EF_SHARED);
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    guest_forget();
    guest_store(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_WRONG_ALIAS), 1);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VMM that misbehaves: its answers, and what comes of the pages it leaves. */
#include "whole.h"

#include <signal.h>

#include "guest.h"

#define BYTES (4 * PAGE_BYTES)
#define RETRY 1
#define BEGIN 1

static void start(const char *vmm)
{
    guest_prepare(5);
    guest_boot(2, vmm);
    CHECK_EQ(guest_vmcall(0, 0x544448, BEGIN, 1, 0), 0); /* a mark */
    guest_forget();
}

static void check_vmm(const EventRecord *record, uint64_t behaviour, uint64_t pages, uint64_t gpa,
                      uint64_t bytes, uint64_t r10)
{
    CHECK_EQ(record->kind, EV_VMM);
    CHECK_EQ(record->arg[0], pages << 32 | behaviour);
    CHECK_EQ(record->arg[1], gpa);
    CHECK_EQ(record->arg[2], bytes);
    CHECK_EQ(record->arg[3], r10);
}

TEST(vmm_behaves_until_the_first_mark)
{
    guest_prepare(5);
    guest_boot(1, "vmm=error");
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, true), 0);
    CHECK_EQ(guest_count(EV_VMM), 0);
    guest_vmcall(0, 0x544448, BEGIN, 1, 0);
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, false), 1ull << 63);
}

TEST(vmm_retry_converts_what_it_says)
{
    start("vmm=retry/chunk=8192");
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, true), RETRY);
    CHECK_EQ(fake_get(0, R11), (SMALL + 2 * PAGE_BYTES) | SHARED_BIT);
    CHECK_EQ(guest_events(), 2);
    check_vmm(guest_event(0), VMM_RETRY, 2, SMALL, BYTES, RETRY);
    CHECK_EQ(guest_event(0)->flags, EF_TO_SHARED);
    CHECK_EQ(guest_event(1)->kind, EV_CONVERT);
    CHECK_EQ(guest_event(1)->arg[0], SMALL);
    CHECK_EQ(guest_event(1)->arg[1], 2 * PAGE_BYTES);
    CHECK_EQ(guest_map_gpa(0, SMALL + 2 * PAGE_BYTES, 2 * PAGE_BYTES, true), 0);
    CHECK_EQ(guest_count(EV_VMM), 1);
    CHECK_EQ(guest_count(EV_CONVERT), 2);
    /* All went well in the end: the pages are like any others. */
    guest_store(0, at(SMALL + SHARED_ALIAS), 8);
    CHECK_EQ(guest_count(EV_DISOWNED), 0);
    /* To private the address has no shared bit. */
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, false), RETRY);
    CHECK_EQ(fake_get(0, R11), SMALL + 2 * PAGE_BYTES);
}

TEST(vmm_failed_pages_are_watched)
{
    start("vmm=error/done=1/index=1");
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, true), 1ull << 63);
    CHECK_EQ(guest_count(EV_CONVERT), 1);
    guest_clflush(0, at(SMALL + PAGE_BYTES));
    CHECK_EQ(guest_count(EV_DISOWNED), 0);
    guest_load(1, at(SMALL + PAGE_BYTES) + 8, 8);
    CHECK_EQ(guest_count(EV_DISOWNED), 1);
    CHECK_EQ(guest_last(EV_DISOWNED)->vcpu, 1);
    CHECK_EQ(guest_last(EV_DISOWNED)->flags, 0);
    CHECK_EQ(guest_last(EV_DISOWNED)->arg[1], SMALL + PAGE_BYTES + 8);
    CHECK_EQ(guest_last(EV_DISOWNED)->arg[2], 0);
    CHECK_EQ(guest_last(EV_DISOWNED)->arg[3], guest_event(0)->seq);
    /* Once a page. */
    guest_store(0, at(SMALL + PAGE_BYTES), 8);
    CHECK_EQ(guest_count(EV_DISOWNED), 1);
    /* The part that was converted is not the guest's to use, either. */
    guest_store(0, at(SMALL + SHARED_ALIAS), 8);
    CHECK_EQ(guest_count(EV_DISOWNED), 2);
    CHECK_EQ(guest_last(EV_DISOWNED)->flags, EF_WRITE | EF_SHARED);
    CHECK_EQ(guest_last(EV_DISOWNED)->arg[2], PAGE_SHARED);
    /* A conversion that succeeds mends it. */
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, true), 0);
    guest_store(0, at(SMALL + 2 * PAGE_BYTES + SHARED_ALIAS), 8);
    CHECK_EQ(guest_count(EV_DISOWNED), 2);
}

TEST(vmm_short_success)
{
    start("vmm=short/done=1");
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, true), 0);
    check_vmm(guest_event(0), VMM_SHORT, 1, SMALL, BYTES, 0);
    CHECK_EQ(guest_event(1)->arg[1], PAGE_BYTES);
    guest_load(0, at(SMALL + PAGE_BYTES + SHARED_ALIAS), 8);
    CHECK_EQ(guest_count(EV_WRONG_ALIAS), 1);
    CHECK_EQ(guest_count(EV_DISOWNED), 0);
}

TEST(vmm_slow_and_kept_mapping_convert)
{
    start("vmm=ept/to=shared+slow/ms=1");
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, true), 0);
    check_vmm(guest_event(0), VMM_EPT, 4, SMALL, BYTES, 0);
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, false), 0);
    check_vmm(guest_last(EV_VMM), VMM_SLOW, 4, SMALL, BYTES, 0);
    CHECK_EQ(guest_count(EV_CONVERT), 2);
}

TEST(vmm_bad_operands_are_refused_as_ever)
{
    start("vmm=ept");
    CHECK_EQ(guest_map_gpa(0, SMALL + 1, BYTES, true), 0x8000000000000002ull);
    CHECK_EQ(guest_count(EV_VMM), 0);
}

/* More than there is: only what is memory is looked at. */
TEST(vmm_huge_range)
{
    start("vmm=error/done=1000000000");
    CHECK_EQ(guest_map_gpa(0, 0, SHARED_BIT, true), 1ull << 63);
    CHECK_EQ(guest_map_gpa(0, 0, SHARED_BIT - PAGE_BYTES, true), 1ull << 63);
}

static sig_atomic_t ended;

static void on_term(int number)
{
    ended++;
}

/* Lines 0 and 3 of the first page are dirty under the shared key when it becomes private. */
static void leave_dirty(const char *vmm)
{
    start(vmm);
    signal(SIGTERM, on_term);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, true), 0);
    guest_store(0, at(SMALL + SHARED_ALIAS), 8);
    guest_store(0, at(SMALL + SHARED_ALIAS) + 64, 8);
    guest_store(0, at(SMALL + SHARED_ALIAS) + 3 * 64, 8);
    guest_clflush(0, at(SMALL + SHARED_ALIAS) + 64);
    guest_forget();
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, false), 0);
    CHECK_EQ(guest_count(EV_VMM), 1);
}

TEST(poison_comes_behind_accept_and_kills)
{
    uint64_t convert;

    leave_dirty("vmm=cache");
    convert = guest_last(EV_CONVERT)->seq;
    CHECK_EQ(guest_count(EV_POISON), 0);
    guest_accept(0, SMALL, 0);
    CHECK_EQ(guest_last(EV_POISON)->arg[0], SMALL);
    CHECK_EQ(guest_last(EV_POISON)->arg[1], 1 << 0 | 1 << 3);
    CHECK_EQ(guest_last(EV_POISON)->arg[2], convert);
    guest_load(0, at(SMALL) + 64, 8);
    guest_clflush(0, at(SMALL));
    CHECK_EQ(guest_count(EV_POISON_READ), 0);
    guest_load(1, at(SMALL) + 3 * 64 + 8, 8);
    CHECK_EQ(ended, 1);
    CHECK_EQ(guest_last(EV_POISON_READ)->arg[1], SMALL + 3 * 64 + 8);
    CHECK_EQ(guest_last(EV_POISON_READ)->arg[2], POISON_TD_DEAD);
    CHECK_EQ(guest_last(EV_POISON_READ)->arg[3], convert);
    CHECK_EQ(guest_last(EV_POISON_READ)->vcpu, 1);
    /* The TD never runs again: nothing more is recorded but the end. */
    guest_forget();
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    CHECK_EQ(guest_events(), 0);
    fake_exit();
    CHECK_EQ(guest_last(EV_TRAILER)->kind, EV_TRAILER);
}

TEST(poison_is_read_by_a_store_to_a_part_of_the_line)
{
    leave_dirty("vmm=cache/on=guest-mce");
    guest_accept(0, SMALL, 0);
    guest_store(0, at(SMALL) + 3 * 64, 32);
    CHECK_EQ(guest_last(EV_POISON_READ)->flags, EF_WRITE);
    CHECK_EQ(guest_last(EV_POISON_READ)->arg[2], POISON_GUEST_MCE);
    CHECK_EQ(ended, 0);
    /* The guest lives, and the page is given up. */
    guest_load(0, at(SMALL) + 3 * 64, 8);
    CHECK_EQ(guest_count(EV_POISON_READ), 1);
}

TEST(poison_may_come_later)
{
    leave_dirty("vmm=cache/after=3/on=host-crash");
    guest_accept(0, SMALL, 0);
    CHECK_EQ(guest_count(EV_POISON), 0);
    guest_load(0, at(SMALL), 8);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(guest_count(EV_POISON), 0);
        guest_tdcall(0, 1);
    }
    CHECK_EQ(guest_count(EV_POISON), 1);
    guest_load(0, at(SMALL), 8);
    CHECK_EQ(guest_last(EV_POISON_READ)->arg[2], POISON_HOST_CRASH);
    CHECK_EQ(ended, 1);
}

TEST(poison_needs_a_dirty_line)
{
    start("vmm=cache");
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, true), 0);
    guest_load(0, at(SMALL + SHARED_ALIAS), 8);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, false), 0);
    CHECK_EQ(guest_count(EV_VMM), 1);
    guest_accept(0, SMALL, 0);
    guest_load(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_POISON) + guest_count(EV_POISON_READ), 0);
}

TEST(poison_goes_with_the_next_conversion)
{
    leave_dirty("vmm=cache/index=1");
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, true), 0);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, false), 0);
    guest_accept(0, SMALL, 0);
    guest_load(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_POISON), 0);
}

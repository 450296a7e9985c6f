/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stub that ignores an ACCEPT or a part of a MapGPA of a correct guest. */
#include "whole.h"

#include "guest.h"

#define PAGES 4
#define BYTES (PAGES * PAGE_BYTES)

static void start(const char *option)
{
    guest_prepare(5);
    guest_boot(3, option);
}

static void mark(uint64_t kind, uint64_t id)
{
    CHECK_EQ(guest_vmcall(0, 0x544448, kind, id, 0), 0);
}

/* The one record of a fault. */
static void check_fault(uint64_t gpa, uint64_t bytes, uint64_t what, uint64_t seq)
{
    const EventRecord *record = guest_last(EV_FAULT);

    CHECK_EQ(guest_count(EV_FAULT), 1);
    CHECK_EQ(record->arg[0], 1);
    CHECK_EQ(record->arg[1], gpa);
    CHECK_EQ(record->arg[2], bytes);
    CHECK_EQ(record->arg[3], what);
    CHECK_EQ(record->arg[4], seq);
}

TEST(a_lost_accept)
{
    start("fault=accept/part=last-page");
    guest_convert(0, SMALL, BYTES, true);
    guest_convert(0, SMALL, BYTES, false);
    check_fault(SMALL + 3 * PAGE_BYTES, PAGE_BYTES, 0, guest_last(EV_CONVERT)->seq);
    guest_load(0, at(SMALL) + 2 * PAGE_BYTES, 8);
    CHECK_EQ(guest_count(EV_UNACCEPTED), 0);
    guest_load(0, at(SMALL) + 3 * PAGE_BYTES, 8);
    CHECK_EQ(guest_last(EV_UNACCEPTED)->arg[1], SMALL + 3 * PAGE_BYTES);
    /* The next conversion is whole again. */
    guest_convert(0, SMALL, BYTES, true);
    guest_convert(0, SMALL, BYTES, false);
    guest_forget();
    guest_load(0, at(SMALL) + 3 * PAGE_BYTES, 8);
    CHECK_EQ(guest_events(), 0);
}

/* Of 2 MiB accepted at once, one page is lost. */
TEST(a_lost_accept_in_a_large_one)
{
    start("fault=accept/part=middle-page");
    guest_map_gpa(0, LARGE_AT, MIB2, true);
    guest_map_gpa(0, LARGE_AT, MIB2, false);
    CHECK_EQ(guest_accept(0, LARGE_AT, 1), 0);
    check_fault(LARGE_AT + MIB, PAGE_BYTES, 0, guest_last(EV_CONVERT)->seq);
    guest_load(0, at(LARGE_AT + MIB) - 8, 8);
    CHECK_EQ(guest_count(EV_UNACCEPTED), 0);
    guest_load(0, at(LARGE_AT + MIB), 8);
    CHECK_EQ(guest_count(EV_UNACCEPTED), 1);
}

TEST(the_end_mark_makes_a_lost_accept_good)
{
    start("fault=accept/mark=7");
    mark(1, 7);
    guest_convert(0, SMALL, BYTES, true);
    guest_convert(0, SMALL, BYTES, false);
    CHECK_EQ(guest_count(EV_FAULT), PAGES);
    mark(2, 7);
    guest_load(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_UNACCEPTED), 0);
    /* Behind its end nothing is lost. */
    guest_forget();
    guest_convert(0, SMALL, BYTES, true);
    guest_convert(0, SMALL, BYTES, false);
    CHECK_EQ(guest_count(EV_FAULT), 0);
}

TEST(a_mapgpa_to_shared_one_page_short)
{
    start("fault=mapgpa/to=shared/part=last-page");
    guest_convert(0, SMALL, BYTES, true);
    check_fault(SMALL + 3 * PAGE_BYTES, PAGE_BYTES, 0, guest_last(EV_CONVERT)->seq);
    guest_forget();
    guest_load(0, at(SMALL) + 2 * PAGE_BYTES, 8);
    CHECK_EQ(guest_events(), 0);
    guest_load(0, at(SMALL) + 3 * PAGE_BYTES, 8);
    CHECK_EQ(guest_last(EV_WRONG_ALIAS)->flags, EF_SHARED);
    CHECK_EQ(guest_last(EV_WRONG_ALIAS)->arg[1], SMALL + 3 * PAGE_BYTES);
    /* It is private and accepted: the way back says so, and has no flush left over. */
    guest_map_gpa(0, SMALL, BYTES, false);
    CHECK_EQ(guest_last(EV_CONVERT)->arg[4], 0);
    CHECK_EQ(guest_accept(0, SMALL + 2 * PAGE_BYTES, 0), 0);
    CHECK_EQ(guest_accept(0, SMALL + 3 * PAGE_BYTES, 0) >> 32, 0xb0a);
}

TEST(a_mapgpa_to_private_one_page_short)
{
    start("fault=mapgpa/to=private/part=first-page");
    guest_convert(0, SMALL, BYTES, true);
    CHECK_EQ(guest_map_gpa(0, SMALL, BYTES, false), 0);
    check_fault(SMALL, PAGE_BYTES, 0, guest_last(EV_CONVERT)->seq);
    CHECK_EQ(guest_accept(0, SMALL, 0) >> 32, 0xc0000b00);
    CHECK_EQ(guest_accept(0, SMALL + PAGE_BYTES, 0), 0);
}

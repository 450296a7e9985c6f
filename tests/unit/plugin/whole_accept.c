/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TDG.MEM.PAGE.ACCEPT: Intel TDX Module ABI; status codes as the published module returns them. */
#include "whole.h"

#include <string.h>

#include "guest.h"

#define INVALID_RCX 0xc000010000000001ull
#define ALREADY 0x00000b0a00000000ull
#define MISMATCH 0xc0000b0b00000000ull
#define WALK_FAILED 0xc0000b0000000001ull

/* To shared and back: pending. */
static void make_pending(uint64_t gpa, uint64_t bytes)
{
    CHECK_EQ(guest_map_gpa(0, gpa, bytes, true), 0);
    CHECK_EQ(guest_map_gpa(0, gpa, bytes, false), 0);
    guest_forget();
}

static void check_event(uint64_t gpa, unsigned level, uint64_t status, unsigned before,
                        uint32_t flags)
{
    const EventRecord *record = guest_last(EV_ACCEPT);

    CHECK_EQ(record->arg[0], gpa);
    CHECK_EQ(record->arg[1], level);
    CHECK_EQ(record->arg[2], status);
    CHECK_EQ(record->arg[3], before);
    CHECK_EQ(record->flags, flags);
    CHECK_EQ(record->pc, GUEST_PC);
    CHECK_EQ(guest_events(), 1);
    guest_forget();
}

static void check_zeroed(uint64_t gpa, uint64_t bytes)
{
    uint8_t *ram = fake_ram(gpa - 16, bytes + 32);

    for (uint64_t i = 0; i < bytes + 32; i++) {
        CHECK_EQ(ram[i], i < 16 || i >= bytes + 16 ? 0xa5 : 0);
    }
}

TEST(accept_zeroes_its_page_and_no_other)
{
    guest_start(1);
    memset(fake_ram(SMALL, MIB2), 0xa5, MIB2);
    make_pending(SMALL, 4 * PAGE_BYTES);
    CHECK_EQ(guest_accept(0, SMALL + PAGE_BYTES, 0), 0);
    check_event(SMALL + PAGE_BYTES, 0, 0, PAGE_PENDING, 0);
    check_zeroed(SMALL + PAGE_BYTES, PAGE_BYTES);
    /* The second time it would replace what the guest wrote: refused, and the data stays. */
    memset(fake_ram(SMALL + PAGE_BYTES, PAGE_BYTES), 0xa5, PAGE_BYTES);
    CHECK_EQ(guest_accept(0, SMALL + PAGE_BYTES, 0), ALREADY);
    check_event(SMALL + PAGE_BYTES, 0, ALREADY, 0, 0);
    CHECK_EQ(*(uint8_t *)fake_ram(SMALL + PAGE_BYTES, 1), 0xa5);
}

TEST(accept_of_2_mib_zeroes_all_of_it)
{
    guest_start(1);
    memset(fake_ram(LARGE_AT - PAGE_BYTES, 2 * MIB2), 0xa5, 2 * MIB2);
    make_pending(LARGE_AT, MIB2);
    CHECK_EQ(guest_accept(0, LARGE_AT, 1), 0);
    check_event(LARGE_AT, 1, 0, PAGE_PENDING, 0);
    check_zeroed(LARGE_AT, MIB2);
    CHECK_EQ(guest_accept(0, LARGE_AT, 1), ALREADY | 1);
    check_event(LARGE_AT, 1, ALREADY | 1, 0, 0);
    CHECK_EQ(guest_accept(0, LARGE_AT + MIB2 - PAGE_BYTES, 0), ALREADY);
}

TEST(accept_above_4_gib)
{
    guest_start(1);
    memset(fake_ram(4 * GIB, ABOVE_4G), 0xa5, ABOVE_4G);
    make_pending(4 * GIB + MIB2, MIB2);
    CHECK_EQ(guest_accept(0, 4 * GIB + MIB2, 1), 0);
    CHECK_EQ(*(uint8_t *)fake_ram(4 * GIB + MIB2 - 1, 1), 0xa5);
    CHECK_EQ(*(uint8_t *)fake_ram(4 * GIB + MIB2, 1), 0);
    CHECK_EQ(*(uint8_t *)fake_ram(4 * GIB + 2 * MIB2 - 1, 1), 0);
}

TEST(accept_of_a_mixture_asks_for_a_smaller_size)
{
    guest_start(1);
    memset(fake_ram(SMALL, MIB2), 0xa5, MIB2);
    make_pending(SMALL + 8 * PAGE_BYTES, PAGE_BYTES);
    CHECK_EQ(guest_accept(0, SMALL, 1), MISMATCH | 1);
    check_event(SMALL, 1, MISMATCH | 1, 0, 0);
    CHECK_EQ(*(uint8_t *)fake_ram(SMALL + 8 * PAGE_BYTES, 1), 0xa5);
    CHECK_EQ(guest_accept(0, SMALL + 8 * PAGE_BYTES, 0), 0);
    guest_forget();
    CHECK_EQ(guest_accept(0, SMALL, 1), ALREADY | 1);
    check_event(SMALL, 1, ALREADY | 1, 0, 0);
}

TEST(accept_of_a_shared_page_fails)
{
    guest_start(1);
    memset(fake_ram(SMALL, MIB2), 0xa5, MIB2);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, true), 0);
    guest_forget();
    CHECK_EQ(guest_accept(0, SMALL, 0), WALK_FAILED);
    check_event(SMALL, 0, WALK_FAILED, PAGE_SHARED, 0);
    CHECK_EQ(guest_accept(0, SMALL, 1), WALK_FAILED);
    CHECK_EQ(*(uint8_t *)fake_ram(SMALL, 1), 0xa5);
}

/* RCX: level in 2:0, GPA in 51:12, the rest reserved; levels 0 and 1 are legal. Linux asks for
   1 GiB where that is aligned, so the refusal of it is no fault of the guest. */
TEST(accept_operands)
{
    static const struct {
        uint64_t rcx;
        uint32_t flags;
    } cases[] = {
        {LARGE_AT + PAGE_BYTES + 1, EF_BAD}, /* not 2 MiB aligned */
        {LARGE_AT | 0x8, EF_BAD},            /* reserved bits */
        {LARGE_AT | 0x800, EF_BAD},
        {LARGE_AT | SHARED_BIT, EF_BAD},
        {LARGE_AT | 1ull << 53, EF_BAD},
        {LARGE_AT | 1ull << 63 | 1, EF_BAD},
        {LARGE_AT | 3, EF_BAD}, /* 512 GiB */
        {LARGE_AT | 7, EF_BAD},
        {4 * GIB | 2, 0},       /* 1 GiB */
        {LARGE_AT | 2, EF_BAD}, /* not 1 GiB aligned */
        {4 * GIB | SHARED_BIT | 2, EF_BAD},
        {4 * GIB | 0x10 | 2, EF_BAD},
    };

    guest_start(1);
    make_pending(LARGE_AT, MIB2);
    make_pending(4 * GIB, ABOVE_4G);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        fprintf(stderr, "case %zu\n", i);
        CHECK_EQ(guest_accept(0, cases[i].rcx, 0), INVALID_RCX);
        check_event(cases[i].rcx & ~0xfffull, cases[i].rcx & 7, INVALID_RCX, 0, cases[i].flags);
    }
    /* None of them accepted anything. */
    CHECK_EQ(guest_accept(0, LARGE_AT, 1), 0);
}

/* Where there is no RAM the secure EPT has no entry, however the VMM is asked. */
TEST(accept_where_there_is_no_ram)
{
    guest_start(1);
    CHECK_EQ(guest_accept(0, 0xfee00000, 0), WALK_FAILED);
    check_event(0xfee00000, 0, WALK_FAILED, 0, EF_BAD);
    CHECK_EQ(guest_accept(0, 0xfee00000, 1), WALK_FAILED);
    CHECK_EQ(guest_accept(0, 1ull << 51, 1), WALK_FAILED);
    CHECK_EQ(guest_accept(0, BELOW_4G, 0), WALK_FAILED);
    CHECK_EQ(guest_accept(0, BELOW_4G - PAGE_BYTES, 0), ALREADY);
}

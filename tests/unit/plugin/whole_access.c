/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which lines a store makes dirty, under which key: SDM volume 3, 4.5 for the walks. */
#include "whole.h"

#include <string.h>

#include "guest.h"

#define LAST 0x8000000000000000ull
#define GUEST_PAGE (SMALL + 2 * PAGE_BYTES)

static const struct {
    uint64_t offset;
    unsigned bytes;
    uint64_t first, second; /* lines of the page, and of the one behind it */
} stores[] = {
    {0, 1, 1, 0},         {63, 1, 1, 0},
    {64, 8, 2, 0},        {0x38, 8, 1, 0},
    {0x39, 8, 3, 0},      {0x3f, 2, 3, 0},
    {0x3d, 4, 3, 0},      {0x3c, 4, 1, 0},
    {0x30, 16, 1, 0},     {0x38, 16, 3, 0},
    {0x20, 32, 1, 0},     {0x30, 32, 3, 0},
    {0, 64, 1, 0},        {0x20, 64, 3, 0},
    {0xff8, 8, LAST, 0},  {0xffc, 8, LAST, 1},
    {0xfff, 2, LAST, 1},  {0xff8, 16, LAST, 1},
    {0xfe0, 64, LAST, 1}, {0xff0, 16, LAST, 0},
    {0xfff, 1, LAST, 0},  {0x7f8, 64, 3ull << 31, 0},
};

static void check_stores(uint64_t va, uint64_t gpa, bool shared)
{
    for (size_t i = 0; i < G_N_ELEMENTS(stores); i++) {
        fprintf(stderr, "case %zu\n", i);
        guest_store(0, va + stores[i].offset, stores[i].bytes);
        CHECK_EQ(guest_dirty(gpa, !shared), stores[i].first);
        CHECK_EQ(guest_dirty(gpa + PAGE_BYTES, !shared), stores[i].second);
        guest_map_gpa(0, gpa, 2 * PAGE_BYTES, shared);
        CHECK_EQ(shared || !guest_accept(0, gpa, 0), true);
        CHECK_EQ(shared || !guest_accept(0, gpa + PAGE_BYTES, 0), true);
    }
}

TEST(stores_through_4_kib_leaves)
{
    guest_start(1);
    check_stores(at(GUEST_PAGE), GUEST_PAGE, false);
}

TEST(stores_through_shared_leaves)
{
    guest_start(1);
    guest_map_gpa(0, GUEST_PAGE, 2 * PAGE_BYTES, true);
    check_stores(at(SHARED_ALIAS + GUEST_PAGE), GUEST_PAGE, true);
}

TEST(stores_through_2_mib_leaves)
{
    guest_start(1);
    check_stores(at(LARGE_AT + 7 * PAGE_BYTES), LARGE_AT + 7 * PAGE_BYTES, false);
    /* From one leaf into the next. */
    check_stores(at(LARGE_AT + MIB2 - PAGE_BYTES), LARGE_AT + MIB2 - PAGE_BYTES, false);
}

TEST(stores_through_1_gib_leaves)
{
    guest_start(1);
    check_stores(at(HUGE_ALIAS + LARGE_AT), LARGE_AT, false);
}

TEST(stores_above_4_gib)
{
    guest_start(1);
    check_stores(at(4 * GIB + MIB2 - PAGE_BYTES), 4 * GIB + MIB2 - PAGE_BYTES, false);
}

TEST(stores_with_4_level_paging)
{
    guest_prepare(4);
    guest_boot(1, NULL);
    check_stores(at(GUEST_PAGE), GUEST_PAGE, false);
    check_stores(at(HUGE_ALIAS + LARGE_AT), LARGE_AT, false);
}

TEST(stores_with_paging_off)
{
    guest_prepare(5);
    guest_install(1, NULL);
    fake_set(0, REG_CR0, 1);
    fake_create_vcpu(0);
    check_stores(GUEST_PAGE, GUEST_PAGE, false);
}

/* Neighbours in memory, scattered in the address space: each part goes to its own frame. */
TEST(a_store_follows_both_mappings)
{
    const uint64_t va = 0x400000;

    guest_prepare(5);
    guest_map(va, SMALL + 9 * PAGE_BYTES, 0, 0);
    guest_map(va + PAGE_BYTES, SMALL + 3 * PAGE_BYTES, 0, SHARED_BIT);
    guest_boot(1, NULL);
    guest_map_gpa(0, SMALL + 3 * PAGE_BYTES, PAGE_BYTES, true);
    guest_forget();
    guest_store(0, va + 0xffc, 8);
    CHECK_EQ(guest_events(), 0);
    CHECK_EQ(guest_dirty(SMALL + 9 * PAGE_BYTES, true), LAST);
    CHECK_EQ(guest_dirty(SMALL + 3 * PAGE_BYTES, false), 1);
}

/* Devices, the legacy hole, and what no table maps: nothing to keep, nothing to fall over. */
TEST(stores_to_what_is_no_ram)
{
    static const uint64_t gpas[] = {0xfee00000, 0xa0000, 0xffff8, 1 * GIB};

    guest_start(1);
    for (size_t i = 0; i < G_N_ELEMENTS(gpas); i++) {
        guest_store(0, at(gpas[i]), 8);
        guest_load(0, at(gpas[i]), 8);
        guest_store(0, at(gpas[i]), 8);
    }
    guest_store(0, 0x123000, 8);
    guest_store(0, 0xfffffffffffffffc, 8);
    CHECK_EQ(guest_map_gpa(0, 0xa0000, 0x60000, true), 0);
    CHECK_EQ(guest_last(EV_CONVERT)->arg[3], 0);
    CHECK_EQ(guest_events(), 1);
}

/* A flush instruction may fault where nothing is mapped yet; the kernel maps it, without any
   invalidation (SDM volume 3, 5.10.4.3), and the stores behind it count. */
TEST(a_mapping_that_was_missing_is_found_later)
{
    const uint64_t va = 0x400000;

    guest_prepare(5);
    guest_map(va + PAGE_BYTES, ELSEWHERE, 0, 0);
    guest_boot(1, NULL);
    guest_clflush(0, va);
    guest_map(va, SMALL, 0, 0);
    guest_store(0, va, 8);
    CHECK_EQ(guest_dirty(SMALL, true), 1);
}

/* Another root shows other frames, also where its PCID's entries are kept. */
TEST(another_root_is_walked)
{
    const uint64_t va = 0x400000, other = 20 * MIB;
    uint64_t entry;

    guest_prepare(5);
    guest_map(va, SMALL, 0, 0);
    guest_boot(1, NULL);
    guest_write_cr4(0, fake_get(0, REG_CR4) | CR4_PCIDE);
    guest_store(0, va, 8);
    memcpy(fake_ram(other, PAGE_BYTES), fake_ram(guest.root, PAGE_BYTES), PAGE_BYTES);
    guest.root = other;
    entry = 0;
    memcpy(fake_ram(other, 8), &entry, 8);
    guest_map(va, SMALL + PAGE_BYTES, 0, 0);
    guest_write_cr3(0, other | 1 | CR3_NOFLUSH);
    guest_store(0, va + 64, 8);
    CHECK_EQ(guest_dirty(SMALL, true), 1);
    CHECK_EQ(guest_dirty(SMALL + PAGE_BYTES, true), 2);
}

/* INVLPG of any address in a large page invalidates all of it (SDM volume 3, 5.10.4.1). */
static void move_large_page(int level, uint64_t from)
{
    const uint64_t va = 4 * GIB, no_ram = 2 * GIB;

    guest_prepare(5);
    guest_map(va, from, level, 0);
    guest_boot(1, NULL);
    guest_store(0, va + LARGE_AT - from, 8);
    guest_map(va, no_ram, level, 0);
    guest_invlpg(0, va + level_bytes(level) - 1);
    guest_store(0, va + LARGE_AT - from + 64, 8);
    CHECK_EQ(guest_dirty(LARGE_AT, true), 1);
}

TEST(a_2_mib_page_that_moved)
{
    move_large_page(1, LARGE_AT);
}

TEST(a_1_gib_page_that_moved)
{
    move_large_page(2, 0);
}

/* Loads dirty nothing. */
TEST(loads_leave_lines_clean)
{
    guest_start(1);
    for (unsigned bytes = 1; bytes <= 64; bytes *= 2) {
        guest_load(0, at(SMALL) + 0xff0, bytes);
    }
    CHECK_EQ(guest_dirty(SMALL, true), 0);
    CHECK_EQ(guest_dirty(SMALL + PAGE_BYTES, true), 0);
}

/* The last store to each 512 bytes names its PC when that is the kernel's, and its vCPU. */
TEST(a_dirty_run_names_the_store)
{
    const uint64_t user[2] = {0x401000, GUEST_PC};

    guest_start(2);
    for (unsigned i = 0; i < 2; i++) {
        FakeTb *tb = fake_translate(user[i], 1, &(const uint8_t[1][15]){{0x88, 0x07}}[0],
                                    &(const size_t){2});

        fake_exec(1, &tb->insn[0]);
        fake_access(1, &tb->insn[0], at(SMALL), 1, MEM_W);
        guest_map_gpa(0, SMALL, PAGE_BYTES, true);
        CHECK_EQ(guest_last(EV_DIRTY_RUN)->arg[2], i ? GUEST_PC : 0);
        CHECK_EQ(guest_last(EV_DIRTY_RUN)->arg[3], 1);
        CHECK_EQ(guest_last(EV_DIRTY_RUN)->arg[4], guest_last(EV_CONVERT)->seq);
        guest_map_gpa(0, SMALL, PAGE_BYTES, false);
        guest_accept(0, SMALL, 0);
    }
}

/* Everything is remembered by generation, and generations are numbered in 12 bits. */
TEST(generations_run_out)
{
    guest_start(1);
    for (unsigned i = 0; i < 5000; i++) {
        guest_write_cr3(0, guest.root);
        guest_store(0, at(HUGE_ALIAS + LARGE_AT) + i % 64 * 64, 8);
        if (i % 1500 == 0) {
            guest_flush_global(0);
        }
        guest_store(0, at(SMALL) + i % 64 * 64, 8);
        if (i % 1000 == 999) {
            CHECK_EQ(guest_dirty(LARGE_AT, true), ~0ull);
            CHECK_EQ(guest_dirty(SMALL, true), ~0ull);
            guest_map_gpa(0, LARGE_AT, PAGE_BYTES, false);
            guest_map_gpa(0, SMALL, PAGE_BYTES, false);
            guest_accept(0, LARGE_AT, 0);
            guest_accept(0, SMALL, 0);
        }
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Walks and the shadow, over a memory of a few hand-made tables. */
#include <string.h>

#include "check.h"
#include "pgtable.h"

#define TOP 0xff11000000000000ull /* a kernel address of 5-level paging */
enum { ROOT = 0x1000, P4D = 0x2000, PUD = 0x3000, PMD = 0x4000, PTE = 0x5000, MEMORY = 0x10000 };
enum { P4D2 = 0x6000, PUD2 = 0x7000 };
#define LINK 0x63ull
#define LARGE (LINK | PTE_LARGE | PTE_GLOBAL)

static uint8_t memory[MEMORY];
static Flip flips[600];
static size_t flip_count;
static uint64_t watched;

static bool read_memory(uint64_t gpa, uint64_t *entries, size_t count, void *unused)
{
    (void)unused;
    if (gpa + count * 8 > MEMORY) {
        return false;
    }
    memcpy(entries, memory + gpa, count * 8);
    return true;
}

static void watch(uint64_t gpa, bool is_table)
{
    watched = is_table ? watched | 1ull << gpa / 4096 : watched & ~(1ull << gpa / 4096);
}

static void on_flip(const Flip *flip, void *unused)
{
    (void)unused;
    flips[flip_count++ % 600] = *flip;
}

static Flip gone, came;
static size_t gone_count, came_count;

static void on_gone(const Flip *flip, void *unused)
{
    (void)unused;
    gone = *flip;
    gone_count++;
}

static void on_came(const Flip *flip, void *unused)
{
    (void)unused;
    came = *flip;
    came_count++;
}

static Tables tables = {
    .read = read_memory, .watch = watch, .flip = on_flip, .gone = on_gone, .came = on_came};

static void put(uint64_t table, unsigned index, uint64_t value)
{
    memcpy(memory + table + index * 8, &value, 8);
}

static void store(uint64_t table, unsigned index, uint64_t value)
{
    put(table, index, value);
    tables_store(&tables, table + index * 8, 8, NULL);
}

static Leaf walk(uint64_t gva)
{
    return pgtable_walk(read_memory, NULL, ROOT, 5, gva);
}

static void set_up(void)
{
    memset(memory, 0, sizeof(memory));
    put(ROOT, TOP >> 48 & 511, P4D | LINK);
    put(P4D, TOP >> 39 & 511, PUD | LINK);
    put(PUD, 0, PMD | LINK);
    put(PUD, 1, 0x40000000 | LARGE);
    put(PMD, 0, PTE | LINK);
    put(PMD, 1, 0x200000 | LARGE);
    put(PTE, 3, 0x7000 | LINK | SHARED_BIT);
}

static void walks(void)
{
    CHECK_EQ(walk(TOP + 0x3123).gpa, 0x7000);
    CHECK_EQ(walk(TOP + 0x3123).shared, true);
    CHECK_EQ(walk(TOP + 0x3123).level, 0);
    CHECK_EQ(walk(TOP + 0x3123).slot, PTE + 3 * 8);
    CHECK_EQ(walk(TOP + 0x3123).top_table, P4D);
    CHECK_EQ(walk(TOP + 0x2ff123).gpa, 0x2ff000);
    CHECK_EQ(walk(TOP + 0x2ff123).level, 1);
    CHECK_EQ(walk(TOP + 0x2ff123).global, true);
    CHECK_EQ(walk(TOP + 0x40001fff).gpa, 0x40001000);
    CHECK_EQ(walk(TOP + 0x40001fff).level, 2);
    CHECK_EQ(walk(TOP + 0x4000).level, -1);
    /* The same tables as the upper levels of 4-level paging. */
    CHECK_EQ(pgtable_walk(read_memory, NULL, P4D, 4, 0xffff880000000000ull | 0x3000).level, -1);
}

static void a_leaf_flips(void)
{
    flip_count = 0;
    store(PTE, 3, 0x7000 | LINK);
    CHECK_EQ(flip_count, 1);
    CHECK_EQ(flips[0].gva, TOP + 0x3000);
    CHECK_EQ(flips[0].gpa, 0x7000);
    CHECK_EQ(flips[0].bytes, 4096);
    CHECK_EQ(flips[0].new_pte & SHARED_BIT, 0);
    /* The same value again, another permission, another frame: no flip of this
     * page. */
    store(PTE, 3, 0x7000 | LINK);
    store(PTE, 3, 0x7000 | 1);
    store(PTE, 3, 0x8000 | LINK | SHARED_BIT);
    CHECK_EQ(flip_count, 1);
    store(PMD, 1, 0x200000 | LARGE | SHARED_BIT);
    CHECK_EQ(flip_count, 2);
    CHECK_EQ(flips[1].bytes, 0x200000);
    store(PMD, 1, 0x200000 | LARGE);
}

static void split_and_join(void)
{
    enum { NEW = 0x6000 };

    for (unsigned i = 0; i < 512; i++) {
        put(NEW, i, (0x200000 + i * 4096) | LINK);
    }
    flip_count = 0;
    store(PMD, 1, NEW | LINK);
    CHECK_EQ(flip_count, 0);
    CHECK_EQ(watched >> 6 & 1, 1);
    store(NEW, 5, 0x205000 | LINK | SHARED_BIT);
    CHECK_EQ(flip_count, 1);
    CHECK_EQ(flips[0].gva, TOP + 0x205000);
    /* Joined again as private: page 5 changes, and the table is none any more. */
    store(PMD, 1, 0x200000 | LARGE);
    CHECK_EQ(flip_count, 2);
    CHECK_EQ(flips[1].gva, TOP + 0x205000);
    CHECK_EQ(watched >> 6 & 1, 0);
    store(NEW, 5, 0x205000 | LINK);
    CHECK_EQ(flip_count, 2);
    /* A split that makes all of it shared at once. */
    for (unsigned i = 0; i < 512; i++) {
        put(NEW, i, (0x200000 + i * 4096) | LINK | SHARED_BIT);
    }
    flip_count = 0;
    store(PMD, 1, NEW | LINK);
    CHECK_EQ(flip_count, 512);
}

static void narrow_and_wide_stores(void)
{
    flip_count = 0;
    put(PTE, 10, 0xa000 | LINK);
    put(PTE, 11, 0xb000 | LINK);
    tables_store(&tables, PTE + 80, 16, NULL);
    /* One byte that holds the shared bit. */
    put(PTE, 10, 0xa000 | LINK | SHARED_BIT);
    tables_store(&tables, PTE + 86, 1, NULL);
    CHECK_EQ(flip_count, 1);
}

static void leaves_come_and_go(void)
{
    enum { NEW = 0x6000 };

    gone_count = came_count = flip_count = 0;
    store(PTE, 20, 0xc000 | LINK);
    CHECK_EQ(came_count, 1);
    CHECK_EQ(came.gva, TOP + 20 * 4096);
    CHECK_EQ(came.gpa, 0xc000);
    CHECK_EQ(came.old_pte, 0);
    store(PTE, 20, 0xc000 | LINK | SHARED_BIT);
    CHECK_EQ(flip_count, 1);
    CHECK_EQ(gone_count, 0);
    store(PTE, 20, 0);
    CHECK_EQ(gone_count, 1);
    CHECK_EQ(gone.gva, TOP + 20 * 4096);
    CHECK_EQ(gone.gpa, 0xc000);
    CHECK_EQ(gone.bytes, 4096);
    CHECK_EQ(gone.slot, PTE + 20 * 8);
    CHECK_EQ(gone.old_pte, 0xc000 | LINK | SHARED_BIT);
    /* A large leaf goes, and a table with two leaves comes in its place. */
    store(PMD, 1, 0x200000 | LARGE);
    flip_count = 0;
    memset(memory + NEW, 0, 4096);
    put(NEW, 7, 0x207000 | LINK);
    put(NEW, 9, 0x209000 | LINK | SHARED_BIT);
    store(PMD, 1, 0);
    CHECK_EQ(gone_count, 2);
    CHECK_EQ(gone.bytes, 0x200000);
    store(PMD, 1, NEW | LINK);
    CHECK_EQ(came_count, 3);
    CHECK_EQ(came.gva, TOP + 0x209000);
    CHECK_EQ(came.slot, NEW + 9 * 8);
    CHECK_EQ(flip_count, 0);
}

/* A table that is linked twice stays when one of the links goes. */
static void a_table_with_two_links(void)
{
    store(PMD, 2, PTE | LINK);
    store(PMD, 2, 0);
    CHECK_EQ(watched >> 5 & 1, 1);
    flip_count = 0;
    store(PTE, 30, 0xd000 | LINK);
    store(PTE, 30, 0xd000 | LINK | SHARED_BIT);
    CHECK_EQ(flip_count, 1);
    /* Another permission of the link is no link more. */
    store(PMD, 0, PTE | LINK | 4);
    store(PMD, 0, PTE | LINK);
    store(PMD, 0, 0);
    CHECK_EQ(watched >> 5 & 1, 0);
    store(PMD, 0, PTE | LINK);
    CHECK_EQ(watched >> 5 & 1, 1);
}

static void a_loop_of_tables_ends(void)
{
    for (unsigned i = 0; i < 512; i++) {
        put(P4D, i, PUD | LINK);
        put(PUD, i, PMD | LINK);
        put(PMD, i, PTE | LINK);
        put(PTE, i, PTE | LINK);
    }
    put(ROOT, TOP >> 48 & 511, P4D | LINK);
    put(ROOT, (TOP >> 48 & 511) + 1, 0);
    tables_adopt(&tables, ROOT, 5, TOP, NULL);
    CHECK_EQ(watched >> 2 & 15, 15);
}

static void tables_of_an_earlier_root_are_left(void)
{
    uint64_t held = watched;
    size_t before = flip_count + gone_count + came_count;
    unsigned index = TOP >> 48 & 511;

    memset(memory + P4D2, 0, 2 * 4096);
    put(P4D2, 0, PUD2 | LINK);
    put(ROOT, index, P4D2 | LINK);
    tables_adopt(&tables, ROOT, 5, TOP, NULL);
    CHECK_EQ(watched, 1 << 6 | 1 << 7);
    CHECK_EQ(held & 1 << 2, 1 << 2);
    /* Anybody's memory now: no store to it is a change of a mapping. */
    store(PTE, 3, 0x3000 | LINK);
    store(P4D, 1, 0);
    CHECK_EQ(flip_count + gone_count + came_count, before);
    /* Another entry of the root is another matter. */
    memset(memory + P4D, 0, 4096);
    put(ROOT, index + 1, P4D | LINK);
    tables_adopt(&tables, ROOT, 5, TOP + (1ull << 48), NULL);
    CHECK_EQ(watched, 1 << 6 | 1 << 7 | 1 << 2);
    /* The next root has nothing where this one had (KASLR), or something else that is no table. */
    put(ROOT, index, 0);
    tables_adopt(&tables, ROOT, 5, TOP + (1ull << 48), NULL);
    CHECK_EQ(watched, 1 << 2);
    put(ROOT, index, P4D2 | LINK);
    tables_adopt(&tables, ROOT, 5, TOP, NULL);
    CHECK_EQ(watched, 1 << 6 | 1 << 7 | 1 << 2);
    put(ROOT, index, (P4D2 | LINK) & ~PTE_PRESENT);
    tables_adopt(&tables, ROOT, 5, TOP + (1ull << 48), NULL);
    CHECK_EQ(watched, 1 << 2);
}

int main(void)
{
    tables_init(&tables);
    set_up();
    walks();
    tables_adopt(&tables, ROOT, 5, TOP, NULL);
    CHECK_EQ(watched, 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5);
    a_leaf_flips();
    split_and_join();
    narrow_and_wide_stores();
    leaves_come_and_go();
    a_table_with_two_links();
    tables_of_an_earlier_root_are_left();
    a_loop_of_tables_ends();
    tables_free(&tables);
    return 0;
}

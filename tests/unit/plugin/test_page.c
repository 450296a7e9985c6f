/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines, keys, owners and acceptance. */
#include "check.h"
#include "page.h"

enum { MIB = 1 << 20 };

static DirtyRun runs[256];
static size_t run_count;

static void keep(const DirtyRun *run, void *unused)
{
    (void)unused;
    runs[run_count++ % 256] = *run;
}

static Conversion convert(Memory *m, uint64_t gpa, uint64_t bytes, bool to_shared)
{
    run_count = 0;
    return memory_convert(m, gpa, bytes, to_shared, keep, NULL);
}

static void store_all(Memory *m, uint64_t gpa, Key key)
{
    for (unsigned line = 0; line < PAGE_LINES; line++) {
        page_store(memory_page(m, gpa), key, line, 0xffffffff81234567ull, 1);
    }
}

static void dirty_lines_are_found_in_runs(Memory *m)
{
    Page *page = memory_page(m, 4 * MIB);
    Conversion c;

    store_all(m, 4 * MIB, KEY_PRIVATE);
    for (unsigned line = 0; line < PAGE_LINES; line++) {
        if (line != 5 && line != 6 && line != 63) {
            page_flush(page, KEY_PRIVATE, line, true);
        }
    }
    c = convert(m, 4 * MIB, PAGE_BYTES, true);
    CHECK_EQ(c.lines, 64);
    CHECK_EQ(c.dirty, 3);
    CHECK_EQ(c.flushed, 61);
    CHECK_EQ(c.flushed_again, 0);
    CHECK_EQ(run_count, 2);
    CHECK_EQ(runs[0].gpa, 4 * MIB + 5 * 64);
    CHECK_EQ(runs[0].lines, 2);
    CHECK_EQ(runs[0].store_pc, 0xffffffff81234567ull);
    CHECK_EQ(runs[0].store_vcpu, 1);
    CHECK_EQ(runs[1].gpa, 4 * MIB + 63 * 64);
    CHECK_EQ(runs[1].lines, 1);
    CHECK_EQ(page->state, PAGE_SHARED);
}

static void a_whole_page_is_one_run(Memory *m)
{
    store_all(m, 5 * MIB, KEY_PRIVATE);
    CHECK_EQ(convert(m, 5 * MIB, PAGE_BYTES, true).dirty, 64);
    CHECK_EQ(run_count, 1);
    CHECK_EQ(runs[0].lines, 64);
    /* Those lines are gone: a second conversion finds nothing. */
    CHECK_EQ(convert(m, 5 * MIB, PAGE_BYTES, true).dirty, 0);
}

static void a_flush_cleans_its_own_key_only(Memory *m)
{
    Page *page = memory_page(m, 6 * MIB);

    page_store(page, KEY_PRIVATE, 3, 0, 0);
    page_flush(page, KEY_SHARED, 3, true);
    CHECK_EQ(convert(m, 6 * MIB, PAGE_BYTES, true).dirty, 1);
    CHECK_EQ(runs[0].store_pc, 0);
    /* Shared lines concern the way back, not the way there. */
    page_store(page, KEY_SHARED, 9, 0, 0);
    CHECK_EQ(convert(m, 6 * MIB, PAGE_BYTES, false).dirty, 1);
}

static void clwb_cleans_and_counts_as_no_flush(Memory *m)
{
    Page *page = memory_page(m, 7 * MIB);
    Conversion c;

    page_store(page, KEY_PRIVATE, 0, 0, 0);
    page_flush(page, KEY_PRIVATE, 0, false);
    c = convert(m, 7 * MIB, PAGE_BYTES, true);
    CHECK_EQ(c.dirty, 0);
    CHECK_EQ(c.flushed, 0);
}

static void flushing_twice_is_counted_unless_dirtied_between(Memory *m)
{
    Page *page = memory_page(m, 8 * MIB);
    Conversion c;

    page_flush(page, KEY_PRIVATE, 0, true);
    page_flush(page, KEY_PRIVATE, 0, true);
    page_flush(page, KEY_PRIVATE, 1, true);
    page_store(page, KEY_PRIVATE, 1, 0, 0);
    page_flush(page, KEY_PRIVATE, 1, true);
    c = convert(m, 8 * MIB, PAGE_BYTES, true);
    CHECK_EQ(c.flushed, 2);
    CHECK_EQ(c.flushed_again, 1);
}

static void acceptance(Memory *m)
{
    uint8_t before;

    CHECK_EQ(memory_accept(m, 10 * MIB, PAGE_BYTES, &before), ACCEPT_ALREADY);
    convert(m, 10 * MIB, 2 * MIB, true);
    CHECK_EQ(memory_accept(m, 10 * MIB, PAGE_BYTES, &before), ACCEPT_SHARED);
    CHECK_EQ(before, PAGE_SHARED);
    convert(m, 10 * MIB, 2 * MIB, false);
    CHECK_EQ(memory_page(m, 10 * MIB)->state, PAGE_PENDING);
    CHECK_EQ(memory_accept(m, 10 * MIB, PAGE_BYTES, &before), ACCEPT_DONE);
    CHECK_EQ(before, PAGE_PENDING);
    CHECK_EQ(memory_accept(m, 10 * MIB, PAGE_BYTES, &before), ACCEPT_ALREADY);
    CHECK_EQ(memory_accept(m, 10 * MIB, 2 * MIB, &before), ACCEPT_MISMATCH);
    convert(m, 12 * MIB, 2 * MIB, true);
    convert(m, 12 * MIB, 2 * MIB, false);
    CHECK_EQ(memory_accept(m, 12 * MIB, 2 * MIB, &before), ACCEPT_DONE);
    CHECK_EQ(memory_page(m, 14 * MIB - PAGE_BYTES)->state, 0);
    /* Private to private asks for no acceptance. */
    convert(m, 14 * MIB, PAGE_BYTES, false);
    CHECK_EQ(memory_page(m, 14 * MIB)->state, 0);
}

static void addresses(Memory *m)
{
    CHECK_EQ(memory_page(m, 0xa0000), NULL);
    CHECK_EQ(memory_page(m, 0xfffff), NULL);
    CHECK_EQ(memory_page(m, 16 * MIB), NULL);
    CHECK_EQ(memory_page(m, 0xfee00000), NULL);
    CHECK_EQ(memory_page(m, (4ull << 30) + 2 * MIB), NULL);
    CHECK_EQ(memory_page(m, 4ull << 30) - memory_page(m, 16 * MIB - 1), 1);
    /* A conversion of a range without RAM changes nothing and reads nothing. */
    CHECK_EQ(convert(m, 0xfee00000, PAGE_BYTES, true).lines, 0);
}

int main(void)
{
    Memory m;

    if (!memory_init(&m, 16 * MIB, 2 * MIB)) {
        return 1;
    }
    dirty_lines_are_found_in_runs(&m);
    a_whole_page_is_one_run(&m);
    a_flush_cleans_its_own_key_only(&m);
    clwb_cleans_and_counts_as_no_flush(&m);
    flushing_twice_is_counted_unless_dirtied_between(&m);
    acceptance(&m);
    addresses(&m);
    store_all(&m, MIB, KEY_PRIVATE);
    memory_flush_all(&m);
    CHECK_EQ(convert(&m, MIB, PAGE_BYTES, true).dirty, 0);
    memory_free(&m);
    return 0;
}

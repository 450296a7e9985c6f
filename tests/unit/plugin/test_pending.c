/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who owes which invalidation: SDM volume 3, 5.10.4.1. */
#include <stdlib.h>

#include "check.h"
#include "pending.h"

#define GVA 0xffff888000200000ull
#define GPA 0x200000ull

static size_t gone_count;

static void gone(const Pending *entry, void *unused)
{
    (void)entry;
    (void)unused;
    gone_count++;
}

static PendingSet with(bool global, uint64_t bytes, uint16_t pcid)
{
    PendingSet set = {0};
    Pending entry = {
        .gva = GVA,
        .gpa = GPA,
        .bytes = bytes,
        .owing = 3,
        .to_shared = true,
        .global = global,
        .pcid = pcid,
    };

    pending_add(&set, &entry);
    return set;
}

static uint64_t owing_after(PendingSet set)
{
    uint64_t owing = set.entries[0].owing;

    pending_free(&set);
    return owing;
}

static void pages(void)
{
    PendingSet set = with(true, 0x200000, PCID_NONE);

    pending_invalidate_page(&set, 1, GVA - 1);
    pending_invalidate_page(&set, 1, GVA + 0x200000);
    CHECK_EQ(set.entries[0].owing, 3);
    /* INVLPG anywhere in a large page invalidates all of it, global or not. */
    pending_invalidate_page(&set, 1, GVA + 0x1fffff);
    CHECK_EQ(owing_after(set), 1);
}

static void nonglobal_spares_global(void)
{
    PendingSet set = with(true, 4096, PCID_NONE);

    pending_invalidate_nonglobal(&set, 0, PCID_NONE);
    CHECK_EQ(set.entries[0].owing, 3);
    pending_invalidate_all(&set, 0);
    CHECK_EQ(owing_after(set), 2);
    set = with(false, 4096, PCID_NONE);
    pending_invalidate_nonglobal(&set, 0, PCID_NONE);
    CHECK_EQ(owing_after(set), 2);
}

static void pcids(void)
{
    PendingSet set = with(false, 4096, 7);

    pending_invalidate_nonglobal(&set, 0, 8);
    pending_invalidate_page_pcid(&set, 0, GVA, 8);
    pending_invalidate_page_pcid(&set, 0, GVA + 4096, 7);
    CHECK_EQ(set.entries[0].owing, 3);
    pending_invalidate_page_pcid(&set, 0, GVA, 7);
    CHECK_EQ(set.entries[0].owing, 2);
    pending_invalidate_nonglobal(&set, 1, 7);
    CHECK_EQ(owing_after(set), 0);
    /* INVPCID with an address spares global entries. */
    set = with(true, 4096, 7);
    pending_invalidate_page_pcid(&set, 0, GVA, 7);
    CHECK_EQ(owing_after(set), 3);
}

static void lookups_and_sweep(void)
{
    PendingSet set = {0};
    size_t at = 0;

    for (uint64_t i = 0; i < 200; i++) {
        Pending entry = {.gva = GVA + i * 4096, .gpa = GPA + i * 4096, .bytes = 4096};

        entry.owing = i % 2;
        pending_add(&set, &entry);
    }
    CHECK_EQ(pending_next_gva(&set, &at, GVA + 5 * 4096 + 17)->gpa, GPA + 5 * 4096);
    CHECK_EQ(pending_next_gva(&set, &at, GVA + 5 * 4096 + 17), NULL);
    at = 0;
    CHECK_EQ(pending_next_gpa(&set, &at, GPA + 4096, 8192)->gpa, GPA + 4096);
    CHECK_EQ(pending_next_gpa(&set, &at, GPA + 4096, 8192)->gpa, GPA + 8192);
    CHECK_EQ(pending_next_gpa(&set, &at, GPA + 4096, 8192), NULL);
    pending_sweep(&set, gone, NULL);
    CHECK_EQ(gone_count, 100);
    CHECK_EQ(set.count, 100);
    at = 0;
    CHECK_EQ(pending_next_gva(&set, &at, GVA), NULL);
    pending_free(&set);
}

static void deaf(void)
{
    PendingSet set = with(true, 4096, PCID_NONE);

    set.entries[0].deaf_all = 1;
    pending_invalidate_all(&set, 0);
    pending_invalidate_all(&set, 1);
    CHECK_EQ(set.entries[0].owing, 1);
    set.entries[0].deaf_page = 1;
    pending_invalidate_page(&set, 0, GVA);
    CHECK_EQ(set.entries[0].owing, 1);
    set.entries[0].deaf_page = 0;
    pending_invalidate_page(&set, 0, GVA);
    CHECK_EQ(owing_after(set), 0);
}

int main(void)
{
    deaf();
    pages();
    nonglobal_spares_global();
    pcids();
    lookups_and_sweep();
    return 0;
}

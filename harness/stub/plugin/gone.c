/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "gone.h"

#include "pgtable.h"

enum { LEAF_LEVELS = 3, PRUNE_FIRST = 4096 };

/* Leaves are aligned to their size, so address and level share a word. */
static gpointer key_of(uint64_t gva, int level)
{
    return GSIZE_TO_POINTER((gva & ~(level_bytes(level) - 1)) | level);
}

static int level_of(uint64_t bytes)
{
    return bytes == level_bytes(0) ? 0 : bytes == level_bytes(1) ? 1 : 2;
}

void gone_init(GoneSet *set)
{
    *set = (GoneSet){.prune_at = PRUNE_FIRST};
    set->by_place = g_hash_table_new_full(NULL, NULL, NULL, g_free);
}

void gone_free(GoneSet *set)
{
    g_hash_table_destroy(set->by_place);
}

static void recount(GoneSet *set)
{
    __atomic_store_n(&set->count, g_hash_table_size(set->by_place), __ATOMIC_RELEASE);
}

static gboolean is_paid(gpointer key, gpointer entry, gpointer set)
{
    return !gone_owing(set, entry);
}

void gone_add(GoneSet *set, const Gone *entry)
{
    Gone *kept = g_memdup2(entry, sizeof(*entry));

    kept->since = __atomic_add_fetch(&set->clock, 1, __ATOMIC_ACQ_REL);
    g_hash_table_replace(set->by_place, key_of(entry->gva, level_of(entry->bytes)), kept);
    if (g_hash_table_size(set->by_place) >= set->prune_at) {
        g_hash_table_foreach_remove(set->by_place, is_paid, set);
        set->prune_at = PRUNE_FIRST + 2 * g_hash_table_size(set->by_place);
    }
    recount(set);
}

Gone *gone_at(const GoneSet *set, uint64_t gva, uint64_t bytes)
{
    return g_hash_table_lookup(set->by_place, key_of(gva, level_of(bytes)));
}

void gone_remove(GoneSet *set, const Gone *entry)
{
    g_hash_table_remove(set->by_place, key_of(entry->gva, level_of(entry->bytes)));
    recount(set);
}

uint64_t gone_owing(const GoneSet *set, const Gone *entry)
{
    bool global = entry->pte & PTE_GLOBAL;
    uint64_t owing = 0;

    for (uint64_t left = entry->held; left; left &= left - 1) {
        unsigned vcpu = __builtin_ctzll(left);

        if (__atomic_load_n(&set->flushed[vcpu][global], __ATOMIC_ACQUIRE) < entry->since) {
            owing |= 1ull << vcpu;
        }
    }
    return owing;
}

void gone_flush(GoneSet *set, unsigned vcpu, bool global_too)
{
    uint64_t now = __atomic_load_n(&set->clock, __ATOMIC_ACQUIRE);

    __atomic_store_n(&set->flushed[vcpu][0], now, __ATOMIC_RELEASE);
    if (global_too) {
        __atomic_store_n(&set->flushed[vcpu][1], now, __ATOMIC_RELEASE);
    }
}

static bool of_pcid(const Gone *entry, uint16_t pcid)
{
    return !(entry->pte & PTE_GLOBAL) && entry->pcid == pcid;
}

void gone_invalidate_page(GoneSet *set, unsigned vcpu, uint64_t gva)
{
    for (int level = 0; level < LEAF_LEVELS; level++) {
        Gone *entry = g_hash_table_lookup(set->by_place, key_of(gva, level));

        if (entry) {
            entry->held &= ~(1ull << vcpu);
        }
    }
}

void gone_invalidate_page_pcid(GoneSet *set, unsigned vcpu, uint64_t gva, uint16_t pcid)
{
    for (int level = 0; level < LEAF_LEVELS; level++) {
        Gone *entry = g_hash_table_lookup(set->by_place, key_of(gva, level));

        if (entry && of_pcid(entry, pcid)) {
            entry->held &= ~(1ull << vcpu);
        }
    }
}

void gone_invalidate_pcid(GoneSet *set, unsigned vcpu, uint16_t pcid)
{
    GHashTableIter iter;
    gpointer entry;

    g_hash_table_iter_init(&iter, set->by_place);
    while (g_hash_table_iter_next(&iter, NULL, &entry)) {
        if (of_pcid(entry, pcid)) {
            ((Gone *)entry)->held &= ~(1ull << vcpu);
        }
    }
}

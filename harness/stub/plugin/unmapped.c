/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Leaves that were taken away and not invalidated everywhere: what comes of them, and when. */
#include "track.h"

static void on_gone(const Flip *flip, void *data)
{
    Gone entry = {
        .gva = flip->gva,
        .gpa = flip->gpa,
        .bytes = flip->bytes,
        .pte = flip->old_pte,
        .held = conflict_running(),
        .pcid = conflict_pcid(data),
    };

    if (conflict_in_use(data, flip)) {
        gone_add(&stub.gone, &entry);
    }
}

/* A leaf came: what was there before it was taken away may be cached still. */
static void on_came(const Flip *flip, void *data)
{
    for (uint64_t bytes = flip->bytes; stub.gone.count && bytes <= GIB1; bytes *= TABLE_ENTRIES) {
        Gone *old = gone_at(&stub.gone, flip->gva, bytes);
        Flip change = *flip;

        if (!old || !conflict_in_use(data, flip)) {
            continue;
        }
        change.old_pte = old->pte;
        change.away = true;
        if (flip->gpa == old->gpa + (flip->gva - old->gva)) {
            if ((flip->new_pte ^ old->pte) & SHARED_BIT) {
                conflict_owe(data, &change, gone_owing(&stub.gone, old), old->judged);
            }
            if (old->bytes == flip->bytes) {
                gone_remove(&stub.gone, old);
            }
        }
    }
}

void unmapped_init(void)
{
    stub.tables.gone = on_gone;
    stub.tables.came = on_came;
    gone_init(&stub.gone);
}

/* The change is told when it matters, that is at the conversion. */
static void commit_one(Gone *old, const Access *access)
{
    Flip flip = {
        .gva = old->gva,
        .gpa = old->gpa,
        .bytes = old->bytes,
        .old_pte = old->pte,
        .away = true,
    };
    Pending entry = {
        .gva = old->gva,
        .gpa = old->gpa,
        .bytes = old->bytes,
        .owing = gone_owing(&stub.gone, old),
        .to_shared = true,
        .global = old->pte & PTE_GLOBAL,
    };

    if (entry.owing) {
        entry.seq = conflict_emit_change(access->v, &flip, true);
        conflict_commit(&entry, access);
        old->judged = true;
    }
}

static gint compare_age(gconstpointer a, gconstpointer b)
{
    const Gone *const *one = a, *const *other = b;

    return (*one)->since < (*other)->since ? -1 : 1;
}

void unmapped_commit(uint64_t gpa, uint64_t bytes, const Access *access)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    GHashTableIter iter;
    gpointer entry;

    g_hash_table_iter_init(&iter, stub.gone.by_place);
    while (g_hash_table_iter_next(&iter, NULL, &entry)) {
        const Gone *old = entry;

        if (gpa < old->gpa + old->bytes && old->gpa < gpa + bytes && !old->judged &&
            !(old->pte & SHARED_BIT)) {
            g_ptr_array_add(found, entry);
        }
    }
    g_ptr_array_sort(found, compare_age);
    for (guint i = 0; i < found->len; i++) {
        commit_one(found->pdata[i], access);
    }
}

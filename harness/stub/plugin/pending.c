/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pending.h"

#include <stdlib.h>

void pending_add(PendingSet *set, const Pending *entry)
{
    if (set->count == set->capacity) {
        size_t capacity = set->capacity ? 2 * set->capacity : 64;
        Pending *grown = realloc(set->entries, capacity * sizeof(*grown));

        if (!grown) {
            abort();
        }
        set->entries = grown;
        set->capacity = capacity;
    }
    set->entries[set->count++] = *entry;
}

void pending_free(PendingSet *set)
{
    free(set->entries);
    *set = (PendingSet){0};
}

/* The vCPU invalidated the entry, unless that is to be lost. */
static void pay(Pending *entry, unsigned vcpu, uint64_t deaf)
{
    entry->owing &= ~(1ull << vcpu) | deaf;
}

static bool covers(const Pending *entry, uint64_t gva)
{
    return gva - entry->gva < entry->bytes;
}

void pending_invalidate_page(PendingSet *set, unsigned vcpu, uint64_t gva)
{
    for (size_t i = 0; i < set->count; i++) {
        if (covers(&set->entries[i], gva)) {
            pay(&set->entries[i], vcpu, set->entries[i].deaf_page);
        }
    }
}

void pending_invalidate_all(PendingSet *set, unsigned vcpu)
{
    for (size_t i = 0; i < set->count; i++) {
        pay(&set->entries[i], vcpu, set->entries[i].deaf_all);
    }
}

static bool of_pcid(const Pending *entry, uint16_t pcid)
{
    return !entry->global && (pcid == PCID_NONE || pcid == entry->pcid);
}

void pending_invalidate_nonglobal(PendingSet *set, unsigned vcpu, uint16_t pcid)
{
    for (size_t i = 0; i < set->count; i++) {
        if (of_pcid(&set->entries[i], pcid)) {
            pay(&set->entries[i], vcpu, set->entries[i].deaf_all);
        }
    }
}

void pending_invalidate_page_pcid(PendingSet *set, unsigned vcpu, uint64_t gva, uint16_t pcid)
{
    for (size_t i = 0; i < set->count; i++) {
        if (covers(&set->entries[i], gva) && of_pcid(&set->entries[i], pcid)) {
            pay(&set->entries[i], vcpu, set->entries[i].deaf_page);
        }
    }
}

void pending_sweep(PendingSet *set, void (*gone)(const Pending *, void *), void *data)
{
    size_t kept = 0;

    for (size_t i = 0; i < set->count; i++) {
        Pending entry = set->entries[i];

        if (entry.owing) {
            set->entries[kept++] = entry;
        } else {
            gone(&entry, data);
        }
    }
    set->count = kept;
}

Pending *pending_next_gva(PendingSet *set, size_t *at, uint64_t gva)
{
    while (*at < set->count) {
        Pending *entry = &set->entries[(*at)++];

        if (covers(entry, gva)) {
            return entry;
        }
    }
    return NULL;
}

Pending *pending_next_gpa(PendingSet *set, size_t *at, uint64_t gpa, uint64_t bytes)
{
    while (*at < set->count) {
        Pending *entry = &set->entries[(*at)++];

        if (gpa < entry->gpa + entry->bytes && entry->gpa < gpa + bytes) {
            return entry;
        }
    }
    return NULL;
}

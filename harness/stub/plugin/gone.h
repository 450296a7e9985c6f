/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Leaves that the kernel's tables no longer hold, until every vCPU has invalidated them: a mapping
 * that was taken away (present to not present) may be cached still (SDM volume 3, 5.10.4.1), so a
 * page that is converted meanwhile, or mapped again otherwise, meets the old translation.
 *
 * Kernels unmap lazily and by the thousand, so what a vCPU owes is not kept per leaf: each leaf
 * knows when it went, each vCPU when it last flushed all.
 */
#ifndef TDH_GONE_H
#define TDH_GONE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Gone {
    uint64_t gva, gpa, bytes, pte; /* of the old leaf */
    uint64_t held; /* a bit per vCPU that ran then and has not invalidated it alone */
    uint64_t since;
    uint16_t pcid;
    bool judged; /* a conversion came and it was emitted */
} Gone;

typedef struct GoneSet {
    GHashTable *by_place;
    uint64_t count, clock, prune_at;
    /* Clock of each vCPU's last flush of what is not global, and of everything. */
    uint64_t flushed[64][2];
} GoneSet;

void gone_init(GoneSet *set);
void gone_free(GoneSet *set);
/* `entry->since` is set here. */
void gone_add(GoneSet *set, const Gone *entry);
/* The leaf of exactly this place; NULL: none. */
Gone *gone_at(const GoneSet *set, uint64_t gva, uint64_t bytes);
void gone_remove(GoneSet *set, const Gone *entry);
/* A bit per vCPU that may hold the translation still. */
uint64_t gone_owing(const GoneSet *set, const Gone *entry);
/* A flush of everything, or of what is not global; from any thread, without a lock. */
void gone_flush(GoneSet *set, unsigned vcpu, bool global_too);
/* INVLPG, for every PCID; or what is not global, of one. */
void gone_invalidate_page(GoneSet *set, unsigned vcpu, uint64_t gva);
void gone_invalidate_page_pcid(GoneSet *set, unsigned vcpu, uint64_t gva, uint16_t pcid);
void gone_invalidate_pcid(GoneSet *set, unsigned vcpu, uint16_t pcid);

#endif

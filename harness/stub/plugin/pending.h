/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which vCPU still owes which invalidation. The TLBs that this stands for are infinite, never
 * evict, and load speculatively: after a PTE changed, every vCPU that runs is assumed to hold the
 * old translation until it invalidates the address. That is the worst case that the architecture
 * allows (SDM volume 3, 5.10.2.3 and 5.10.4), so a missing invalidation shows every time.
 */
#ifndef TDH_PENDING_H
#define TDH_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCID_NONE 0xffff

typedef struct Pending {
    uint64_t gva, gpa, bytes;     /* of the leaf */
    uint64_t seq;                 /* of the PTE change */
    uint64_t owing;               /* a bit per vCPU that has not invalidated */
    uint64_t said_used;           /* a bit per vCPU whose use was emitted */
    uint64_t deaf_page, deaf_all; /* vCPUs whose invalidations are lost: by address, whole ones */
    bool to_shared, global;
    bool judged;   /* the commit came and was emitted */
    uint16_t pcid; /* of the changing vCPU's space; 0 without PCIDs */
} Pending;

typedef struct PendingSet {
    Pending *entries;
    size_t count, capacity;
} PendingSet;

void pending_add(PendingSet *set, const Pending *entry);
void pending_free(PendingSet *set);

/* INVLPG, and INVPCID type 0 with its PCID: covers global entries too for INVLPG. */
void pending_invalidate_page(PendingSet *set, unsigned vcpu, uint64_t gva);
/* A change of CR4.PGE and its like, INVPCID type 2: everything. */
void pending_invalidate_all(PendingSet *set, unsigned vcpu);
/* MOV CR3 and INVPCID types 1 and 3: what is not global, of one PCID or, with PCID_NONE, of all. */
void pending_invalidate_nonglobal(PendingSet *set, unsigned vcpu, uint16_t pcid);
/* INVPCID type 0: one address of one PCID, not global. */
void pending_invalidate_page_pcid(PendingSet *set, unsigned vcpu, uint64_t gva, uint16_t pcid);

/* Drop entries that no vCPU owes any more; each dropped one is handed to `gone` first. */
void pending_sweep(PendingSet *set, void (*gone)(const Pending *, void *), void *data);

/* The next entry from `*at` on that covers gva, or that overlaps [gpa, gpa + bytes); NULL: none. */
Pending *pending_next_gva(PendingSet *set, size_t *at, uint64_t gva);
Pending *pending_next_gpa(PendingSet *set, size_t *at, uint64_t gpa, uint64_t bytes);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the tracking share: translations, and accesses that need a closer look. */
#ifndef TDH_TRACK_H
#define TDH_TRACK_H

#include "stub.h"

/* xlate.c: the remembered translations of a vCPU, and the walk behind them. */
Leaf xlate_leaf(Vcpu *v, uint64_t va);
Xlate *xlate_fill(Vcpu *v, Xlate *slot, uint64_t va);
/* Forget what any vCPU remembers of one page; its state was changed before. */
void xlate_void_page(const Page *page);
bool xlate_read(uint64_t gpa, uint64_t *entries, size_t count, void *vcpu);

static inline Xlate *xlate_slot(Vcpu *v, uint64_t va)
{
    return &v->xlate[va / PAGE_BYTES % XLATE_SLOTS];
}

static inline bool xlate_hit(const Vcpu *v, const Xlate *slot, uint64_t va)
{
    uint64_t difference = slot->tag ^ va / PAGE_BYTES;

    return difference == v->generation[1] || difference == v->generation[0];
}

/* conflict.c: owed invalidations and wrong aliases. */
typedef struct Access {
    Vcpu *v;
    uint64_t va, gpa, pc;
    unsigned bytes;
    uint32_t flags;
} Access;

void conflict_init(void);
/* The page is not in the state that the translation expects: find out why, under the lock. */
void conflict_look(const Access *access, const Xlate *x);
/* What unmapped.c shares of it: a bit per vCPU that runs, and the PCID of the kernel's space. */
uint64_t conflict_running(void);
uint16_t conflict_pcid(const Vcpu *v);
/* Whether the tables of the vCPU come to this entry. */
bool conflict_in_use(Vcpu *v, const Flip *flip);
uint64_t conflict_emit_change(const Vcpu *v, const Flip *flip, bool to_shared);
/* The change is told; from now on these vCPUs owe an invalidation of the old translation. */
void conflict_owe(const Vcpu *v, const Flip *flip, uint64_t owing, bool judged);
/* From here on the old translation is wrong: tell once who may still hold it. */
void conflict_commit(Pending *entry, const Access *access);

/* unmapped.c: leaves that were taken away. */
void unmapped_init(void);
/* A range becomes shared: private translations of it that may still be held. */
void unmapped_commit(uint64_t gpa, uint64_t bytes, const Access *access);

#endif

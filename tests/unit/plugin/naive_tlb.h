/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The half of the naive model that knows who owes an invalidation of what. */
#ifndef TDH_NAIVE_TLB_H
#define TDH_NAIVE_TLB_H

#include "naive.h"

void naive_tlb_start(void);
void naive_tell(Fact fact);
void naive_run(unsigned vcpu, bool runs);
bool naive_maps_shared(unsigned mapping, unsigned page);
void naive_set_entry(unsigned vcpu, unsigned mapping, unsigned page, bool shared);
void naive_unmap(unsigned mapping, unsigned page);
/* -1 stands for every mapping and every page. */
void naive_invalidate(unsigned vcpu, int mapping, int page);
/* An access, judged by the debts on its address. */
void naive_use(unsigned vcpu, unsigned mapping, unsigned page, unsigned flags);
void naive_commit_to_shared(unsigned vcpu, unsigned first, unsigned pages);

#endif

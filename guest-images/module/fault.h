/* SPDX-License-Identifier: GPL-2.0 */
/* Planted faults: each breaks one rule on purpose, on one page, and mends what it can. */
#ifndef TDHARNESS_FAULT_H
#define TDHARNESS_FAULT_H

#include <linux/types.h>
#include <asm/pgtable_types.h>

struct page;
struct tdh_request;

/* One private, accepted page with a PTE of its own in the direct map. */
struct tdh_victim {
	struct page *page;
	u8 *address;
	u64 gpa;
	pte_t *pte;
	/* the state is not known: never give the page back */
	bool leak;
};

/* fault.c */
void tdh_set_pte(struct tdh_victim *victim, bool shared);
void tdh_flush_tlb(struct tdh_victim *victim);
int tdh_fault_map_gpa(struct tdh_request *req, struct tdh_victim *victim, bool shared);
/* MapGPA to private, accept, private PTE, TLB flush: the legal way back, from any state. */
int tdh_mend(struct tdh_request *req, struct tdh_victim *victim);

/* fault_tdcall.c */
int tdh_fault_unaccepted(struct tdh_request *req, struct tdh_victim *victim);
int tdh_fault_double_accept(struct tdh_request *req, struct tdh_victim *victim);
int tdh_fault_accept_shared(struct tdh_request *req, struct tdh_victim *victim);
int tdh_fault_bad_tdcall(struct tdh_request *req, struct tdh_victim *victim);

/* fault_kernel.c: these need no TD. */
int tdh_fault_warn(struct tdh_request *req, struct tdh_victim *victim);
int tdh_fault_oops(struct tdh_request *req, struct tdh_victim *victim);
int tdh_fault_dma(struct tdh_request *req, struct tdh_victim *victim);

#endif

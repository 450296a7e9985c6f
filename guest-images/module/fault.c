// SPDX-License-Identifier: GPL-2.0
/* Conversions by hand that leave out one thing. */
#include <linux/io.h>
#include <linux/mm.h>
#include <linux/set_memory.h>
#include <linux/smp.h>
#include <asm/cacheflush.h>
#include <asm/pgtable.h>

#include "fault.h"
#include "tdcall.h"
#include "tdharness.h"

/* By hand, without the kernel's conversion path: no flush of any kind. */
void tdh_set_pte(struct tdh_victim *victim, bool shared)
{
	u64 value = native_pte_val(READ_ONCE(*victim->pte)) & ~tdh_shared_bit();

	native_set_pte(victim->pte, native_make_pte(value | (shared ? tdh_shared_bit() : 0)));
}

static void invalidate(void *info)
{
	struct tdh_victim *victim = info;

	asm volatile("invlpg (%0)" : : "r"(victim->address) : "memory");
}

void tdh_flush_tlb(struct tdh_victim *victim)
{
	on_each_cpu(invalidate, victim, 1);
}

/* A store and a load: dirties a line and leaves a translation. */
static void use(void *info)
{
	struct tdh_victim *victim = info;
	u8 *byte = victim->address + smp_processor_id() % 64 * 64;

	WRITE_ONCE(*byte, READ_ONCE(*byte) + 1);
}

static void use_everywhere(struct tdh_victim *victim)
{
	memset(victim->address, 0x5a, PAGE_SIZE);
	on_each_cpu(use, victim, 1);
}

int tdh_fault_map_gpa(struct tdh_request *req, struct tdh_victim *victim, bool shared)
{
	u64 status = tdh_map_gpa(victim->gpa, PAGE_SIZE, shared);

	if (!status)
		return 0;
	victim->leak = true;
	return tdh_fail(req, -EIO, "MapGPA of %#llx: %#llx", victim->gpa, status);
}

int tdh_mend(struct tdh_request *req, struct tdh_victim *victim)
{
	int error = tdh_fault_map_gpa(req, victim, false);
	u64 status;

	if (error)
		return error;
	status = tdh_accept(victim->gpa);
	tdh_set_pte(victim, false);
	tdh_flush_tlb(victim);
	if (!status)
		return 0;
	victim->leak = true;
	return tdh_fail(req, -EIO, "ACCEPT of %#llx: %#llx", victim->gpa, status);
}

static int no_cache_flush(struct tdh_request *req, struct tdh_victim *victim)
{
	use_everywhere(victim);
	tdh_set_pte(victim, true);
	tdh_flush_tlb(victim);
	return tdh_fault_map_gpa(req, victim, true) ?: tdh_mend(req, victim);
}

static int without_invalidation(struct tdh_request *req, struct tdh_victim *victim, bool here)
{
	unsigned long flags;
	int error;

	use_everywhere(victim);
	/* Nothing else on this CPU may flush between the PTE and the hypercall. */
	local_irq_save(flags);
	clflush_cache_range(victim->address, PAGE_SIZE);
	tdh_set_pte(victim, true);
	if (here)
		invalidate(victim);
	error = tdh_fault_map_gpa(req, victim, true);
	local_irq_restore(flags);
	return error;
}

static int no_tlb_flush(struct tdh_request *req, struct tdh_victim *victim)
{
	return without_invalidation(req, victim, false) ?: tdh_mend(req, victim);
}

static int local_tlb_flush(struct tdh_request *req, struct tdh_victim *victim)
{
	if (num_online_cpus() < 2)
		return tdh_fail(req, -EOPNOTSUPP, "needs two CPUs");
	return without_invalidation(req, victim, true) ?: tdh_mend(req, victim);
}

static int used_stale(struct tdh_request *req, struct tdh_victim *victim)
{
	int error = without_invalidation(req, victim, false);

	if (error)
		return error;
	on_each_cpu(use, victim, 1);
	return tdh_mend(req, victim);
}

static int private_access(struct tdh_request *req, struct tdh_victim *victim)
{
	int error;

	use_everywhere(victim);
	clflush_cache_range(victim->address, PAGE_SIZE);
	tdh_flush_tlb(victim);
	error = tdh_fault_map_gpa(req, victim, true);
	if (error)
		return error;
	READ_ONCE(*victim->address);
	return tdh_mend(req, victim);
}

static int shared_access(struct tdh_request *req, struct tdh_victim *victim)
{
	clflush_cache_range(victim->address, PAGE_SIZE);
	tdh_set_pte(victim, true);
	tdh_flush_tlb(victim);
	READ_ONCE(*victim->address);
	tdh_set_pte(victim, false);
	tdh_flush_tlb(victim);
	return 0;
}

static int redundant_flush(struct tdh_request *req, struct tdh_victim *victim)
{
	unsigned long address = (unsigned long)victim->address;
	int error;

	use_everywhere(victim);
	clflush_cache_range(victim->address, PAGE_SIZE);
	clflush_cache_range(victim->address, PAGE_SIZE);
	error = set_memory_decrypted(address, 1) ?: set_memory_encrypted(address, 1);
	victim->leak = error;
	return error;
}

static const struct {
	const char *name;
	bool needs_td;
	int (*run)(struct tdh_request *req, struct tdh_victim *victim);
} faults[] = {
	{ "no-cache-flush", true, no_cache_flush },
	{ "no-tlb-flush", true, no_tlb_flush },
	{ "local-tlb-flush", true, local_tlb_flush },
	{ "used-stale", true, used_stale },
	{ "private-access", true, private_access },
	{ "shared-access", true, shared_access },
	{ "redundant-flush", true, redundant_flush },
	{ "unaccepted", true, tdh_fault_unaccepted },
	{ "double-accept", true, tdh_fault_double_accept },
	{ "accept-shared", true, tdh_fault_accept_shared },
	{ "bad-tdcall", true, tdh_fault_bad_tdcall },
	{ "dma-mismatch", false, tdh_fault_dma },
	{ "warn", false, tdh_fault_warn },
	{ "oops", false, tdh_fault_oops },
};

/* One legal conversion to and fro splits the large mapping, so that the page has its own PTE. */
static int victim_create(struct tdh_request *req, struct tdh_victim *victim)
{
	unsigned int level;
	int error;

	victim->page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!victim->page)
		return -ENOMEM;
	victim->address = page_address(victim->page);
	victim->gpa = page_to_phys(victim->page);
	error = set_memory_decrypted((unsigned long)victim->address, 1) ?:
			set_memory_encrypted((unsigned long)victim->address, 1);
	victim->leak = error;
	if (error)
		return tdh_fail(req, error, "the legal conversion of %#llx failed", victim->gpa);
	victim->pte = lookup_address((unsigned long)victim->address, &level);
	if (!victim->pte || level != PG_LEVEL_4K)
		return tdh_fail(req, -ENXIO, "%#llx has no PTE of its own", victim->gpa);
	return 0;
}

int tdh_fault(struct tdh_request *req)
{
	const char *name = tdh_word(req, "name", "");
	struct tdh_victim victim = {};
	int error = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(faults); i++) {
		if (strcmp(faults[i].name, name))
			continue;
		if (faults[i].needs_td && !tdh_is_td())
			return tdh_fail(req, -EOPNOTSUPP, "fault %s needs a TD", name);
		if (faults[i].needs_td)
			error = victim_create(req, &victim);
		if (victim.page)
			tdh_report(req, "gpa=%#llx\ngva=%px\n", victim.gpa, victim.address);
		if (!error)
			error = faults[i].run(req, &victim);
		if (victim.page && !victim.leak)
			__free_page(victim.page);
		return error;
	}
	return tdh_fail(req, -EINVAL, "no fault %s", name);
}

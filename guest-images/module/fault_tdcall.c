// SPDX-License-Identifier: GPL-2.0
/* Faults in the use of the module interface itself. */
#include <linux/mm.h>
#include <linux/set_memory.h>

#include "fault.h"
#include "tdcall.h"
#include "tdharness.h"

int tdh_fault_unaccepted(struct tdh_request *req, struct tdh_victim *victim)
{
	int error = set_memory_decrypted((unsigned long)victim->address, 1);

	if (error) {
		victim->leak = true;
		return error;
	}
	error = tdh_fault_map_gpa(req, victim, false);
	if (error)
		return error;
	tdh_set_pte(victim, false);
	tdh_flush_tlb(victim);
	READ_ONCE(*victim->address);
	return tdh_mend(req, victim);
}

int tdh_fault_double_accept(struct tdh_request *req, struct tdh_victim *victim)
{
	tdh_report(req, "status=%#llx\n", tdh_accept(victim->gpa));
	return 0;
}

int tdh_fault_accept_shared(struct tdh_request *req, struct tdh_victim *victim)
{
	int error = set_memory_decrypted((unsigned long)victim->address, 1);

	if (!error) {
		tdh_report(req, "status=%#llx\n", tdh_accept(victim->gpa));
		error = set_memory_encrypted((unsigned long)victim->address, 1);
	}
	victim->leak = error;
	return error;
}

/* Every call must be refused; one that succeeds is the stub's fault, and the result says so. */
int tdh_fault_bad_tdcall(struct tdh_request *req, struct tdh_victim *victim)
{
	struct tdh_tdcall leaf = { .rax = 0x7fff };
	struct tdh_tdcall mask = { .rax = TDG_VP_VMCALL, .rcx = TDVMCALL_MASK | BIT(0) };
	struct tdh_tdcall function = {
		.rax = TDG_VP_VMCALL,
		.rcx = TDVMCALL_MASK,
		.r11 = 0x1ffff,
	};
	u64 misaligned = tdh_map_gpa(victim->gpa + 0x800, PAGE_SIZE, true);
	u64 size = tdh_map_gpa(victim->gpa, PAGE_SIZE / 2, true);

	tdh_tdcall(&leaf);
	tdh_tdcall(&mask);
	tdh_tdcall(&function);
	tdh_report(req, "misaligned=%#llx\nsize=%#llx\nleaf=%#llx\nmask=%#llx\nfunction=%#llx\n",
		   misaligned, size, leaf.rax, mask.rax, function.r10);
	if (!misaligned || !size || !leaf.rax || !mask.rax || !function.r10) {
		victim->leak = true;
		return tdh_fail(req, -EIO, "a call that breaks the contract was accepted");
	}
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/printk.h>
#include <asm/processor.h>
#if __has_include(<asm/cpuid/api.h>)
#include <asm/cpuid/api.h> /* in v6.16 and newer */
#endif

#include "tdcall.h"
#include "tdharness.h"
#include "trace.h"

#define TDX_CPUID 0x21

bool tdh_is_td(void)
{
	u32 eax, ebx, ecx, edx;

	if (cpuid_eax(0) < TDX_CPUID)
		return false;
	cpuid_count(TDX_CPUID, 0, &eax, &ebx, &ecx, &edx);
	/* "IntelTDX    " */
	return ebx == 0x65746e49 && edx == 0x5844546c && ecx == 0x20202020;
}

void tdh_tdcall(struct tdh_tdcall *regs)
{
	register u64 r8 asm("r8") = regs->r8;
	register u64 r9 asm("r9") = regs->r9;
	register u64 r10 asm("r10") = regs->r10;
	register u64 r11 asm("r11") = regs->r11;
	register u64 r12 asm("r12") = regs->r12;
	register u64 r13 asm("r13") = regs->r13;
	register u64 r14 asm("r14") = regs->r14;
	register u64 r15 asm("r15") = regs->r15;

	asm volatile(".byte 0x66, 0x0f, 0x01, 0xcc"
		     : "+a"(regs->rax), "+c"(regs->rcx), "+d"(regs->rdx), "+r"(r8), "+r"(r9),
		       "+r"(r10), "+r"(r11), "+r"(r12), "+r"(r13), "+r"(r14), "+r"(r15)
		     :
		     : "memory", "cc");
	regs->r8 = r8;
	regs->r9 = r9;
	regs->r10 = r10;
	regs->r11 = r11;
	regs->r12 = r12;
	regs->r13 = r13;
	regs->r14 = r14;
	regs->r15 = r15;
}

u64 tdh_shared_bit(void)
{
	struct tdh_tdcall regs = { .rax = TDG_VP_INFO };

	tdh_tdcall(&regs);
	/* RCX[5:0] is the width of a guest-physical address, the shared bit its highest. */
	return BIT_ULL((regs.rcx & 0x3f) - 1);
}

u64 tdh_map_gpa(u64 gpa, u64 bytes, bool shared)
{
	struct tdh_tdcall regs = {
		.rax = TDG_VP_VMCALL,
		.rcx = TDVMCALL_MASK,
		.r11 = TDVMCALL_MAP_GPA,
		.r12 = gpa | (shared ? tdh_shared_bit() : 0),
		.r13 = bytes,
	};

	tdh_tdcall(&regs);
	return regs.r10;
}

u64 tdh_accept(u64 gpa)
{
	struct tdh_tdcall regs = { .rax = TDG_MEM_PAGE_ACCEPT, .rcx = gpa };

	tdh_tdcall(&regs);
	return regs.rax;
}

int tdh_mark(struct tdh_request *req)
{
	struct tdh_tdcall regs = {
		.rax = TDG_VP_VMCALL,
		.rcx = TDVMCALL_MASK,
		.r10 = TDVMCALL_MARK,
	};
	u64 kind, id;
	int error = tdh_number(req, "kind", 0, 2, &kind) ?: tdh_number(req, "id", 0, U64_MAX, &id);

	if (error)
		return error;
	if (!kind)
		return tdh_fail(req, -EINVAL, "kind must be 1 (begin) or 2 (end)");
	regs.r11 = kind;
	regs.r12 = id;
	if (tdh_is_td())
		tdh_tdcall(&regs);
	tdh_log(TRACE_MARK, kind, id, 0, 0);
	pr_info("mark %s %llu\n", kind == 1 ? "begin" : "end", id);
	return 0;
}

int tdh_info(struct tdh_request *req)
{
	tdh_report(req, "td=%d\ncpus=%u\n", tdh_is_td(), num_online_cpus());
	if (tdh_is_td())
		tdh_report(req, "shared_bit=%d\n", __ffs64(tdh_shared_bit()));
	return 0;
}

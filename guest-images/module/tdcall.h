/* SPDX-License-Identifier: GPL-2.0 */
/* TDCALL by hand, for what the kernel's own helpers must not do. */
#ifndef TDHARNESS_TDCALL_H
#define TDHARNESS_TDCALL_H

#include <linux/types.h>

/* TDX module ABI: leaves of TDCALL, functions of TDG.VP.VMCALL. */
#define TDG_VP_VMCALL 0
#define TDG_VP_INFO 1
#define TDG_MEM_PAGE_ACCEPT 6
#define TDVMCALL_MAP_GPA 0x10001

/* Exposes R10 to R15 to the VMM. */
#define TDVMCALL_MASK 0xfc00

/* A vendor call of the harness: R10 is this, R11 the kind, R12 the id ("TDH"). */
#define TDVMCALL_MARK 0x544448

struct tdh_tdcall {
	u64 rax, rcx, rdx, r8, r9, r10, r11, r12, r13, r14, r15;
};

/* True when the CPU says that it runs in a TD; TDCALL is an invalid opcode elsewhere. */
bool tdh_is_td(void);
/* Issues TDCALL; the registers are in and out. */
void tdh_tdcall(struct tdh_tdcall *regs);
/* The bit of a PTE and of a GPA that says "shared". */
u64 tdh_shared_bit(void);
/* TDG.VP.VMCALL<MapGPA>: R10 of the VMM's answer; the direction is a bit of the address. */
u64 tdh_map_gpa(u64 gpa, u64 bytes, bool shared);
/* TDG.MEM.PAGE.ACCEPT of one 4 KiB page: RAX. */
u64 tdh_accept(u64 gpa);

#endif

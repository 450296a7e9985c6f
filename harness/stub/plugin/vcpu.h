/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the stub keeps per vCPU, and access to the registers of the vCPU that runs a callback. */
#ifndef TDH_VCPU_H
#define TDH_VCPU_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "events.h"
#include "insn.h"
#include "page.h"

#define MAX_VCPUS 16
#define XLATE_SLOTS 8192

/* In the order in which instructions encode them; then what has no such number. */
typedef enum Reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    REG_CS,
    REG_FS_BASE,
    REG_GS_BASE,
    REG_CR0,
    REG_CR3,
    REG_CR4,
    REG_COUNT
} Reg;

#define CR0_PG (1ull << 31)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_PGE (1ull << 7)
#define CR4_LA57 (1ull << 12)
#define CR4_PCIDE (1ull << 17)
#define CR4_SMEP (1ull << 20)
#define CR3_NOFLUSH (1ull << 63)

/*
 * A remembered translation of one 4 KiB page. This is a cache of what the page tables hold now, to
 * make accesses cheap; which translation a vCPU may still hold wrongly is PendingSet's question.
 */
typedef struct Xlate {
    uint64_t vpage;
    Page *page;
    uint32_t generation;
    uint8_t global, shared;
    uint8_t expect; /* the page state in which an access needs no second look */
    int8_t level;
} Xlate;

typedef struct Vcpu {
    unsigned index;
    bool online; /* has translated kernel addresses */
    bool has_huge;
    uint64_t cr0, cr3, cr4;
    /* Entries of another generation are void; [1] is for global ones. Other vCPUs bump them too. */
    uint32_t generation[2];
    uint64_t counter[CNT_PT_STORE + 1];
    void *reg[REG_COUNT];
    GByteArray *buffer;
    Page nowhere; /* stands for what is no RAM */
    Xlate xlate[XLATE_SLOTS];
} Vcpu;

void vcpu_init(Vcpu *v, unsigned index);
uint64_t vcpu_get(Vcpu *v, Reg reg);
void vcpu_put(Vcpu *v, Reg reg, uint64_t value);
/* The linear address of a memory operand. */
uint64_t vcpu_address(Vcpu *v, const Insn *insn);
bool vcpu_read_gpa(Vcpu *v, uint64_t gpa, void *data, size_t bytes);

static inline void vcpu_void_xlate(Vcpu *v, bool global_too)
{
    __atomic_fetch_add(&v->generation[0], 1, __ATOMIC_RELEASE);
    if (global_too) {
        __atomic_fetch_add(&v->generation[1], 1, __ATOMIC_RELEASE);
    }
}

#endif

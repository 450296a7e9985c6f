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
    REG_EFLAGS,
    REG_FS_BASE,
    REG_GS_BASE,
    REG_CR0,
    REG_CR3,
    REG_CR4,
    REG_COUNT
} Reg;

#define CR0_PE 1ull
#define CR0_PG (1ull << 31)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_PGE (1ull << 7)
#define CR4_LA57 (1ull << 12)
#define CR4_PCIDE (1ull << 17)
#define CR4_SMEP (1ull << 20)
#define CR3_NOFLUSH (1ull << 63)

/*
 * A remembered translation of one 4 KiB page, in 16 bytes so that the ones in use stay in the
 * host's first-level cache. It is a cache of what the page tables hold now, to make accesses cheap;
 * which translation a vCPU may still hold wrongly is PendingSet's question.
 *
 * tag: number of the linear page (52 bits), and above it the generation that it was made in.
 * page: the Page, with XLATE_* flags in the low bits that its alignment leaves free.
 */
typedef struct Xlate {
    uint64_t tag;
    uintptr_t page;
} Xlate;

enum {
    XLATE_SHARED = 1 << 0, /* the mapping's shared bit */
    XLATE_LOOK = 1 << 1,   /* the page's state is not what the mapping expects */
    XLATE_TABLE = 1 << 2,  /* a store needs one: the page is a page table */
    XLATE_LARGE = 1 << 3,
    XLATE_FLAGS = 63
};

/* Generations of global entries are odd, the others even, so that neither takes the other's tag. */
#define GENERATION_SHIFT 52
#define GENERATION_VOID 0ull /* and 1 for global ones: no entry is ever made in these */
#define GENERATION_LAST 4093ull

typedef struct Vcpu {
    unsigned index;
    bool online; /* has translated kernel addresses, and runs */
    bool parked; /* halted until it is started anew */
    bool has_huge;
    uint64_t cr0, cr3, cr4;
    /* Of valid entries, shifted to its place in a tag; [1] is for global ones. */
    uint64_t generation[2];
    uint64_t newest[2];          /* generations ever used, not shifted */
    uint64_t hlt_us, hlt_end_us; /* see vmcall.c */
    uint64_t counter[CNT_PT_STORE + 1];
    void *reg[REG_COUNT];
    GByteArray *buffer;
    Xlate xlate[XLATE_SLOTS];
    Page nowhere __attribute__((aligned(64))); /* stands for what is no RAM */
} Vcpu;

void vcpu_init(Vcpu *v, unsigned index);
uint64_t vcpu_get(Vcpu *v, Reg reg);
void vcpu_put(Vcpu *v, Reg reg, uint64_t value);
/* The linear address of a memory operand. */
uint64_t vcpu_address(Vcpu *v, const Insn *insn);
bool vcpu_read_gpa(Vcpu *v, uint64_t gpa, void *data, size_t bytes);

/* Void the remembered translations, from any thread. */
static inline void vcpu_void_xlate(Vcpu *v, bool global_too)
{
    __atomic_store_n(&v->generation[0], GENERATION_VOID << GENERATION_SHIFT, __ATOMIC_RELEASE);
    if (global_too) {
        __atomic_store_n(&v->generation[1], 1ull << GENERATION_SHIFT, __ATOMIC_RELEASE);
    }
}

/* The generation to make an entry in; only by the vCPU's own thread, before it walks. */
uint64_t vcpu_fresh_generation(Vcpu *v, bool global);

static inline Page *xlate_page(const Xlate *x)
{
    return (Page *)(x->page & ~(uintptr_t)XLATE_FLAGS);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decoder of the few instructions that the stub watches; pure. Source: SDM volume 2. */
#ifndef TDH_INSN_H
#define TDH_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum InsnKind {
    INSN_OTHER,
    INSN_CPUID,
    INSN_TDCALL,
    INSN_CLFLUSH, /* CLFLUSH and CLFLUSHOPT: write back and drop the line */
    INSN_CLWB,    /* write back and keep the line */
    INSN_WBINVD,  /* WBINVD and WBNOINVD: every line of the machine */
    INSN_INVD,
    INSN_INVLPG,
    INSN_INVPCID,
    INSN_MOV_TO_CR,
    INSN_HLT,
    INSN_MWAIT
} InsnKind;

/* Numbers as the instruction encodes them: 0 rax .. 15 r15. */
enum { REG_NONE = -1 };
typedef enum Segment { SEG_FLAT, SEG_FS, SEG_GS } Segment;

typedef struct Insn {
    InsnKind kind;
    /* The memory operand; for a RIP-relative one base and index are REG_NONE and disp is the
       absolute address. */
    int8_t base, index;
    uint8_t scale; /* shift: 0 to 3 */
    uint8_t segment;
    bool addr32;
    int64_t disp;
    /* MOV_TO_CR: number of the control register; the source register is `reg`.
       INVPCID: `reg` holds the type. */
    uint8_t cr;
    uint8_t reg;
} Insn;

/*
 * Decode `length` bytes at address `pc` as 64-bit code. In 16- and 32-bit code the bytes 40..4f
 * are instructions of their own, so no instruction that this decodes is mistaken there except in
 * the registers it names; the caller ignores those modes.
 */
Insn insn_decode(const uint8_t *bytes, size_t length, uint64_t pc);

/* Whether the `length` bytes that end at a return address may end with a CALL. */
bool insn_ends_with_call(const uint8_t *bytes, size_t length);

#endif

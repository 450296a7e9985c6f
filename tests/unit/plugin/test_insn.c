/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every addressing form of the watched instructions: encodings by hand from SDM
 * volume 2. */
#include "check.h"
#include "insn.h"

#define PC 0xffffffff81000000ull

typedef struct Case {
    uint8_t bytes[16];
    size_t length;
    Insn want;
} Case;

static const Case cases[] = {
    /* clflush (%rax) */
    {{0x0f, 0xae, 0x38}, 3, {.kind = INSN_CLFLUSH, .base = 0, .index = -1}},
    /* clflushopt (%rax) */
    {{0x66, 0x0f, 0xae, 0x38}, 4, {.kind = INSN_CLFLUSH, .base = 0, .index = -1}},
    /* ds clflush (%r9), as the kernel's alternative pads it */
    {{0x3e, 0x41, 0x0f, 0xae, 0x39}, 5, {.kind = INSN_CLFLUSH, .base = 9, .index = -1}},
    /* clflushopt 0x40(%r13) */
    {{0x66, 0x41, 0x0f, 0xae, 0x7d, 0x40},
     6,
     {.kind = INSN_CLFLUSH, .base = 13, .index = -1, .disp = 0x40}},
    /* clflush -0x80(%rbp) */
    {{0x0f, 0xae, 0x7d, 0x80}, 4, {.kind = INSN_CLFLUSH, .base = 5, .index = -1, .disp = -0x80}},
    /* clflush 0x12345678(%rsp) */
    {{0x0f, 0xae, 0xbc, 0x24, 0x78, 0x56, 0x34, 0x12},
     8,
     {.kind = INSN_CLFLUSH, .base = 4, .index = -1, .disp = 0x12345678}},
    /* clflush (%rax,%r12,8) */
    {{0x42, 0x0f, 0xae, 0x3c, 0xe0}, 5, {.kind = INSN_CLFLUSH, .base = 0, .index = 12, .scale = 3}},
    /* clflush 0x10(,%rcx,4) */
    {{0x0f, 0xae, 0x3c, 0x8d, 0x10, 0, 0, 0},
     8,
     {.kind = INSN_CLFLUSH, .base = -1, .index = 1, .scale = 2, .disp = 0x10}},
    /* clflush 0x100(%rip): the address counts from the next instruction */
    {{0x0f, 0xae, 0x3d, 0, 1, 0, 0},
     7,
     {.kind = INSN_CLFLUSH, .base = -1, .index = -1, .disp = PC + 7 + 0x100}},
    /* clflush %gs:(%rdx) */
    {{0x65, 0x0f, 0xae, 0x3a},
     4,
     {.kind = INSN_CLFLUSH, .base = 2, .index = -1, .segment = SEG_GS}},
    /* clflush (%esi) */
    {{0x67, 0x0f, 0xae, 0x3e}, 4, {.kind = INSN_CLFLUSH, .base = 6, .index = -1, .addr32 = true}},
    /* clwb (%rdi) */
    {{0x66, 0x0f, 0xae, 0x37}, 4, {.kind = INSN_CLWB, .base = 7, .index = -1}},
    /* invlpg (%r8) */
    {{0x41, 0x0f, 0x01, 0x38}, 4, {.kind = INSN_INVLPG, .base = 8, .index = -1}},
    /* invpcid (%rsp),%rax */
    {{0x66, 0x0f, 0x38, 0x82, 0x04, 0x24},
     6,
     {.kind = INSN_INVPCID, .base = 4, .index = -1, .reg = 0}},
    /* invpcid (%rdx),%r10 */
    {{0x66, 0x44, 0x0f, 0x38, 0x82, 0x12},
     6,
     {.kind = INSN_INVPCID, .base = 2, .index = -1, .reg = 10}},
    /* mov %rdi,%cr3; mov %r9,%cr4; mov %rax,%cr8 */
    {{0x0f, 0x22, 0xdf}, 3, {.kind = INSN_MOV_TO_CR, .base = -1, .index = -1, .cr = 3, .reg = 7}},
    {{0x41, 0x0f, 0x22, 0xe1},
     4,
     {.kind = INSN_MOV_TO_CR, .base = -1, .index = -1, .cr = 4, .reg = 9}},
    {{0x44, 0x0f, 0x22, 0xc0},
     4,
     {.kind = INSN_MOV_TO_CR, .base = -1, .index = -1, .cr = 8, .reg = 0}},
    {{0x66, 0x0f, 0x01, 0xcc}, 4, {.kind = INSN_TDCALL, .base = -1, .index = -1}},
    {{0x0f, 0xa2}, 2, {.kind = INSN_CPUID, .base = -1, .index = -1}},
    {{0x0f, 0x09}, 2, {.kind = INSN_WBINVD, .base = -1, .index = -1}},
    {{0xf3, 0x0f, 0x09}, 3, {.kind = INSN_WBINVD, .base = -1, .index = -1}},
    {{0x0f, 0x08}, 2, {.kind = INSN_INVD, .base = -1, .index = -1}},
};

/* What looks alike and is something else. */
static const Case others[] = {
    {{0x0f, 0xae, 0xf8}, 3, {0}},       /* sfence */
    {{0x0f, 0xae, 0xf0}, 3, {0}},       /* mfence */
    {{0xf3, 0x0f, 0xae, 0xc8}, 4, {0}}, /* rdgsbase: rep and a register */
    {{0xf3, 0x0f, 0xae, 0x30}, 4, {0}}, /* clrssbsy */
    {{0x0f, 0xae, 0x30}, 3, {0}},       /* xsaveopt: /6 without 66 */
    {{0x0f, 0x01, 0xf8}, 3, {0}},       /* swapgs: /7 of a register */
    {{0x0f, 0x01, 0x18}, 3, {0}},       /* lidt */
    {{0x0f, 0x01, 0xcc}, 3, {0}},       /* no 66: not TDCALL */
    {{0x66, 0x0f, 0x01, 0xcd}, 4, {0}}, /* seamret */
    {{0x0f, 0x20, 0xd8}, 3, {0}},       /* mov %cr3,%rax */
    {{0x90}, 1, {0}},
    {{0x0f}, 1, {0}},                         /* cut short */
    {{0x0f, 0xae, 0xbc, 0x24, 0x78}, 5, {0}}, /* cut short in the displacement */
    {{0x66, 0x66, 0x66}, 3, {0}},
};

static void calls(void)
{
    CHECK_EQ(insn_ends_with_call((const uint8_t[]){0x90, 0x90, 0xe8, 1, 2, 3, 4}, 7), true);
    CHECK_EQ(insn_ends_with_call((const uint8_t[]){0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0}, 7),
             true);
    CHECK_EQ(insn_ends_with_call((const uint8_t[]){0xff, 0x94, 0xc3, 1, 2, 3, 4}, 7), true);
    CHECK_EQ(insn_ends_with_call((const uint8_t[]){0x90, 0x90, 0xe9, 1, 2, 3, 4}, 7), false);
    /* FF /4 is a jump */
    CHECK_EQ(insn_ends_with_call((const uint8_t[]){0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0}, 7),
             false);
    CHECK_EQ(insn_ends_with_call((const uint8_t[]){0xe8}, 1), false);
}

int main(void)
{
    calls();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        Insn got = insn_decode(cases[i].bytes, cases[i].length, PC), want = cases[i].want;

        fprintf(stderr, "case %zu\n", i);
        CHECK_EQ(got.kind, want.kind);
        CHECK_EQ(got.base, want.base);
        CHECK_EQ(got.index, want.index);
        CHECK_EQ(got.scale, want.scale);
        CHECK_EQ(got.segment, want.segment);
        CHECK_EQ(got.addr32, want.addr32);
        CHECK_EQ(got.disp, want.disp);
        CHECK_EQ(got.cr, want.cr);
        CHECK_EQ(got.reg, want.reg);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        fprintf(stderr, "other %zu\n", i);
        CHECK_EQ(insn_decode(others[i].bytes, others[i].length, PC).kind, INSN_OTHER);
    }
    return 0;
}

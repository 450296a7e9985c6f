/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPUID and TDCALL leaves: Intel TDX Module ABI; what Linux issues, arch/x86/coco/tdx/tdx.c. */
#include "whole.h"

#include <string.h>

#include "guest.h"

#define INVALID 0xc000010000000000ull
enum { ON_RAX = 0, ON_RCX = 1, ON_RDX = 2, ON_R8 = 8 };
#define SENTINEL 0x5555aaaa5555aaaaull

/* TDX_IDENT of asm/shared/tdx.h: "IntelTDX    " in EBX, EDX, ECX. */
TEST(cpuid_leaf_21_names_the_module)
{
    FakeInsn *insn;

    guest_start(1);
    insn = INSN(0x0f, 0xa2);
    fake_set(0, RAX, 0xffffffff00000021); /* upper halves are ignored: SDM volume 2, CPUID */
    fake_set(0, RCX, 0xffffffff00000000);
    CHECK_EQ(fake_exec(0, insn), false);
    CHECK_EQ(fake_rip(0), GUEST_PC + 2);
    CHECK_EQ(fake_get(0, RAX), 0);
    CHECK_EQ(fake_get(0, RBX), 0x65746e49);
    CHECK_EQ(fake_get(0, RDX), 0x5844546c);
    CHECK_EQ(fake_get(0, RCX), 0x20202020);
}

TEST(other_cpuid_leaves_are_left_to_the_machine)
{
    static const uint32_t others[][2] = {{0, 0}, {0x21, 1}, {0x20, 0}, {0x40000000, 0}};

    guest_start(1);
    fake_set(0, RBX, SENTINEL);
    for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
        fake_set(0, RAX, others[i][0]);
        fake_set(0, RCX, others[i][1]);
        CHECK_EQ(fake_exec(0, INSN(0x0f, 0xa2)), true);
        CHECK_EQ(fake_get(0, RAX), others[i][0]);
        CHECK_EQ(fake_get(0, RBX), SENTINEL);
    }
}

/* A prefix makes the instruction longer; the PC goes behind all of it. */
TEST(the_pc_goes_behind_a_long_cpuid)
{
    guest_start(1);
    fake_set(0, RAX, 0x21);
    fake_set(0, RCX, 0);
    CHECK_EQ(fake_exec(0, INSN(0x66, 0x0f, 0xa2)), false);
    CHECK_EQ(fake_rip(0), GUEST_PC + 3);
}

/* TDCALL with CPL above 0 is #GP or #UD, not a call: QEMU raises #UD. */
TEST(tdcall_in_user_mode_is_left_to_the_machine)
{
    guest_start(1);
    fake_set(0, REG_CS, 0x33);
    fake_set(0, RAX, 1);
    CHECK_EQ(fake_exec(0, INSN(0x66, 0x0f, 0x01, 0xcc)), true);
    CHECK_EQ(fake_get(0, RAX), 1);
    CHECK_EQ(guest_events(), 0);
}

TEST(vp_info)
{
    guest_start(3);
    fake_set(1, R10, SENTINEL);
    fake_set(1, R11, SENTINEL);
    fake_set(1, R12, SENTINEL);
    CHECK_EQ(guest_tdcall(1, 1), 0);
    CHECK_EQ(fake_get(1, RCX), 53);
    CHECK_EQ(fake_get(1, RDX), 1 << 28); /* SEPT_VE_DISABLE: else Linux stops */
    CHECK_EQ(fake_get(1, R8), 3 | 3ull << 32);
    CHECK_EQ(fake_get(1, R9), 1);
    CHECK_EQ(fake_get(1, R10), 0);
    CHECK_EQ(fake_get(1, R11), 0);
    CHECK_EQ(fake_get(1, R12), SENTINEL);
    CHECK_EQ(guest_last(EV_TDCALL)->flags, 0);
    CHECK_EQ(guest_last(EV_TDCALL)->vcpu, 1);
    CHECK_EQ(guest_last(EV_TDCALL)->pc, GUEST_PC);
}

typedef struct Case {
    uint64_t leaf, rcx, rdx, r8, r9;
    uint64_t status;
    uint32_t flags;
    uint64_t r8_out; /* SENTINEL: as it was */
} Case;

#define REPORT (6 * MIB)
#define DATA (7 * MIB)
#define CONFIG_FLAGS 0x1110000300000016ull
#define TD_CTLS 0x1110000300000017ull
#define NOTIFY_ENABLES 0x9100000000000010ull
#define TOPOLOGY 0x9100000000000019ull
#define NO_FIELD 0xc0000c0000000000ull

static const Case cases[] = {
    /* RAX: leaf in 15:0, version in 23:16, the rest reserved (ABI, TDCALL instruction). */
    {5, 0, 0, SENTINEL, 0, INVALID | ON_RAX, EF_UNKNOWN, SENTINEL},
    {9, 0, 0, SENTINEL, 0, INVALID | ON_RAX, EF_UNKNOWN, SENTINEL},
    {0xffff, 0, 0, SENTINEL, 0, INVALID | ON_RAX, EF_UNKNOWN, SENTINEL},
    {1 | 1 << 16, 0, 0, SENTINEL, 0, INVALID | ON_RAX, EF_BAD, SENTINEL},
    {1 | 1ull << 63, 0, 0, SENTINEL, 0, INVALID | ON_RAX, EF_BAD, SENTINEL},
    {0 | 1 << 16, 0, 0, SENTINEL, 0, INVALID | ON_RAX, EF_BAD, SENTINEL},
    {6 | 1 << 24, 0, 0, SENTINEL, 0, INVALID | ON_RAX, EF_BAD, SENTINEL},
    /* TDG.MR.RTMR.EXTEND: RCX 64-byte aligned, RDX 0 to 3. */
    {2, DATA, 2, SENTINEL, 0, 0, 0, SENTINEL},
    {2, DATA + 32, 2, SENTINEL, 0, INVALID | ON_RCX, EF_BAD, SENTINEL},
    {2, DATA, 4, SENTINEL, 0, INVALID | ON_RDX, EF_BAD, SENTINEL},
    /* TDG.VP.VEINFO.GET without a #VE. */
    {3, 0, 0, SENTINEL, 0, 0xc000070400000000, 0, SENTINEL},
    /* TDG.MR.REPORT: RCX 1024-byte aligned, RDX 64-byte aligned, R8 subtype 0. */
    {4, REPORT, DATA, 0, 0, 0, 0, 0},
    {4, REPORT + 512, DATA, 0, 0, INVALID | ON_RCX, EF_BAD, 0},
    {4, 0xfee00000, DATA, 0, 0, INVALID | ON_RCX, EF_BAD, 0},
    {4, REPORT, DATA + 8, 0, 0, INVALID | ON_RDX, EF_BAD, 0},
    {4, REPORT, 0xfee00000, 0, 0, INVALID | ON_RDX, EF_BAD, 0},
    {4, REPORT, DATA, 1, 0, INVALID | ON_R8, EF_BAD, 1},
    /* TDG.VM.RD */
    {7, 0, CONFIG_FLAGS, SENTINEL, 0, 0, 0, 0},
    {7, 0, TD_CTLS, SENTINEL, 0, 0, 0, 0},
    {7, 0, NOTIFY_ENABLES, SENTINEL, 0, 0, 0, 0},
    {7, 0, TOPOLOGY, SENTINEL, 0, 0, 0, 1},
    {7, 0, 0x1234, SENTINEL, 0, NO_FIELD, EF_BAD, 0},
    /* TDG.VM.WR: R8 becomes the old value. */
    {8, 0, NOTIFY_ENABLES, 1, ~0ull, 0, 0, 0},
    {8, 0, CONFIG_FLAGS, 1, ~0ull, NO_FIELD, EF_BAD, 0},
    {8, 0, 0x1234, 1, ~0ull, NO_FIELD, EF_BAD, 0},
};

TEST(leaves_by_table)
{
    guest_start(1);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Case *c = &cases[i];
        const EventRecord *record;

        fprintf(stderr, "case %zu\n", i);
        fake_set(0, RCX, c->rcx);
        fake_set(0, RDX, c->rdx);
        fake_set(0, R8, c->r8);
        fake_set(0, R9, c->r9);
        guest_forget();
        CHECK_EQ(guest_tdcall(0, c->leaf), c->status);
        CHECK_EQ(fake_get(0, R8), c->r8_out);
        CHECK_EQ(guest_events(), 1);
        record = guest_event(0);
        CHECK_EQ(record->kind, EV_TDCALL);
        CHECK_EQ(record->flags, c->flags);
        CHECK_EQ(record->arg[0], c->leaf);
        CHECK_EQ(record->arg[1], c->rcx);
        CHECK_EQ(record->arg[2], c->rdx);
        CHECK_EQ(record->arg[4], c->status);
    }
}

/* Bits outside the mask stay; bits that the module does not know are not kept. */
TEST(td_ctls_keep_what_is_written_under_the_mask)
{
    static const uint64_t writes[][4] = {
        /* value, mask, the old value given back, the new value read */
        {0x1, 0x1, 0x0, 0x1},
        {0x8, 0x8, 0x1, 0x9},
        {0x0, 0x1, 0x9, 0x8},
        {0xffff, 0x2, 0x8, 0xa},
    };

    guest_start(2);
    for (size_t i = 0; i < G_N_ELEMENTS(writes); i++) {
        fake_set(0, RDX, TD_CTLS);
        fake_set(0, R8, writes[i][0]);
        fake_set(0, R9, writes[i][1]);
        CHECK_EQ(guest_tdcall(0, 8), 0);
        CHECK_EQ(fake_get(0, R8), writes[i][2]);
        fake_set(1, RDX, TD_CTLS);
        CHECK_EQ(guest_tdcall(1, 7), 0);
        CHECK_EQ(fake_get(1, R8), writes[i][3]);
    }
}

/* TDREPORT_STRUCT: REPORTTYPE.TYPE 0x81 for TDX at 0, REPORTDATA at 128. */
TEST(a_report_holds_the_callers_data)
{
    uint8_t *report, *data;

    guest_start(1);
    report = fake_ram(REPORT, 2048);
    data = fake_ram(DATA, 64);
    memset(report, 0xee, 2048);
    memset(data, 0xd7, 64);
    fake_set(0, RCX, REPORT);
    fake_set(0, RDX, DATA);
    fake_set(0, R8, 0);
    CHECK_EQ(guest_tdcall(0, 4), 0);
    CHECK_EQ(report[0], 0x81);
    CHECK_EQ(report[127], 0);
    CHECK_EQ(memcmp(report + 128, data, 64), 0);
    CHECK_EQ(report[192], 0);
    CHECK_EQ(report[1023], 0);
    CHECK_EQ(report[1024], 0xee);
}

/* A call that breaks the contract is followed by the stack: words that stand behind a CALL. */
TEST(a_bad_call_tells_its_stack)
{
    const uint64_t rsp = 20 * MIB, text = 0xffffffff81000000ull;
    uint64_t *stack;

    guest_prepare(5);
    guest_map(text, 16 * MIB, 1, PTE_GLOBAL);
    guest_boot(1, NULL);
    stack = fake_ram(rsp, 64);
    memcpy(fake_ram(16 * MIB + 0x100, 5), (uint8_t[]){0xe8, 1, 2, 3, 4}, 5);
    stack[0] = text + 0x105; /* behind the CALL */
    stack[1] = text + 0x205; /* behind no CALL */
    stack[2] = at(ELSEWHERE);
    stack[3] = text + 0x105;
    stack[4] = 0xffffffff90000000ull; /* not mapped */
    fake_set(0, RSP, at(rsp));
    CHECK_EQ(guest_tdcall(0, 5), INVALID | ON_RAX);
    CHECK_EQ(guest_stack_words(), 2);
    guest_forget();
    CHECK_EQ(guest_tdcall(0, 1), 0);
    CHECK_EQ(guest_stack_words(), 0);
    /* A stack that is not mapped ends the search, not the run. */
    fake_set(0, RSP, 0xffffffffa0000000ull);
    CHECK_EQ(guest_tdcall(0, 5), INVALID | ON_RAX);
    CHECK_EQ(guest_stack_words(), 0);
}

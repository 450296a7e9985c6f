/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TDG.VP.VMCALL functions: Intel Guest-Host-Communication Interface. */
#include "whole.h"

#include <string.h>

#include "guest.h"

#define INVALID_OPERAND 0x8000000000000000ull
#define ALIGN_ERROR 0x8000000000000002ull
#define SENTINEL 0x5555aaaa5555aaaaull
#define SHARED SHARED_BIT
#define QUOTE (6 * MIB)

typedef struct Case {
    uint64_t r10, r11, r12, r13;
    uint64_t r10_out, r11_out;
    uint32_t flags;
    bool silent; /* too frequent to be recorded */
} Case;

static const Case cases[] = {
    {0, 10, 0x40000000, 0, 0, 10, 0, false}, /* CPUID */
    {0, 12, 0, 0, 0, 12, 0, true},           /* HLT */
    {0, 30, 1, 0, 0, 0xff, 0, true},         /* IO: all ones */
    {0, 30, 4, 0, 0, 0xffffffff, 0, true},
    {0, 30, 2, 1, 0, 30, 0, true},
    {0, 30, 0, 0, INVALID_OPERAND, 30, EF_BAD, false}, /* sizes are 1, 2 and 4 */
    {0, 30, 3, 0, INVALID_OPERAND, 30, EF_BAD, false},
    {0, 30, 8, 1, INVALID_OPERAND, 30, EF_BAD, false},
    {0, 30, 1, 2, INVALID_OPERAND, 30, EF_BAD, false},          /* neither read nor write */
    {0, 31, 0x10, 0, INVALID_OPERAND, 31, EF_BAD, false},       /* RDMSR */
    {0, 32, 0x10, 0, INVALID_OPERAND, 32, EF_BAD, false},       /* WRMSR */
    {0, 48, 8, 0, INVALID_OPERAND, 48, EF_BAD, false},          /* MMIO */
    {0, 0x10000, 0, 0, 0, 0, 0, false},                         /* GetTdVmCallInfo */
    {0, 0x10002, QUOTE | SHARED, 0x2000, 0, 0x10002, 0, false}, /* GetQuote */
    {0, 0x10002, QUOTE, 0x2000, INVALID_OPERAND, 0x10002, EF_BAD, false},
    {0, 0x10002, (QUOTE + 8) | SHARED, 0x2000, INVALID_OPERAND, 0x10002, EF_BAD, false},
    {0, 0x10002, QUOTE | SHARED, 0x2008, INVALID_OPERAND, 0x10002, EF_BAD, false},
    {0, 0x10002, QUOTE | SHARED, 0, INVALID_OPERAND, 0x10002, EF_BAD, false},
    {0, 0x10002, 0xfee00000 | SHARED, 0x2000, INVALID_OPERAND, 0x10002, EF_BAD, false},
    {0, 0x10003, 0, 0, 0, 0x10003, EF_BAD, false}, /* ReportFatalError */
    {0, 0x10004, 32, 0, 0, 0x10004, 0, false},     /* SetupEventNotify */
    {0, 0x10004, 255, 0, 0, 0x10004, 0, false},
    {0, 0x10004, 31, 0, INVALID_OPERAND, 0x10004, EF_BAD, false},
    {0, 0x10004, 256, 0, INVALID_OPERAND, 0x10004, EF_BAD, false},
    {0, 0x10005, 0, 0, INVALID_OPERAND, 0x10005, EF_UNKNOWN, false}, /* no such function */
    {0, 0, 0, 0, INVALID_OPERAND, 0, EF_UNKNOWN, false},
    {1, 10, 0, 0, INVALID_OPERAND, 10, EF_UNKNOWN, false}, /* a vendor's, not ours */
};

TEST(a_port_behind_the_last)
{
    guest_start(1);
    fake_set(0, R14, 0x10000);
    CHECK_EQ(guest_vmcall(0, 0, 30, 1, 0), INVALID_OPERAND);
    CHECK_EQ(guest_last(EV_VMCALL)->flags, EF_BAD);
    fake_set(0, R14, 0xffff);
    CHECK_EQ(guest_vmcall(0, 0, 30, 1, 0), 0);
}

TEST(functions_by_table)
{
    guest_prepare(5);
    guest_boot(1, "single=on"); /* no sleeping in HLT */
    guest_map_gpa(0, QUOTE, 2 * PAGE_BYTES, true);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Case *c = &cases[i];
        const EventRecord *record;

        fprintf(stderr, "case %zu\n", i);
        guest_forget();
        CHECK_EQ(guest_vmcall(0, c->r10, c->r11, c->r12, c->r13), c->r10_out);
        CHECK_EQ(fake_get(0, R11), c->r11_out);
        CHECK_EQ(guest_events(), !c->silent);
        if (!c->silent) {
            record = guest_event(0);
            CHECK_EQ(record->kind, EV_VMCALL);
            CHECK_EQ(record->flags, c->flags);
            CHECK_EQ(record->arg[0], c->r11);
            CHECK_EQ(record->arg[1], c->r12);
            CHECK_EQ(record->arg[2], c->r13);
            CHECK_EQ(record->arg[3], c->r10_out);
            CHECK_EQ(record->arg[4], c->r11_out);
        }
    }
}

/* RAX, RCX, RSP and what is above bit 31 are never passed; with any of them nothing happens. */
TEST(rcx_reserved_bits)
{
    static const uint64_t bits[] = {1, 2, 0x10, 1ull << 32, 1ull << 63};

    guest_start(1);
    for (size_t i = 0; i < G_N_ELEMENTS(bits); i++) {
        guest_forget();
        fake_set(0, RCX, 0xffcc | bits[i]);
        fake_set(0, R10, 0);
        fake_set(0, R11, 0x10001);
        fake_set(0, R12, SMALL | SHARED);
        fake_set(0, R13, PAGE_BYTES);
        CHECK_EQ(guest_tdcall(0, 0), 0xc000010000000001);
        CHECK_EQ(fake_get(0, R10), 0);
        CHECK_EQ(fake_get(0, R11), 0x10001);
        CHECK_EQ(guest_events(), 1);
        CHECK_EQ(guest_last(EV_VMCALL)->flags, EF_BAD);
    }
    guest_store(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_WRONG_ALIAS), 0);
}

TEST(registers_of_cpuid_and_info_are_cleared)
{
    guest_start(1);
    for (Reg reg = R12; reg <= R15; reg++) {
        fake_set(0, reg, SENTINEL);
    }
    guest_vmcall(0, 0, 0x10000, 0, SENTINEL);
    CHECK_EQ(fake_get(0, R13), 0);
    CHECK_EQ(fake_get(0, R14), 0);
    CHECK_EQ(fake_get(0, R15), SENTINEL);
    guest_vmcall(0, 0, 10, 0x40000001, 0);
    CHECK_EQ(fake_get(0, R12) | fake_get(0, R13) | fake_get(0, R15), 0);
}

/* The buffer's header: version, status, lengths; GET_QUOTE_SERVICE_UNAVAILABLE in the status. */
TEST(a_quote_is_refused_in_its_buffer)
{
    uint64_t *header;

    guest_start(1);
    guest_map_gpa(0, QUOTE, PAGE_BYTES, true);
    header = fake_ram(QUOTE, 32);
    memset(header, 0xee, 32);
    CHECK_EQ(guest_vmcall(0, 0, 0x10002, QUOTE | SHARED, PAGE_BYTES), 0);
    CHECK_EQ(header[0], 0xeeeeeeeeeeeeeeee);
    CHECK_EQ(header[1], 0x8000000000000001);
    CHECK_EQ(header[2], 0xeeeeeeeeeeeeeeee);
}

TEST(marks)
{
    const EventRecord *record;

    guest_start(2);
    CHECK_EQ(guest_vmcall(1, 0x544448, 1, 77, 5), 0);
    CHECK_EQ(guest_vmcall(1, 0x544448, 2, 77, 5), 0);
    CHECK_EQ(guest_events(), 2);
    for (unsigned i = 0; i < 2; i++) {
        record = guest_event(i);
        CHECK_EQ(record->kind, EV_MARK);
        CHECK_EQ(record->vcpu, 1);
        CHECK_EQ(record->arg[0], 1 + i);
        CHECK_EQ(record->arg[1], 77);
        CHECK_EQ(record->arg[2] | record->arg[3] | record->arg[4], 0);
    }
}

static const struct {
    uint64_t r12, bytes, status;
} map_gpa_cases[] = {
    {SMALL + 8, PAGE_BYTES, ALIGN_ERROR},
    {SMALL, PAGE_BYTES + 8, ALIGN_ERROR},
    {SMALL | SHARED, 100, ALIGN_ERROR},
    {SMALL, 0, INVALID_OPERAND},
    {1ull << 53, PAGE_BYTES, INVALID_OPERAND},
    {1ull << 63 | SHARED, PAGE_BYTES, INVALID_OPERAND},
    {SHARED - PAGE_BYTES, 2 * PAGE_BYTES, INVALID_OPERAND},
    {SMALL, -SMALL, INVALID_OPERAND},             /* wraps to 0 */
    {SMALL, PAGE_BYTES - SMALL, INVALID_OPERAND}, /* wraps behind 0 */
    {SMALL | SHARED, ~0xfffull, INVALID_OPERAND},
};

TEST(map_gpa_operands)
{
    guest_start(1);
    for (size_t i = 0; i < G_N_ELEMENTS(map_gpa_cases); i++) {
        uint64_t r12 = map_gpa_cases[i].r12, bytes = map_gpa_cases[i].bytes;
        const EventRecord *record;

        fprintf(stderr, "case %zu\n", i);
        guest_forget();
        CHECK_EQ(guest_vmcall(0, 0, 0x10001, r12, bytes), map_gpa_cases[i].status);
        CHECK_EQ(guest_events(), 1);
        record = guest_event(0);
        CHECK_EQ(record->kind, EV_CONVERT);
        CHECK_EQ(record->flags, EF_BAD | (r12 & SHARED ? EF_TO_SHARED : 0));
        CHECK_EQ(record->arg[0], r12 & ~SHARED);
        CHECK_EQ(record->arg[1], bytes);
        CHECK_EQ(record->arg[2], map_gpa_cases[i].status);
    }
    guest_store(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_WRONG_ALIAS), 0);
}

/* All that the operands can name: RAM of it is converted, and the call comes back. */
TEST(map_gpa_of_everything_ends)
{
    guest_start(1);
    guest_store(0, at(4 * GIB + ABOVE_4G - 8), 8);
    CHECK_EQ(guest_map_gpa(0, 0, SHARED, true), 0);
    CHECK_EQ(guest_last(EV_CONVERT)->arg[1], SHARED);
    CHECK_EQ(guest_last(EV_CONVERT)->arg[3] > 0, true);
    CHECK_EQ(guest_map_gpa(0, SHARED - PAGE_BYTES, PAGE_BYTES, true), 0);
    CHECK_EQ(guest_last(EV_CONVERT)->arg[3], 0);
}

/* What a conversion leaves shows in what ACCEPT says. */
TEST(directions)
{
    guest_start(1);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, false), 0); /* private to private: as it was */
    CHECK_EQ(guest_last(EV_CONVERT)->flags, 0);
    CHECK_EQ(guest_accept(0, SMALL, 0), 0x00000b0a00000000);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, true), 0);
    CHECK_EQ(guest_last(EV_CONVERT)->flags, EF_TO_SHARED);
    CHECK_EQ(guest_accept(0, SMALL, 0), 0xc0000b0000000001);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, true), 0); /* shared to shared */
    CHECK_EQ(guest_accept(0, SMALL, 0), 0xc0000b0000000001);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, false), 0);
    CHECK_EQ(guest_map_gpa(0, SMALL, PAGE_BYTES, false), 0); /* pending stays pending */
    CHECK_EQ(guest_accept(0, SMALL, 0), 0);
    CHECK_EQ(guest_accept(0, SMALL + PAGE_BYTES, 0), 0x00000b0a00000000);
}

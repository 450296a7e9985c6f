/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cache flush instructions: SDM volume 2, CLFLUSH, CLFLUSHOPT, CLWB, WBINVD, WBNOINVD, INVD. */
#include "whole.h"

#include "guest.h"

/* Bits 31:0 of arg[4] of a conversion are lines flushed again, above them lines flushed. */
static uint64_t flushed(void)
{
    return guest_last(EV_CONVERT)->arg[4];
}

/* Every form reaches line 5, and that alone: lines 4 and 6 stay dirty. */
#define TARGET (SMALL + 5 * LINE_BYTES)

static const struct {
    uint8_t bytes[10], length;
    uint64_t rax, r9, gs; /* added to by the form */
    uint64_t offset;      /* of the form: the registers are set so that all reaches the target */
    Reg carries;
} forms[] = {
    {{0x0f, 0xae, 0x38}, 3, 0, 0, 0, 0, RAX},                       /* clflush (%rax) */
    {{0x66, 0x0f, 0xae, 0x38}, 4, 0, 0, 0, 0, RAX},                 /* clflushopt (%rax) */
    {{0x3e, 0x0f, 0xae, 0x38}, 4, 0, 0, 0, 0, RAX},                 /* as alternatives pad it */
    {{0x0f, 0xae, 0x78, 0xc0}, 4, 0, 0, 0, -64ull, RAX},            /* -64(%rax) */
    {{0x66, 0x41, 0x0f, 0xae, 0x39}, 5, 0, 0, 0, 0, R9},            /* (%r9) */
    {{0x42, 0x0f, 0xae, 0x7c, 0x88, 0x08}, 6, 0, 4, 0, 24, RAX},    /* 8(%rax,%r9,4) */
    {{0x65, 0x0f, 0xae, 0x38}, 4, 0, 0, 0x1000, 0x1000, RAX},       /* %gs:(%rax) */
    {{0x66, 0x0f, 0xae, 0xb8, 0x3f, 0, 0, 0}, 8, 0, 0, 0, 63, RAX}, /* any byte of the line */
    {{0x66, 0x0f, 0xae, 0x30}, 4, 0, 0, 0, 0, RAX},                 /* clwb (%rax) */
};

TEST(every_form_of_a_flush_reaches_its_line)
{
    guest_start(1);
    for (size_t i = 0; i < G_N_ELEMENTS(forms); i++) {
        bool clwb = i == G_N_ELEMENTS(forms) - 1;

        fprintf(stderr, "case %zu\n", i);
        guest_store(0, at(TARGET) - 64, 64);
        guest_store(0, at(TARGET), 64);
        guest_store(0, at(TARGET) + 64, 64);
        fake_set(0, RAX, forms[i].rax);
        fake_set(0, R9, forms[i].r9);
        fake_set(0, REG_GS_BASE, forms[i].gs);
        fake_set(0, forms[i].carries, at(TARGET) - (forms[i].offset == 63 ? 0 : forms[i].offset));
        CHECK_EQ(fake_exec(0, guest_insn(forms[i].length, forms[i].bytes)), true);
        CHECK_EQ(guest_dirty(SMALL, true), 1 << 4 | 1 << 6);
        CHECK_EQ(flushed(), clwb ? 0 : 1ull << 32);
        guest_map_gpa(0, SMALL, PAGE_BYTES, false);
        guest_accept(0, SMALL, 0);
    }
}

TEST(a_rip_relative_flush)
{
    const uint64_t pc = DIRECT5 + SMALL + 0x100;
    const uint8_t bytes[1][FAKE_INSN_BYTES] = {{0x0f, 0xae, 0x3d, 0x39, 0, 0, 0}};

    guest_start(1);
    guest_store(0, at(TARGET), 1);
    guest_store(0, pc, 1);
    CHECK_EQ(fake_exec(0, &fake_translate(pc, 1, bytes, &(const size_t){7})->insn[0]), true);
    CHECK_EQ(guest_dirty(SMALL, true), 1 << 4); /* 0x100 + 7 + 0x39 = 0x140 was cleaned */
}

/* A flush through a translation of the other key cleans nothing of this one. */
TEST(a_flush_through_the_wrong_key)
{
    guest_start(1);
    guest_store(0, at(SMALL), 8);
    guest_clflush(0, at(SHARED_ALIAS + SMALL));
    CHECK_EQ(guest_count(EV_WRONG_ALIAS), 1);
    CHECK_EQ(guest_last(EV_WRONG_ALIAS)->flags, EF_SHARED | EF_CACHE);
    CHECK_EQ(guest_dirty(SMALL, true), 1);
    guest_store(0, at(SHARED_ALIAS + SMALL), 8);
    guest_clflush(0, at(SMALL));
    CHECK_EQ(guest_last(EV_WRONG_ALIAS)->flags, EF_CACHE);
    CHECK_EQ(guest_dirty(SMALL, false), 1);
}

/* kernel order: flushed, then stored to again before the conversion. */
TEST(a_line_stored_to_after_its_flush_is_dirty)
{
    guest_start(2);
    guest_store(0, at(SMALL), 8);
    guest_clflush(0, at(SMALL));
    guest_store(1, at(SMALL), 8);
    CHECK_EQ(guest_dirty(SMALL, true), 1);
}

TEST(a_line_flushed_twice_is_counted)
{
    guest_start(2);
    guest_clflush_range(0, at(SMALL), PAGE_BYTES);
    guest_clflush_range(1, at(SMALL), 2 * LINE_BYTES);
    guest_dirty(SMALL, true);
    CHECK_EQ(flushed(), 64ull << 32 | 2);
    /* The count begins anew with each conversion. */
    guest_dirty(SMALL, false);
    CHECK_EQ(flushed(), 0);
}

TEST(flushes_of_everything)
{
    static const struct {
        uint8_t bytes[3], length, opcode;
    } insns[] = {
        {{0x0f, 0x09}, 2, 0x09},       /* wbinvd */
        {{0xf3, 0x0f, 0x09}, 3, 0x09}, /* wbnoinvd */
        {{0x0f, 0x08}, 2, 0x08},       /* invd */
    };

    guest_start(2);
    for (size_t i = 0; i < G_N_ELEMENTS(insns); i++) {
        const EventRecord *record;

        guest_store(0, at(SMALL), 64);
        guest_store(0, at(4 * GIB), 64);
        guest_forget();
        CHECK_EQ(fake_exec(1, guest_insn(insns[i].length, insns[i].bytes)), true);
        record = guest_last(EV_CACHE_ALL);
        CHECK_EQ(record->arg[0], insns[i].opcode);
        CHECK_EQ(record->vcpu, 1);
        CHECK_EQ(record->pc, GUEST_PC);
        CHECK_EQ(guest_dirty(SMALL, true), 0);
        CHECK_EQ(guest_dirty(4 * GIB, true), 0);
        guest_map_gpa(0, SMALL, PAGE_BYTES, false);
        guest_map_gpa(0, 4 * GIB, PAGE_BYTES, false);
        guest_accept(0, SMALL, 0);
        guest_accept(0, 4 * GIB, 0);
    }
}

/* Privileged instructions are #GP at CPL 3 (SDM volume 2), so a process cannot hide a dirty line,
   or make the stub walk tables of its own; CLFLUSH is for everyone. */
TEST(privileged_instructions_in_user_mode_do_nothing)
{
    guest_start(1);
    guest_store(0, at(SMALL), 64);
    guest_set_shared(0, at(SMALL), 0, true);
    guest_forget();
    fake_set(0, REG_CS, 0x33);
    guest_wbinvd(0);
    guest_invlpg(0, at(SMALL));
    fake_set(0, RBX, 2);
    fake_set(0, RAX, at(ELSEWHERE));
    CHECK_EQ(fake_exec(0, INSN(0x66, 0x0f, 0x38, 0x82, 0x18)), true);
    fake_set(0, RAX, 0x1000);
    CHECK_EQ(fake_exec(0, INSN(0x0f, 0x22, 0xd8)), true); /* CR3 */
    fake_set(0, RAX, 0);
    CHECK_EQ(fake_exec(0, INSN(0x0f, 0x22, 0xe0)), true); /* CR4 */
    CHECK_EQ(fake_exec(0, INSN(0x0f, 0x22, 0xc0)), true); /* CR0 */
    CHECK_EQ(guest_events(), 0);
    fake_set(0, REG_CS, 0x10);
    guest_store(0, at(SMALL + PAGE_BYTES), 8);
    CHECK_EQ(guest_dirty(SMALL, true), 1);
    CHECK_EQ(guest_count(EV_STALE), 1);
    CHECK_EQ(guest_dirty(SMALL + PAGE_BYTES, true), 1);
}

/* In real mode the low bits of CS are part of an address, not a privilege level. */
TEST(real_mode_is_privileged)
{
    guest_prepare(5);
    guest_install(1, NULL);
    fake_set(0, REG_CR0, 0);
    fake_set(0, REG_CS, 0x9a03);
    fake_create_vcpu(0);
    guest_wbinvd(0);
    CHECK_EQ(guest_count(EV_CACHE_ALL), 1);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vCPUs that are taken offline, halt for good, and are started anew by INIT and
 * SIPI. */
#include "whole.h"

#include "guest.h"
#include "stub.h"

#define VECTOR 0x9a000ull

enum { IF = 1 << 9 };

static void hlt(unsigned vcpu)
{
    CHECK_EQ(fake_exec(vcpu, INSN(0xf4)), true);
}

static void mwait(unsigned vcpu, uint64_t rcx)
{
    fake_set(vcpu, RCX, rcx);
    CHECK_EQ(fake_exec(vcpu, INSN(0x0f, 0x01, 0xc9)), true);
}

/* INIT's registers, then the first instruction at the vector: cli. */
static void init_and_sipi(unsigned vcpu)
{
    static const uint8_t cli[1][FAKE_INSN_BYTES] = {{0xfa}};
    const size_t length = 1;

    fake_set(vcpu, REG_CR0, 0x60000010);
    fake_set(vcpu, REG_CR3, 0);
    fake_set(vcpu, REG_CR4, 0);
    CHECK_EQ(fake_exec(vcpu, &fake_translate(VECTOR, 1, cli, &length)->insn[0]), true);
}

static unsigned owing(void)
{
    unsigned vcpus = 0;

    guest_forget();
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    for (size_t i = 0; i < guest_events(); i++) {
        if (guest_event(i)->kind == EV_STALE) {
            vcpus |= 1u << guest_event(i)->vcpu;
        }
    }
    return vcpus;
}

/* With interrupts off HLT ends all; with interrupts on, or where they break
 * MWAIT, it does not. */
TEST(a_halted_vcpu_owes_nothing)
{
    guest_start(6);
    guest_set_shared(0, at(SMALL), 0, true);
    hlt(1);
    mwait(2, 0);
    mwait(3, 1);
    fake_set(4, REG_EFLAGS, IF);
    hlt(4);
    fake_set(5, REG_CS, 0x33); /* #GP in a process */
    hlt(5);
    CHECK_EQ(owing(), 1 | 8 | 16 | 32);
}

/* Nor does it for what changes later, whatever it touches in its loop. */
TEST(a_halted_vcpu_stays_so)
{
    guest_start(2);
    hlt(1);
    guest_set_shared(0, at(SMALL), 0, true);
    guest_load(1, at(ELSEWHERE + MIB2), 8);
    hlt(1);
    guest_set_shared(0, at(SMALL) + PAGE_BYTES, 0, true);
    CHECK_EQ(owing(), 1);
}

/* TDG.VP.VMCALL<HLT> says in R12 whether interrupts are blocked. */
TEST(hlt_by_the_vmm)
{
    guest_start(3);
    guest_set_shared(0, at(SMALL), 0, true);
    guest_vmcall(1, 0, 12, 0, 0);
    guest_vmcall(2, 0, 12, 1, 0);
    CHECK_EQ(owing(), 1 | 2);
}

TEST(a_vcpu_that_is_started_anew)
{
    guest_start(3);
    guest_set_shared(0, at(SMALL), 0, true);
    init_and_sipi(1);
    CHECK_EQ(stub.vcpus[1].cr0, 0x60000010);
    CHECK_EQ(stub.vcpus[1].cr4, 0);
    CHECK_EQ(owing(), 1 | 4);
    /* Real mode: addresses are physical. */
    guest_store(1, LARGE_AT, 8);
    CHECK_EQ(guest_dirty(LARGE_AT, true), 1);
    /* Up again, and it owes again. */
    fake_set(1, REG_CR3, guest.root);
    guest_write_cr3(1, guest.root);
    guest_write_cr4(1, CR4_PAE | CR4_PGE | CR4_LA57);
    fake_set(1, REG_CR0, CR0_PG | CR0_PE);
    fake_set(1, RAX, CR0_PG | CR0_PE);
    CHECK_EQ(fake_exec(1, INSN(0x0f, 0x22, 0xc0)), true);
    guest_come_online(1);
    guest_set_shared(0, at(SMALL) + PAGE_BYTES, 0, true);
    guest_forget();
    guest_map_gpa(0, SMALL + PAGE_BYTES, PAGE_BYTES, true);
    CHECK_EQ(guest_count(EV_STALE), 3);
}

/* A process may run code at such an address; nothing begins there. */
TEST(the_start_of_a_low_page_of_a_process)
{
    static const uint8_t nop[1][FAKE_INSN_BYTES] = {{0x90}};
    const size_t length = 1;

    guest_start(2);
    guest_set_shared(0, at(SMALL), 0, true);
    CHECK_EQ(fake_exec(1, &fake_translate(VECTOR, 1, nop, &length)->insn[0]), true);
    CHECK_EQ(owing(), 3);
}

/* The stack of an access that trips something: a return address behind a CALL.
 */
TEST(accesses_have_a_stack)
{
    uint64_t text = 20 * MIB, stack = 22 * MIB;

    guest_prepare(5);
    guest_map(0xffffffff81000000, text, 1, PTE_GLOBAL);
    guest_boot(2, NULL);
    *(uint8_t *)fake_ram(text + 0x100, 1) = 0xe8; /* call */
    *(uint64_t *)fake_ram(stack + 8, 8) = 0xffffffff81000105;
    fake_set(1, RSP, at(stack));
    guest_map_gpa(0, SMALL, 2 * PAGE_BYTES, true);
    guest_store(1, at(SMALL), 8);
    CHECK_EQ(guest_last(EV_WRONG_ALIAS)->vcpu, 1);
    CHECK_EQ(guest_stack_words(), 1);
    guest_map_gpa(0, SMALL, PAGE_BYTES, false);
    guest_load(1, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_UNACCEPTED), 1);
    CHECK_EQ(guest_stack_words(), 1);
    guest_set_shared(0, at(SMALL) + PAGE_BYTES, 0, true);
    guest_load(1, at(SMALL) + PAGE_BYTES, 8);
    CHECK_EQ(guest_last(EV_STALE)->flags, EF_USED | EF_TO_SHARED | EF_GLOBAL);
    CHECK_EQ(guest_stack_words(), 1);
}

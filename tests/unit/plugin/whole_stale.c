/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which invalidation pays which debt, seen at the commit: SDM volume 3, 5.10.4.1. */
#include "whole.h"

#include "guest.h"

/* A direct-map page is global; a second mapping of the same page in the kernel half is not. */
#define NONGLOBAL (256 * GIB)

static uint64_t target;
static bool is_global;

static void start(unsigned vcpus, bool global)
{
    is_global = global;
    guest_prepare(5);
    target = global ? at(SMALL) : at(NONGLOBAL);
    guest_map(at(NONGLOBAL), SMALL, 0, 0);
    guest_boot(vcpus, NULL);
}

/* A bit per vCPU that came to the commit with the old translation. */
static unsigned owing_at_commit(void)
{
    unsigned owing = 0;

    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
    for (size_t i = 0; i < guest_events(); i++) {
        const EventRecord *record = guest_event(i);

        if (record->kind == EV_STALE) {
            CHECK_EQ(record->flags, EF_TO_SHARED | (is_global ? EF_GLOBAL : 0));
            CHECK_EQ(record->arg[0], target);
            CHECK_EQ(record->arg[1], SMALL);
            CHECK_EQ(record->arg[2], PAGE_BYTES);
            CHECK_EQ(record->arg[3], guest_last(EV_PTE_CHANGE)->seq);
            owing |= 1u << record->vcpu;
        }
    }
    return owing;
}

static void change(void)
{
    guest_set_shared(0, target, 0, true);
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->flags, EF_TO_SHARED | (is_global ? EF_GLOBAL : 0));
    CHECK_EQ(guest_last(EV_PTE_CHANGE)->arg[0], target);
}

static void nothing(unsigned v)
{
}

static void invlpg(unsigned v)
{
    guest_invlpg(v, target + 0x123);
}

static void invlpg_of_a_neighbour(unsigned v)
{
    guest_invlpg(v, target + PAGE_BYTES);
    guest_invlpg(v, target - 1);
}

static void reload_cr3(unsigned v)
{
    guest_write_cr3(v, fake_get(v, REG_CR3));
}

static void invpcid_0(unsigned v)
{
    guest_invpcid(v, 0, 0, target);
}

static void invpcid_0_elsewhere(unsigned v)
{
    guest_invpcid(v, 0, 0, target + PAGE_BYTES);
}

static void invpcid_1(unsigned v)
{
    guest_invpcid(v, 1, 0, 0);
}

static void invpcid_2(unsigned v)
{
    guest_invpcid(v, 2, 0, 0);
}

static void invpcid_3(unsigned v)
{
    guest_invpcid(v, 3, 0, 0);
}

static void same_cr4(unsigned v)
{
    guest_write_cr4(v, fake_get(v, REG_CR4));
}

static void smep(unsigned v)
{
    guest_write_cr4(v, fake_get(v, REG_CR4) | CR4_SMEP);
}

static void cacheflush(unsigned v)
{
    guest_clflush(v, at(ELSEWHERE));
    guest_wbinvd(v);
}

static const struct {
    const char *name;
    void (*flush)(unsigned v);
    bool pays, pays_global;
} flushes[] = {
    {"nothing", nothing, false, false},
    {"invlpg", invlpg, true, true},
    {"invlpg of a neighbour", invlpg_of_a_neighbour, false, false},
    {"mov to cr3", reload_cr3, true, false},
    {"cr4.pge pair", guest_flush_global, true, true},
    {"cr4 unchanged", same_cr4, false, false},
    {"cr4.smep set", smep, true, true},
    {"invpcid 0", invpcid_0, true, false},
    {"invpcid 0 elsewhere", invpcid_0_elsewhere, false, false},
    {"invpcid 1", invpcid_1, true, false},
    {"invpcid 2", invpcid_2, true, true},
    {"invpcid 3", invpcid_3, true, false},
    {"cache flush", cacheflush, false, false},
};

/* Every instruction, on one vCPU of three; then on all of them. */
static void check_flushes(bool global)
{
    start(3, global);
    for (size_t i = 0; i < G_N_ELEMENTS(flushes); i++) {
        bool pays = global ? flushes[i].pays_global : flushes[i].pays;

        fprintf(stderr, "case %s\n", flushes[i].name);
        for (unsigned on = 1; on <= 7; on += 3) { /* vCPU 0; vCPU 2; all */
            change();
            for (unsigned v = 0; v < 3; v++) {
                if (on >> v & 1) {
                    flushes[i].flush(v);
                }
            }
            CHECK_EQ(owing_at_commit(), pays ? 7 & ~on : 7);
            /* Back to private, by the rules. */
            for (unsigned v = 0; v < 3; v++) {
                guest_flush_global(v);
            }
            guest_map_gpa(0, SMALL, PAGE_BYTES, false);
            guest_accept(0, SMALL, 0);
            guest_set_shared(0, target, 0, false);
            for (unsigned v = 0; v < 3; v++) {
                guest_flush_global(v);
                guest_write_cr4(v, fake_get(v, REG_CR4) & ~CR4_SMEP);
            }
            guest_forget();
        }
    }
}

TEST(flushes_of_a_global_page)
{
    check_flushes(true);
}

TEST(flushes_of_a_page_that_is_not_global)
{
    check_flushes(false);
}

/* With PCIDs: bit 63 of the new CR3 keeps all; another PCID's entries stay (5.10.4.1). */
TEST(pcids)
{
    static const struct {
        uint64_t cr3; /* beside the root */
        bool pays;
    } cases[] = {
        {3, true},
        {3 | CR3_NOFLUSH, false},
        {4, false},
        {4 | CR3_NOFLUSH, false},
    };

    start(1, false);
    guest_write_cr4(0, fake_get(0, REG_CR4) | CR4_PCIDE);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        fprintf(stderr, "case %zu\n", i);
        guest_write_cr3(0, guest.root | 3);
        change();
        guest_write_cr3(0, guest.root | cases[i].cr3);
        CHECK_EQ(owing_at_commit(), !cases[i].pays);
        guest_flush_global(0);
        guest_set_shared(0, target, 0, false);
        guest_flush_global(0);
        guest_forget();
    }
    guest_write_cr3(0, guest.root | 3);
    change();
    guest_invpcid(0, 0, 4, target);
    guest_invpcid(0, 1, 4, 0);
    CHECK_EQ(owing_at_commit(), 1);
    guest_forget();
    guest_flush_global(0);
    guest_set_shared(0, target, 0, false);
    guest_flush_global(0);
    change();
    guest_invpcid(0, 0, 3, target);
    CHECK_EQ(owing_at_commit(), 0);
    guest_forget();
    guest_flush_global(0);
    guest_set_shared(0, target, 0, false);
    guest_flush_global(0);
    change();
    guest_write_cr4(0, fake_get(0, REG_CR4) & ~CR4_PCIDE); /* all goes with the PCIDs */
    CHECK_EQ(owing_at_commit(), 0);
}

/* A vCPU that has not run kernel code yet holds no translation. */
TEST(a_vcpu_that_is_not_online_owes_nothing)
{
    guest_prepare(5);
    is_global = true;
    target = at(SMALL);
    guest_install(3, NULL);
    guest_come_online(0);
    guest_come_online(2);
    change();
    CHECK_EQ(owing_at_commit(), 5);
}

/* A flush before the change pays nothing. */
TEST(a_flush_before_the_change_is_too_early)
{
    start(2, true);
    guest_flush_global(0);
    guest_flush_global(1);
    change();
    CHECK_EQ(owing_at_commit(), 3);
    /* The same debt is told once. */
    guest_forget();
    CHECK_EQ(owing_at_commit(), 0);
}

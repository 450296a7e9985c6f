/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All vCPUs in one thread: callbacks may be told another vCPU than the one that runs (single.h). */
#include "whole.h"

#include "guest.h"
#include "vcpu.h"

static void start(unsigned vcpus, const char *options)
{
    guest_prepare(5);
    guest_boot(vcpus, options);
    fake.told_zero = true;
}

static void flush_on(unsigned vcpus)
{
    guest_set_shared(0, at(SMALL), 0, true);
    for (unsigned v = 0; v < vcpus; v++) {
        guest_invlpg(v, at(SMALL));
    }
    guest_map_gpa(0, SMALL, PAGE_BYTES, true);
}

TEST(an_invalidation_counts_for_the_vcpu_that_runs)
{
    start(2, "single=on");
    flush_on(2);
    CHECK_EQ(guest_count(EV_PTE_CHANGE), 1);
    CHECK_EQ(guest_count(EV_STALE), 0);
}

TEST(a_vcpu_that_left_its_invalidation_out_is_named)
{
    start(3, "single=on");
    flush_on(2);
    CHECK_EQ(guest_count(EV_STALE), 1);
    CHECK_EQ(guest_last(EV_STALE)->vcpu, 2);
}

TEST(without_the_option_the_number_told_is_taken)
{
    start(2, NULL);
    guest_vmcall(1, 0x544448, 1, 7, 0);
    CHECK_EQ(guest_last(EV_MARK)->vcpu, 0);
}

TEST(calls_and_stores_are_of_the_vcpu_that_runs)
{
    start(2, "single=on");
    CHECK_EQ(guest_tdcall(1, 1), 0);
    CHECK_EQ(fake_get(1, R9), 1);
    CHECK_EQ(guest_last(EV_TDCALL)->vcpu, 1);
    guest_store(1, at(SMALL), 8);
    guest_store(1, at(SMALL + PAGE_BYTES), 16);
    guest_map_gpa(0, SMALL, 2 * PAGE_BYTES, true);
    CHECK_EQ(guest_count(EV_DIRTY_RUN), 2);
    CHECK_EQ(guest_last(EV_DIRTY_RUN)->arg[3], 1);
}

/* vCPUs may map user space differently: what one remembers is not for the other. */
TEST(an_access_takes_the_translations_of_the_vcpu_that_runs)
{
    start(2, "single=on");
    guest_map(0x400000, SMALL, 0, 0);
    guest_store(0, 0x400000, 8);
    guest_write_cr3(1, 28 * MIB);
    guest_load(1, 0x400000, 8);
    guest_store(1, 0x400040, 8);
    guest_store(0, 0x400080, 8);
    CHECK_EQ(guest_dirty(SMALL, true), 5);
}

TEST(a_machine_of_one_vcpu_needs_no_look_up)
{
    start(1, "single=on");
    flush_on(1);
    CHECK_EQ(guest_count(EV_STALE), 0);
}

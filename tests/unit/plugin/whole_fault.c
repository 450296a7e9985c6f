/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A correct guest, and a stub that ignores one of its actions: the facts are those of a bad guest.
 */
#include "whole.h"

#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define PAGES 4
#define BYTES (PAGES * PAGE_BYTES)

static void start(const char *option)
{
    guest_prepare(5);
    guest_boot(3, option);
}

static void dirty(uint64_t gpa, uint64_t bytes)
{
    for (uint64_t line = 0; line < bytes; line += LINE_BYTES) {
        guest_store(1, at(gpa + line), 8);
    }
}

/* The one record of a fault. */
static void check_fault(uint64_t gpa, uint64_t bytes, uint64_t what, uint64_t seq)
{
    const EventRecord *record = guest_last(EV_FAULT);

    CHECK_EQ(guest_count(EV_FAULT), 1);
    CHECK_EQ(record->arg[0], 1);
    CHECK_EQ(record->arg[1], gpa);
    CHECK_EQ(record->arg[2], bytes);
    CHECK_EQ(record->arg[3], what);
    CHECK_EQ(record->arg[4], seq);
}

TEST(a_lost_cache_flush)
{
    start("fault=cache/part=second-lines/index=2");
    for (int i = 1; i <= 3; i++) {
        bool hit = i == 2;

        dirty(SMALL, BYTES);
        guest_forget();
        guest_convert(0, SMALL, BYTES, true);
        CHECK_EQ(guest_last(EV_CONVERT)->arg[3], hit ? PAGES * 32 : 0);
        CHECK_EQ(guest_last(EV_CONVERT)->arg[4] >> 32, hit ? PAGES * 32 : PAGES * 64);
        CHECK_EQ(guest_count(EV_DIRTY_RUN), hit ? 64 : 0); /* no more are told */
        CHECK_EQ(guest_count(EV_STALE), 0);
        if (hit) {
            check_fault(SMALL, BYTES, 0xaaaaaaaaaaaaaaaa, guest_last(EV_CONVERT)->seq);
        } else {
            CHECK_EQ(guest_count(EV_FAULT), 0);
        }
        guest_convert(0, SMALL, BYTES, false);
    }
}

/* What was clean stays clean: a flush that is lost has no effect there. */
TEST(a_lost_flush_of_clean_lines)
{
    start("fault=cache/part=last-page");
    guest_store(0, at(SMALL) + 3 * PAGE_BYTES + 64, 8);
    guest_convert(0, SMALL, BYTES, true);
    CHECK_EQ(guest_last(EV_CONVERT)->arg[3], 1);
    check_fault(SMALL + 3 * PAGE_BYTES, PAGE_BYTES, 2, guest_last(EV_CONVERT)->seq);
}

/* Flushes that were for the conversion before are none of this one's. */
TEST(flushes_are_forgotten_with_their_conversion)
{
    start("fault=cache/index=2");
    dirty(SMALL, BYTES);
    guest_convert(0, SMALL, BYTES, true);
    guest_convert(0, SMALL, BYTES, false);
    guest_convert(0, SMALL, BYTES, true);
    CHECK_EQ(guest_count(EV_FAULT), 0);
    CHECK_EQ(guest_last(EV_CONVERT)->arg[3], 0);
}

/* A bit per vCPU that is told of, and a check of the evidence. */
static uint64_t stale(uint32_t flags)
{
    uint64_t vcpus = 0;

    for (size_t i = 0; i < guest_events(); i++) {
        if (guest_event(i)->kind == EV_STALE) {
            CHECK_EQ(guest_event(i)->flags, flags);
            vcpus |= 1ull << guest_event(i)->vcpu;
        }
    }
    return vcpus;
}

TEST(a_lost_invalidation_to_shared)
{
    static const struct {
        const char *option;
        uint64_t vcpus, first, pages;
    } cases[] = {
        {"fault=tlb", 7, 0, PAGES},
        {"fault=tlb/who=self", 2, 0, PAGES},
        {"fault=tlb/who=others", 5, 0, PAGES},
        {"fault=tlb/vcpu=2", 4, 0, PAGES},
        {"fault=tlb/part=middle-page", 7, 2, 1},
        {"fault=tlb/part=second-half/who=self", 2, 2, 2},
    };
    pid_t child;
    int status;

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        fprintf(stderr, "case %s\n", cases[i].option);
        child = fork();
        if (!child) {
            start(cases[i].option);
            guest_convert(1, SMALL, BYTES, true);
            check_fault(SMALL + cases[i].first * PAGE_BYTES, cases[i].pages * PAGE_BYTES,
                        cases[i].vcpus, guest_last(EV_CONVERT)->seq);
            CHECK_EQ(guest_last(EV_FAULT)->flags, EF_TO_SHARED);
            CHECK_EQ(stale(EF_TO_SHARED | EF_GLOBAL), cases[i].vcpus);
            CHECK_EQ(guest_count(EV_STALE), cases[i].pages * __builtin_popcountll(cases[i].vcpus));
            exit(0);
        }
        waitpid(child, &status, 0);
        CHECK_EQ(status, 0);
    }
}

/* The stale translation is there until the vCPU invalidates once more, and its use is told. */
TEST(what_was_not_invalidated_is_used)
{
    start("fault=tlb/vcpu=2");
    guest_convert(1, SMALL, PAGE_BYTES, true);
    guest_forget();
    guest_load(1, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_STALE), 0);
    guest_load(2, at(SMALL), 8);
    CHECK_EQ(stale(EF_USED | EF_TO_SHARED | EF_GLOBAL), 4);
    guest_invlpg(2, at(SMALL));
    guest_forget();
    guest_load(2, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_STALE), 0);
}

TEST(a_lost_invalidation_to_private)
{
    start("fault=tlb/to=private/who=others");
    guest_convert(1, SMALL, BYTES, true);
    CHECK_EQ(guest_count(EV_FAULT), 0);
    CHECK_EQ(guest_count(EV_STALE), 0);
    guest_convert(1, SMALL, BYTES, false);
    CHECK_EQ(guest_count(EV_FAULT), PAGES);
    CHECK_EQ(guest_last(EV_FAULT)->arg[3], 5);
    CHECK_EQ(guest_last(EV_FAULT)->arg[4], guest_last(EV_CONVERT)->seq);
    guest_forget();
    guest_load(1, at(SMALL), 8);
    CHECK_EQ(stale(EF_GLOBAL), 5);
    /* From the commit on invalidations work again. */
    guest_forget();
    guest_invlpg(0, at(SMALL));
    guest_load(0, at(SMALL), 8);
    CHECK_EQ(guest_count(EV_STALE), 0);
    guest_load(2, at(SMALL), 8);
    CHECK_EQ(stale(EF_USED | EF_GLOBAL), 4);
    /* Only the first conversion is hit. */
    for (uint64_t page = SMALL; page < SMALL + BYTES; page += PAGE_BYTES) {
        guest_load(1, at(page), 8);
    }
    for (unsigned v = 0; v < 3; v++) {
        guest_flush_global(v);
    }
    guest_forget();
    guest_convert(1, SMALL, BYTES, true);
    guest_convert(1, SMALL, BYTES, false);
    CHECK_EQ(guest_count(EV_FAULT), 0);
    CHECK_EQ(guest_count(EV_STALE), 0);
}

/* Whole flushes spare global entries, INVLPG does not. */
static void whole_flushes(bool to_shared)
{
    start(to_shared ? "fault=tlb/globals=kept" : "fault=tlb/to=private/globals=kept");
    if (!to_shared) {
        guest_convert(0, SMALL, PAGE_BYTES, true);
        guest_map_gpa(0, SMALL, PAGE_BYTES, false);
        guest_accept(0, SMALL, 0);
    }
    guest_set_shared(0, at(SMALL), 0, to_shared);
    guest_flush_global(0);
    guest_invlpg(1, at(SMALL));
    guest_flush_global(2);
    guest_forget();
    if (to_shared) {
        guest_map_gpa(0, SMALL, PAGE_BYTES, true);
        check_fault(SMALL, PAGE_BYTES, 5, guest_last(EV_CONVERT)->seq);
    } else {
        guest_load(0, at(SMALL), 8);
    }
    CHECK_EQ(guest_count(EV_STALE), to_shared ? 2 : 3);
    CHECK_EQ(guest_event(to_shared ? 0 : 1)->vcpu, to_shared ? 0 : 2);
}

TEST(whole_flushes_that_spare_global_entries_to_shared)
{
    whole_flushes(true);
}

TEST(whole_flushes_that_spare_global_entries_to_private)
{
    whole_flushes(false);
}

TEST(bad_faults_are_refused)
{
    char *argv[] = {(char[]){"out=/tmp/events"}, (char[]){"vcpus=1"}, (char[]){"below4g=2097152"},
                    (char[]){"fault=sleep"}};

    CHECK_EQ(fake_install(PLUGIN_API, G_N_ELEMENTS(argv), argv), -1);
}

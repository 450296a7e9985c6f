/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options, what is registered for which instruction, and what the end of QEMU leaves. */
#include "whole.h"

#include <string.h>

#include "guest.h"
#include "stream.h"

static int install(int version, const char *options)
{
    char **argv = g_strsplit(options, " ", 0);
    int result = fake_install(version, g_strv_length(argv), argv);

    g_strfreev(argv);
    return result;
}

TEST(bad_options_are_refused)
{
    static const char *const bad[] = {
        "",
        "out=/tmp/events vcpus=2",
        "out=/tmp/events below4g=2097152",
        "vcpus=2 below4g=2097152",
        "out=/tmp/events vcpus=0 below4g=2097152",
        "out=/tmp/events vcpus=17 below4g=2097152",
        "out=/tmp/events vcpus=-1 below4g=2097152",
        "out=/tmp/events vcpus=2x below4g=2097152",
        "out=/tmp/events vcpus= below4g=2097152",
        "out=/tmp/events vcpus=2 below4g=2097153",
        "out=/tmp/events vcpus=2 below4g=99999999999999999999999",
        "out=/tmp/events vcpus=2 below4g=2097152 track=yes",
        "out=/tmp/events vcpus=2 below4g=2097152 unknown=1",
        "out=/tmp/events vcpus=2 below4g=2097152 track",
        "out=/tmp/events vcpus=2 below4g=2097152 vmm=",
        "out=/tmp/events vcpus=2 below4g=2097152 vmm=no-such",
        "out=/nowhere/events vcpus=2 below4g=2097152",
        "out= vcpus=2 below4g=2097152",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        fprintf(stderr, "case %zu\n", i);
        CHECK_EQ(install(PLUGIN_API, bad[i]), -1);
    }
    CHECK_EQ(install(PLUGIN_API - 1, "out=/tmp/events vcpus=2 below4g=2097152"), -1);
    CHECK_EQ(install(PLUGIN_API, "out=/tmp/events vcpus=2 below4g=2097152"), 0);
}

TEST(callbacks_ask_for_the_registers_they_use)
{
    static const struct {
        uint8_t bytes[5], length;
        int flags; /* -1: none */
        unsigned rw;
    } cases[] = {
        {{0x0f, 0xa2}, 2, CB_RW_REGS_PC, 0},             /* cpuid */
        {{0x66, 0x0f, 0x01, 0xcc}, 4, CB_RW_REGS_PC, 0}, /* tdcall */
        {{0x0f, 0x01, 0x38}, 3, CB_R_REGS, 0},           /* invlpg */
        {{0x0f, 0x22, 0xd8}, 3, CB_R_REGS, 0},           /* mov to cr3 */
        {{0x48, 0x89, 0x07}, 3, -1, MEM_W},
        {{0x48, 0x8b, 0x07}, 3, -1, MEM_R},
        {{0xa4}, 1, -1, MEM_R | MEM_W}, /* movsb */
        {{0x90}, 1, -1, 0},
    };

    guest_start(1);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        FakeInsn *insn = guest_insn(cases[i].length, cases[i].bytes);
        unsigned rw = 0;

        fprintf(stderr, "case %zu\n", i);
        CHECK_EQ(insn->exec_count, cases[i].flags >= 0);
        CHECK_EQ(insn->exec_count && insn->exec[0].flags != cases[i].flags, 0);
        for (unsigned m = 0; m < insn->mem_count; m++) {
            CHECK_EQ(insn->mem[m].flags, CB_R_REGS);
            rw |= insn->mem[m].rw;
        }
        CHECK_EQ(cases[i].flags >= 0 || rw == cases[i].rw, true);
    }
}

/* To measure what tracking costs: the calls still work, and nothing else is watched. */
TEST(without_tracking_only_calls_are_watched)
{
    guest_prepare(5);
    guest_boot(1, "track=off");
    CHECK_EQ(INSN(0x48, 0x89, 0x07)->mem_count, 0);
    CHECK_EQ(INSN(0x0f, 0x22, 0xd8)->exec_count, 0);
    guest_store(0, at(SMALL), 8);
    CHECK_EQ(guest_dirty(SMALL, true), 0);
    CHECK_EQ(guest_tdcall(0, 1), 0);
}

TEST(the_end_writes_counters_and_a_trailer)
{
    EventRecord records[64];
    EventHeader header;
    size_t count;
    FILE *file;

    guest_start(2);
    guest_clflush(0, at(SMALL));
    guest_clflush(1, at(SMALL));
    guest_invlpg(1, at(SMALL));
    fake_exit();
    file = fopen("/tmp/events", "rb");
    CHECK_EQ(fread(&header, sizeof(header), 1, file), 1);
    count = fread(records, sizeof(records[0]), G_N_ELEMENTS(records), file);
    fclose(file);
    CHECK_EQ(memcmp(header.magic, EVENT_MAGIC, 8), 0);
    CHECK_EQ(header.vcpus, 2);
    CHECK_EQ(header.gpaw, 53);
    CHECK_EQ(header.ram_below_4g, BELOW_4G);
    CHECK_EQ(header.ram_above_4g, ABOVE_4G);
    CHECK_EQ(count, CNT_PT_STORE + 1);
    for (size_t i = 0; i + 1 < count; i++) {
        uint64_t want = i + 1 == CNT_CLFLUSH ? 2 : i + 1 == CNT_INVLPG;

        CHECK_EQ(records[i].kind, EV_COUNTER);
        CHECK_EQ(records[i].arg[0], i + 1);
        CHECK_EQ(i + 1 == CNT_WALK || records[i].arg[1] == want, true);
    }
    CHECK_EQ(records[count - 1].kind, EV_TRAILER);
    CHECK_EQ(records[count - 1].arg[0], count - 1);
    CHECK_EQ(records[count - 1].arg[1], crc32_update(0, records, (count - 1) * sizeof(records[0])));
}

/* Some ways of ending QEMU leave vCPUs running behind the last callback. */
TEST(a_vcpu_that_runs_on_behind_the_end_does_no_harm)
{
    guest_start(2);
    fake.on_exit(NULL);
    guest_store(1, at(SMALL), 8);
    guest_wbinvd(1);
    CHECK_EQ(guest_tdcall(1, 1), 0);
    CHECK_EQ(guest_map_gpa(1, SMALL, PAGE_BYTES, true), 0);
    CHECK_EQ(guest_count(EV_TRAILER), 1);
    CHECK_EQ(guest_event(guest_events() - 1)->kind, EV_TRAILER);
}

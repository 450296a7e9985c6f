/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which MapGPA a misbehaving VMM answers how. */
#include "vmm.h"

#include <string.h>

#include "check.h"
#include "page.h"

#define GPA (16 * MIB2)

static VmmSet set;

static void start(const char *text)
{
    memset(&set, 0, sizeof(set));
    CHECK_EQ(vmm_parse(&set, text), true);
    vmm_mark(&set, true, 1);
}

static VmmAnswer ask(uint64_t gpa, uint64_t bytes, bool to_shared)
{
    VmmCall call = {gpa, bytes, to_shared};

    return vmm_choose(&set, &call);
}

static void check(VmmAnswer got, uint64_t r10, uint64_t next, uint64_t done)
{
    CHECK_EQ(got.r10, r10);
    CHECK_EQ(got.next, next);
    CHECK_EQ(got.done, done);
}

static void test_options(void)
{
    static const char *const bad[] = {
        "",
        "no-such",
        "retry/chunk=0",
        "retry/chunk=100",
        "retry/chunk=-4096",
        "retry/chunk",
        "retry/unknown=1",
        "error/status=1",
        "error/done=99999999999999999999",
        "error/min=8192/max=4096",
        "cache/to=shared",
        "cache/on=fire",
        "ept/boot=off",
        "ept/boot=on/mark=1",
        "slow/ms=200x",
        "slow+",
        "slow+no-such",
    };
    char many[MOST_VMM_RULES * 4 + 8] = "ept";

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        fprintf(stderr, "case %zu\n", i);
        CHECK_EQ(vmm_parse(&set, bad[i]), !strcmp(bad[i], "slow+"));
    }
    for (unsigned i = 1; i < MOST_VMM_RULES; i++) {
        strcat(many, "+ept");
    }
    CHECK_EQ(vmm_parse(&set, many), true);
    CHECK_EQ(vmm_parse(&set, strcat(many, "+ept")), false);
}

static void test_retry_goes_on(void)
{
    start("retry/chunk=4096");
    for (int page = 0; page < 2; page++) {
        uint64_t at = GPA + page * PAGE_BYTES;
        VmmAnswer answer = ask(at, GPA + 3 * PAGE_BYTES - at, true);

        check(answer, 1, at + PAGE_BYTES, PAGE_BYTES);
        CHECK_EQ(answer.first, !page);
        CHECK_EQ(answer.start, GPA);
        CHECK_EQ(answer.rule->behaviour, VMM_RETRY);
    }
    /* The last part is answered as it should be. */
    check(ask(GPA + 2 * PAGE_BYTES, PAGE_BYTES, true), 0, 0, PAGE_BYTES);
    CHECK_EQ(ask(GPA, PAGE_BYTES, true).rule == NULL, true);
}

static void test_stuck(void)
{
    start("stuck/times=2");
    for (int i = 0; i < 2; i++) {
        check(ask(GPA, MIB2, false), 1, GPA, 0);
    }
    check(ask(GPA, MIB2, false), 0, 0, MIB2);
    check(ask(GPA, MIB2, false), 1, GPA, 0);
    start("stuck");
    for (int i = 0; i < 100; i++) {
        check(ask(GPA, MIB2, false), 1, GPA, 0);
    }
}

static void test_answers(void)
{
    start("below");
    check(ask(GPA, MIB2, true), 1, GPA - PAGE_BYTES, 0);
    start("above");
    check(ask(GPA, MIB2, true), 1, GPA + MIB2, 0);
    start("error/done=3");
    check(ask(GPA, MIB2, true), 1ull << 63, 0, 3 * PAGE_BYTES);
    /* Never the whole range. */
    check(ask(GPA, 2 * PAGE_BYTES, true), 1ull << 63, 0, PAGE_BYTES);
    check(ask(GPA, PAGE_BYTES, true), 1ull << 63, 0, 0);
    start("error/status=0x8000000000000001");
    check(ask(GPA, MIB2, false), 0x8000000000000001, 0, 0);
    start("short/done=1");
    check(ask(GPA, MIB2, false), 0, 0, PAGE_BYTES);
    start("slow/ms=5");
    check(ask(GPA, MIB2, false), 0, 0, MIB2);
    CHECK_EQ(ask(GPA, MIB2, false).rule->ms, 5);
}

static bool is_hit(uint64_t bytes, bool to_shared)
{
    return ask(GPA, bytes, to_shared).rule != NULL;
}

static void test_selectors(void)
{
    start("ept/to=private");
    CHECK_EQ(is_hit(MIB2, true), false);
    CHECK_EQ(is_hit(MIB2, false), true);
    start("cache");
    CHECK_EQ(is_hit(MIB2, true), false);
    CHECK_EQ(is_hit(MIB2, false), true);
    start("ept/index=2/min=8192/max=16384");
    CHECK_EQ(is_hit(PAGE_BYTES, true), false);
    CHECK_EQ(is_hit(2 * PAGE_BYTES, true), false);
    CHECK_EQ(is_hit(5 * PAGE_BYTES, true), false);
    CHECK_EQ(is_hit(4 * PAGE_BYTES, true), true);
    CHECK_EQ(is_hit(4 * PAGE_BYTES, true), false);
    /* The rest of a conversion is none of its own. */
    start("retry/chunk=4096/index=2");
    CHECK_EQ(is_hit(MIB2, true), false);
    CHECK_EQ(is_hit(MIB2, true), true);
    CHECK_EQ(ask(GPA + PAGE_BYTES, MIB2 - PAGE_BYTES, true).r10, 1);
    CHECK_EQ(is_hit(2 * MIB2, true), false);
    /* The first that matches. */
    start("ept/to=private+slow");
    CHECK_EQ(ask(GPA, MIB2, true).rule->behaviour, VMM_SLOW);
    CHECK_EQ(ask(GPA, MIB2, false).rule->behaviour, VMM_EPT);
}

static void test_marks(void)
{
    memset(&set, 0, sizeof(set));
    CHECK_EQ(vmm_parse(&set, "ept/mark=7+slow+stuck/boot=on"), true);
    CHECK_EQ(ask(GPA, MIB2, true).rule->behaviour, VMM_STUCK);
    vmm_mark(&set, true, 3);
    /* The mark ends what the guest was told to ask again for. */
    CHECK_EQ(ask(GPA, MIB2, true).rule->behaviour, VMM_SLOW);
    vmm_mark(&set, true, 7);
    CHECK_EQ(ask(GPA, MIB2, true).rule->behaviour, VMM_EPT);
    vmm_mark(&set, false, 7);
    CHECK_EQ(ask(GPA, MIB2, true).rule->behaviour, VMM_SLOW);
}

int main(void)
{
    test_options();
    test_retry_goes_on();
    test_stuck();
    test_answers();
    test_selectors();
    test_marks();
    return 0;
}

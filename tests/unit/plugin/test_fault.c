/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which fault hits which conversion, and which part of it. */
#include "fault.h"

#include "check.h"
#include "page.h"

#define GPA 0x200000ull

static FaultSet set;

static void bad_texts(void)
{
    static const char *const bad[] = {
        "",
        "+",
        "nothing",
        "cache/part",
        "cache/part=",
        "cache/part=most",
        "cache/size=3",
        "cache/index=",
        "cache/index=x",
        "cache/index=-1",
        "cache/min=99999999999999999999",
        "cache/min=2/max=1",
        "cache/at=5-5",
        "cache/at=5",
        "cache/at=5-6x",
        "cache/caller=1-2",
        "cache/tdcall=1-2",
        "cache/to=private",
        "cache/who=self",
        "cache/globals=kept",
        "accept/to=shared",
        "accept/part=first-line",
        "tlb/part=second-lines",
        "tlb/who=them",
        "tlb/vcpu=64",
        "tlb/globals=lost",
        "mapgpa/part=line-per-page",
        "cache+nothing",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        fprintf(stderr, "case %s\n", bad[i]);
        CHECK_EQ(fault_parse(&set, bad[i]), false);
    }
}

static void at_most_so_many(void)
{
    char text[6 * (MOST_FAULTS + 1) + 1], *end = text;

    for (int i = 0; i < MOST_FAULTS; i++) {
        end += sprintf(end, "cache+");
    }
    end[-1] = '\0';
    CHECK_EQ(fault_parse(&set, text), true);
    CHECK_EQ(set.count, MOST_FAULTS);
    CHECK_EQ(set.fault[MOST_FAULTS - 1].number, MOST_FAULTS);
    end[-1] = '+';
    sprintf(end, "tlb");
    CHECK_EQ(fault_parse(&set, text), false);
}

static void every_key(void)
{
    const Fault *fault = &set.fault[1];

    CHECK_EQ(fault_parse(&set, "cache+tlb/to=private/part=last-page/vcpu=3/globals=kept/index=7/"
                               "min=4096/max=0x10000/at=0x1000-0x2000/caller=10-20/tdcall=30-40/"
                               "mark=9"),
             true);
    CHECK_EQ(set.count, 2);
    CHECK_EQ(fault->number, 2);
    CHECK_EQ(fault->action, FAULT_TLB);
    CHECK_EQ(fault->part, PART_LAST_PAGE);
    CHECK_EQ(fault->who, WHO_VCPU);
    CHECK_EQ(fault->vcpu, 3);
    CHECK_EQ(fault->keep_globals, true);
    CHECK_EQ(fault->to_shared, false);
    CHECK_EQ(fault->index, 7);
    CHECK_EQ(fault->min, 4096);
    CHECK_EQ(fault->max, 0x10000);
    CHECK_EQ(fault->at.end, 0x2000);
    CHECK_EQ(fault->caller.start, 10);
    CHECK_EQ(fault->tdcall.end, 40);
    CHECK_EQ(fault->active, false);
    /* What is not said. */
    CHECK_EQ(set.fault[0].index, 1);
    CHECK_EQ(set.fault[0].to_shared, true);
    CHECK_EQ(set.fault[0].active, true);
    CHECK_EQ(fault_parse(&set, "accept"), true);
    CHECK_EQ(set.fault[0].to_shared, false);
}

static bool picks(const char *text, FaultCall call)
{
    CHECK_EQ(fault_parse(&set, text), true);
    return fault_picks(&set.fault[0], &call);
}

static void selectors(void)
{
    FaultCall call = {.gpa = GPA, .bytes = 0x10000, .to_shared = true};

    CHECK_EQ(picks("cache", call), true);
    CHECK_EQ(picks("tlb/to=private", call), false);
    CHECK_EQ(picks("cache/min=0x10000/max=0x10000", call), true);
    CHECK_EQ(picks("cache/min=0x10001", call), false);
    CHECK_EQ(picks("cache/max=0xffff", call), false);
    CHECK_EQ(picks("cache/at=0x20ffff-0x210000", call), true);
    CHECK_EQ(picks("cache/at=0x210000-0x220000", call), false);
    CHECK_EQ(picks("cache/at=0x100000-0x200000", call), false);
    CHECK_EQ(picks("cache/at=0x100000-0x200001", call), true);
    CHECK_EQ(picks("cache/mark=1", call), false);
}

static void counts(void)
{
    FaultCall call = {.gpa = GPA, .bytes = 4096, .to_shared = true};
    FaultCall large = {.gpa = GPA, .bytes = 8192, .to_shared = true};

    CHECK_EQ(fault_parse(&set, "cache/index=2/max=4096+cache/index=0/max=4096"), true);
    for (int i = 1; i <= 3; i++) {
        CHECK_EQ(fault_picks(&set.fault[0], &large), false);
        CHECK_EQ(fault_picks(&set.fault[0], &call), i == 2);
        CHECK_EQ(fault_picks(&set.fault[1], &call), true);
    }
}

/* The kernel runs 6 MiB above where it was linked. */
static void callers(void)
{
    static const char text[] = "cache/caller=0xffffffff81001000-0xffffffff81002000/"
                               "tdcall=0xffffffff82000100-0xffffffff82000180";
    const uint64_t slide = 6ull << 20, tdcall = 0xffffffff82000100ull + slide;
    uint64_t stack[] = {0xffffffff81300000ull, 0};
    FaultCall call = {.gpa = GPA, .bytes = 4096, .to_shared = true, .stack = stack, .words = 2};
    static const struct {
        uint64_t pc, word;
        bool picked;
    } cases[] = {
        {0, 0xffffffff81001001, true},     {0x7f, 0xffffffff81002000, true},
        {0, 0xffffffff81001000, false},    {0, 0xffffffff81002001, false},
        {0x80, 0xffffffff81001800, false}, {-1, 0xffffffff81001800, false},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        call.pc = tdcall + cases[i].pc;
        stack[1] = cases[i].word + slide;
        CHECK_EQ(picks(text, call), cases[i].picked);
    }
    call.pc = tdcall;
    stack[1] = cases[0].word;
    CHECK_EQ(picks(text, call), false);
    stack[1] += slide;
    call.words = 1;
    CHECK_EQ(picks(text, call), false);
}

static void lines(void)
{
    static const struct {
        FaultPart part;
        uint64_t first, second, third; /* masks of three pages in a row */
    } cases[] = {
        {PART_ALL, ~0ull, ~0ull, ~0ull},
        {PART_FIRST_PAGE, ~0ull, 0, 0},
        {PART_MIDDLE_PAGE, 0, ~0ull, 0},
        {PART_LAST_PAGE, 0, 0, ~0ull},
        {PART_SECOND_HALF, 0, ~0ull, ~0ull},
        {PART_FIRST_LINE, 1, 0, 0},
        {PART_MIDDLE_LINE, 0, 1ull << 32, 0},
        {PART_LAST_LINE, 0, 0, 1ull << 63},
        {PART_SECOND_LINES, 0xaaaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaaa},
        {PART_LINE_PER_PAGE, 1, 2, 4},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        fprintf(stderr, "part %d\n", cases[i].part);
        CHECK_EQ(fault_lines(cases[i].part, GPA, 3 * PAGE_BYTES, GPA), cases[i].first);
        CHECK_EQ(fault_lines(cases[i].part, GPA, 3 * PAGE_BYTES, GPA + PAGE_BYTES),
                 cases[i].second);
        CHECK_EQ(fault_lines(cases[i].part, GPA, 3 * PAGE_BYTES, GPA + 2 * PAGE_BYTES),
                 cases[i].third);
    }
    CHECK_EQ(fault_lines(PART_LINE_PER_PAGE, GPA, 128 * PAGE_BYTES, GPA + 65 * PAGE_BYTES), 2);
}

static void pages(void)
{
    static const struct {
        FaultPart part;
        uint64_t start, end; /* pages of four */
    } cases[] = {
        {PART_ALL, 0, 4},       {PART_FIRST_PAGE, 0, 1},  {PART_MIDDLE_PAGE, 2, 3},
        {PART_LAST_PAGE, 3, 4}, {PART_SECOND_HALF, 2, 4},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        FaultRange range = fault_pages(cases[i].part, GPA, 4 * PAGE_BYTES);

        CHECK_EQ(range.start, GPA + cases[i].start * PAGE_BYTES);
        CHECK_EQ(range.end, GPA + cases[i].end * PAGE_BYTES);
        /* Of one page every part is that page. */
        range = fault_pages(cases[i].part, GPA, PAGE_BYTES);
        CHECK_EQ(range.start, GPA);
        CHECK_EQ(range.end, GPA + PAGE_BYTES);
    }
}

static void vcpus(void)
{
    Fault fault = {.who = WHO_ALL};

    CHECK_EQ(fault_vcpus(&fault, 1, 0xb), 0xb);
    fault.who = WHO_SELF;
    CHECK_EQ(fault_vcpus(&fault, 1, 0xb), 2);
    CHECK_EQ(fault_vcpus(&fault, 2, 0xb), 0);
    fault.who = WHO_OTHERS;
    CHECK_EQ(fault_vcpus(&fault, 1, 0xb), 9);
    fault.who = WHO_VCPU;
    fault.vcpu = 3;
    CHECK_EQ(fault_vcpus(&fault, 1, 0xb), 8);
}

static void marks(void)
{
    FaultCall call = {.gpa = GPA, .bytes = 4096, .to_shared = true};

    CHECK_EQ(fault_parse(&set, "cache/mark=5+cache"), true);
    CHECK_EQ(fault_mark(&set, true, 4), false);
    CHECK_EQ(fault_picks(&set.fault[0], &call), false);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(fault_mark(&set, true, 5), true);
        CHECK_EQ(fault_picks(&set.fault[0], &call), true);
        CHECK_EQ(fault_picks(&set.fault[0], &call), false);
        CHECK_EQ(fault_mark(&set, false, 5), true);
        CHECK_EQ(fault_picks(&set.fault[0], &call), false);
    }
    /* Mark 0 is no mark of a fault without one. */
    CHECK_EQ(fault_mark(&set, false, 0), false);
    CHECK_EQ(fault_picks(&set.fault[1], &call), true);
}

int main(void)
{
    bad_texts();
    at_most_so_many();
    every_key();
    selectors();
    counts();
    callers();
    lines();
    pages();
    vcpus();
    marks();
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "page.h"

/* A list of words, in the order of the enum that they stand for; the last is NULL. */
typedef const char *const Words[];

static Words actions = {"cache", "tlb", "accept", "mapgpa", NULL};
static Words parts = {"all",          "first-page",    "middle-page", "last-page",
                      "second-half",  "first-line",    "middle-line", "last-line",
                      "second-lines", "line-per-page", NULL};
static Words directions = {"private", "shared", NULL};
static Words persons = {"all", "self", "others", NULL};
static Words kept = {"kept", NULL};

static bool parse_word(const char *value, const char *const *words, unsigned *result)
{
    for (unsigned i = 0; words[i]; i++) {
        if (!strcmp(words[i], value)) {
            *result = i;
            return true;
        }
    }
    return false;
}

static bool parse_number(const char *value, char **end, uint64_t *result)
{
    errno = 0;
    *result = strtoull(value, end, 0);
    return !errno && *end != value && *value != '-';
}

static bool parse_range(const char *value, FaultRange *range)
{
    char *end;

    return parse_number(value, &end, &range->start) && *end == '-' &&
           parse_number(end + 1, &end, &range->end) && !*end && range->start < range->end;
}

static bool parse_count(Fault *fault, const char *key, const char *value)
{
    const struct {
        const char *key;
        uint64_t *number;
    } numbers[] = {
        {"index", &fault->index}, {"min", &fault->min},   {"max", &fault->max},
        {"mark", &fault->mark},   {"vcpu", &fault->vcpu},
    };
    char *end;

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        if (!strcmp(numbers[i].key, key)) {
            fault->who = !strcmp(key, "vcpu") ? WHO_VCPU : fault->who;
            return parse_number(value, &end, numbers[i].number) && !*end;
        }
    }
    return false;
}

static bool parse_key(Fault *fault, const char *key, const char *value)
{
    unsigned word = 0;
    bool good;

    if (!strcmp(key, "part")) {
        good = parse_word(value, parts, &word);
        fault->part = word;
    } else if (!strcmp(key, "who")) {
        good = parse_word(value, persons, &word);
        fault->who = word;
    } else if (!strcmp(key, "to")) {
        good = parse_word(value, directions, &word);
        fault->to_shared = word;
    } else if (!strcmp(key, "globals")) {
        good = fault->keep_globals = parse_word(value, kept, &word);
    } else if (!strcmp(key, "at")) {
        good = parse_range(value, &fault->at);
    } else if (!strcmp(key, "caller")) {
        good = parse_range(value, &fault->caller);
    } else if (!strcmp(key, "tdcall")) {
        good = parse_range(value, &fault->tdcall);
    } else {
        good = parse_count(fault, key, value);
    }
    return good;
}

static bool is_sane(const Fault *fault)
{
    if (fault->action == FAULT_CACHE && !fault->to_shared) {
        return false;
    }
    if (fault->action == FAULT_ACCEPT && fault->to_shared) {
        return false;
    }
    if (fault->action != FAULT_CACHE && fault->part >= PART_FIRST_LINE) {
        return false;
    }
    if (fault->action != FAULT_TLB && (fault->who != WHO_ALL || fault->keep_globals)) {
        return false;
    }
    return fault->vcpu < 64 && fault->min <= fault->max && !fault->caller.end == !fault->tdcall.end;
}

/* `text` is taken apart. */
static bool parse_one(Fault *fault, char *text)
{
    char *rest, *word = strtok_r(text, "/", &rest);
    unsigned action;

    if (!word || !parse_word(word, actions, &action)) {
        return false;
    }
    *fault = (Fault){.action = action, .index = 1, .max = UINT64_MAX, .to_shared = true};
    fault->to_shared = action != FAULT_ACCEPT;
    while ((word = strtok_r(NULL, "/", &rest))) {
        char *value = strchr(word, '=');

        if (!value) {
            return false;
        }
        *value++ = '\0';
        if (!parse_key(fault, word, value)) {
            return false;
        }
    }
    fault->active = !fault->mark;
    return is_sane(fault);
}

bool fault_parse(FaultSet *set, const char *text)
{
    char *copy = strdup(text), *rest, *one;
    bool good = copy != NULL;

    set->count = 0;
    one = good ? strtok_r(copy, "+", &rest) : NULL;
    for (; good && one; one = strtok_r(NULL, "+", &rest)) {
        Fault *fault = &set->fault[set->count];

        good = set->count < MOST_FAULTS && parse_one(fault, one);
        if (good) {
            fault->number = ++set->count;
        }
    }
    free(copy);
    return good && set->count;
}

static bool overlap(const FaultRange *range, uint64_t start, uint64_t bytes)
{
    return range->start < start + bytes && start < range->end;
}

/* KASLR moves the kernel by whole 2 MiB, so the call's place in its function tells how far. */
static bool has_caller(const Fault *fault, const FaultCall *call)
{
    uint64_t into = (call->pc - fault->tdcall.start) % MIB2;
    uint64_t slide = call->pc - into - fault->tdcall.start;

    if (into >= fault->tdcall.end - fault->tdcall.start) {
        return false;
    }
    for (size_t i = 0; i < call->words; i++) {
        uint64_t link = call->stack[i] - slide;

        if (link > fault->caller.start && link <= fault->caller.end) {
            return true;
        }
    }
    return false;
}

bool fault_picks(Fault *fault, const FaultCall *call)
{
    if (!fault->active || fault->to_shared != call->to_shared || call->bytes < fault->min ||
        call->bytes > fault->max) {
        return false;
    }
    if (fault->at.end && !overlap(&fault->at, call->gpa, call->bytes)) {
        return false;
    }
    if (fault->caller.end && !has_caller(fault, call)) {
        return false;
    }
    fault->seen++;
    return !fault->index || fault->seen == fault->index;
}

FaultRange fault_pages(FaultPart part, uint64_t gpa, uint64_t bytes)
{
    uint64_t pages = bytes / PAGE_BYTES, end = gpa + bytes, page = gpa;

    switch (part) {
    case PART_FIRST_PAGE:
        break;
    case PART_MIDDLE_PAGE:
        page = gpa + pages / 2 * PAGE_BYTES;
        break;
    case PART_LAST_PAGE:
        page = end - PAGE_BYTES;
        break;
    case PART_SECOND_HALF:
        return (FaultRange){gpa + pages / 2 * PAGE_BYTES, end};
    default:
        return (FaultRange){gpa, end};
    }
    return (FaultRange){page, page + PAGE_BYTES};
}

/* The bit of one line of the range, if it lies in the page whose first line is `first`. */
static uint64_t one_line(uint64_t line, uint64_t first)
{
    return line - first < PAGE_LINES ? 1ull << (line - first) : 0;
}

uint64_t fault_lines(FaultPart part, uint64_t gpa, uint64_t bytes, uint64_t page)
{
    uint64_t first = (page - gpa) / LINE_BYTES, lines = bytes / LINE_BYTES;
    FaultRange pages;

    switch (part) {
    case PART_FIRST_LINE:
        return one_line(0, first);
    case PART_MIDDLE_LINE:
        return one_line(lines / 2, first);
    case PART_LAST_LINE:
        return one_line(lines - 1, first);
    case PART_SECOND_LINES:
        return 0xaaaaaaaaaaaaaaaaull;
    case PART_LINE_PER_PAGE:
        return 1ull << (first / PAGE_LINES % PAGE_LINES);
    default:
        pages = fault_pages(part, gpa, bytes);
        return page >= pages.start && page < pages.end ? ~0ull : 0;
    }
}

uint64_t fault_vcpus(const Fault *fault, unsigned self, uint64_t running)
{
    switch (fault->who) {
    case WHO_SELF:
        return running & 1ull << self;
    case WHO_OTHERS:
        return running & ~(1ull << self);
    case WHO_VCPU:
        return running & 1ull << fault->vcpu;
    default:
        return running;
    }
}

bool fault_mark(FaultSet *set, bool begins, uint64_t id)
{
    bool changed = false;

    for (unsigned i = 0; i < set->count; i++) {
        Fault *fault = &set->fault[i];

        if (fault->mark && fault->mark == id) {
            fault->active = begins;
            fault->seen = begins ? 0 : fault->seen;
            changed = true;
        }
    }
    return changed;
}

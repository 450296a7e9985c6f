/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vmm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "page.h"

/* A list of words, in the order of the numbers that they stand for; the last is NULL. */
typedef const char *const Words[];

/* From VMM_RETRY on. */
static Words kinds = {"retry", "stuck", "below", "above", "error",
                      "short", "slow",  "cache", "ept",   NULL};
static Words actions = {"td-dead", "guest-mce", "host-crash", NULL};
static Words directions = {"private", "shared", NULL};
static Words on = {"on", NULL};

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

static bool parse_number(VmmRule *rule, const char *key, const char *value)
{
    const struct {
        const char *key;
        uint64_t *number;
    } numbers[] = {
        {"chunk", &rule->chunk}, {"times", &rule->times}, {"status", &rule->status},
        {"done", &rule->done},   {"ms", &rule->ms},       {"after", &rule->after},
        {"index", &rule->index}, {"min", &rule->min},     {"max", &rule->max},
        {"mark", &rule->mark},
    };
    char *end;

    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        if (!strcmp(numbers[i].key, key)) {
            errno = 0;
            *numbers[i].number = strtoull(value, &end, 0);
            return !errno && end != value && !*end && *value != '-';
        }
    }
    return false;
}

static bool parse_key(VmmRule *rule, const char *key, const char *value)
{
    unsigned word = 0;
    bool good;

    if (!strcmp(key, "to")) {
        good = parse_word(value, directions, &word);
        rule->any_direction = false;
        rule->to_shared = word;
    } else if (!strcmp(key, "on")) {
        good = parse_word(value, actions, &word);
        rule->on = (PoisonAction)word;
    } else if (!strcmp(key, "boot")) {
        good = rule->boot = parse_word(value, on, &word);
    } else {
        good = parse_number(rule, key, value);
    }
    return good;
}

static bool is_sane(const VmmRule *rule)
{
    if (rule->behaviour == VMM_CACHE && rule->to_shared) {
        return false;
    }
    if (rule->behaviour == VMM_ERROR && rule->status <= VMM_RETRY_STATUS) {
        return false;
    }
    return rule->chunk && rule->chunk % PAGE_BYTES == 0 && rule->min <= rule->max &&
           rule->done <= UINT64_MAX / PAGE_BYTES && !(rule->mark && rule->boot);
}

/* `text` is taken apart. */
static bool parse_one(VmmRule *rule, char *text)
{
    char *rest, *word = strtok_r(text, "/", &rest);
    unsigned kind;

    if (!word || !parse_word(word, kinds, &kind)) {
        return false;
    }
    *rule = (VmmRule){
        .behaviour = VMM_RETRY + kind,
        .chunk = MIB2,
        .status = 1ull << 63,
        .any_direction = true,
        .max = UINT64_MAX,
    };
    if (rule->behaviour == VMM_CACHE) {
        rule->any_direction = false;
    }
    while ((word = strtok_r(NULL, "/", &rest))) {
        char *value = strchr(word, '=');

        if (!value) {
            return false;
        }
        *value++ = '\0';
        if (!parse_key(rule, word, value)) {
            return false;
        }
    }
    return is_sane(rule);
}

bool vmm_parse(VmmSet *set, const char *text)
{
    char *copy = strdup(text), *rest, *one;
    bool good = copy != NULL;

    set->count = 0;
    one = good ? strtok_r(copy, "+", &rest) : NULL;
    for (; good && one; one = strtok_r(NULL, "+", &rest)) {
        good = set->count < MOST_VMM_RULES && parse_one(&set->rule[set->count], one);
        set->count += good;
    }
    free(copy);
    return good && set->count;
}

static bool picks(VmmRule *rule, const VmmCall *call, bool marked)
{
    bool awake = rule->mark ? rule->active : rule->boot || marked;

    if (!awake || (!rule->any_direction && rule->to_shared != call->to_shared) ||
        call->bytes < rule->min || call->bytes > rule->max) {
        return false;
    }
    rule->seen++;
    return !rule->index || rule->seen == rule->index;
}

/* The guest asks for the rest of what it asked for before: the end is the same. */
static VmmChain *chain_of(VmmSet *set, const VmmCall *call)
{
    for (unsigned i = 0; i < MOST_VMM_CHAINS; i++) {
        VmmChain *chain = &set->chain[i];

        if (chain->rule && chain->end == call->gpa + call->bytes && call->gpa >= chain->start &&
            chain->to_shared == call->to_shared) {
            return chain;
        }
    }
    return NULL;
}

static VmmChain *chain_begin(VmmSet *set, const VmmCall *call, const VmmRule *rule)
{
    VmmChain *chain = &set->chain[set->next_chain++ % MOST_VMM_CHAINS];

    *chain = (VmmChain){
        .start = call->gpa,
        .end = call->gpa + call->bytes,
        .to_shared = call->to_shared,
        .rule = rule,
    };
    return chain;
}

static uint64_t some_pages(const VmmRule *rule, const VmmCall *call)
{
    uint64_t bytes = rule->done * PAGE_BYTES;

    return bytes < call->bytes ? bytes : call->bytes - PAGE_BYTES;
}

static void retry(VmmAnswer *answer, const VmmCall *call, uint64_t done, uint64_t next)
{
    if (next != call->gpa + call->bytes || !done) {
        answer->r10 = VMM_RETRY_STATUS;
        answer->next = next;
        answer->done = done;
    }
}

/* What this rule does at this call; without a change the call succeeds as a whole. */
static void apply(const VmmRule *rule, const VmmCall *call, VmmChain *chain, VmmAnswer *answer)
{
    switch (rule->behaviour) {
    case VMM_RETRY:
        answer->done = call->bytes < rule->chunk ? call->bytes : rule->chunk;
        retry(answer, call, answer->done, call->gpa + answer->done);
        break;
    case VMM_STUCK:
        if (!rule->times || chain->told++ < rule->times) {
            retry(answer, call, 0, call->gpa);
        }
        break;
    case VMM_BELOW:
        retry(answer, call, 0, call->gpa - PAGE_BYTES);
        break;
    case VMM_ABOVE:
        retry(answer, call, 0, call->gpa + call->bytes);
        break;
    case VMM_ERROR:
        answer->r10 = rule->status;
        answer->done = some_pages(rule, call);
        break;
    case VMM_SHORT:
        answer->done = some_pages(rule, call);
        break;
    case VMM_SLOW:
    case VMM_CACHE:
    case VMM_EPT:
        break;
    }
}

VmmAnswer vmm_choose(VmmSet *set, const VmmCall *call)
{
    VmmChain *chain = chain_of(set, call);
    VmmAnswer answer = {.done = call->bytes, .start = call->gpa, .first = !chain};
    const VmmRule *rule = chain ? chain->rule : NULL;

    for (unsigned i = 0; !chain && !rule && i < set->count; i++) {
        rule = picks(&set->rule[i], call, set->marked) ? &set->rule[i] : NULL;
    }
    if (!rule) {
        return answer;
    }
    chain = chain ? chain : chain_begin(set, call, rule);
    answer.start = chain->start;
    apply(rule, call, chain, &answer);
    if (answer.r10 != VMM_RETRY_STATUS) {
        chain->rule = NULL;
    }
    /* The last part of a conversion that was told to retry is answered as it should be. */
    if (answer.r10 || rule->behaviour > VMM_ABOVE) {
        answer.rule = rule;
    }
    return answer;
}

void vmm_mark(VmmSet *set, bool begins, uint64_t id)
{
    set->marked = true;
    for (unsigned i = 0; i < set->count; i++) {
        VmmRule *rule = &set->rule[i];

        if (rule->mark == id && id) {
            rule->active = begins;
            rule->seen = begins ? 0 : rule->seen;
        }
    }
    /* Whoever has not asked again by now has given up. */
    memset(set->chain, 0, sizeof(set->chain));
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Millions of random steps: the plugin and the naive model in one process, compared step by step.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"
#include "random.h"
#include "stub.h"
#include "whole.h"

/* What the plugin told of the step that runs. */
static Facts told;

static Fact *add(char kind, const EventRecord *r)
{
    CHECK_EQ(told.count < NAIVE_FACTS, true);
    told.fact[told.count] = (Fact){.kind = kind, .vcpu = r->vcpu};
    return &told.fact[told.count++];
}

/* Which mapping shows the address, which page. */
static void add_place(Fact *fact, uint64_t gva)
{
    fact->n[0] = gva - at(SECOND + SMALL) < NAIVE_PAGES * PAGE_BYTES;
    fact->n[1] = (gva - at(fact->n[0] * SECOND + SMALL)) / PAGE_BYTES;
}

static void add_place_and(char kind, const EventRecord *r, uint64_t third, uint64_t fourth)
{
    Fact *fact = add(kind, r);

    add_place(fact, r->arg[0]);
    fact->n[2] = third;
    fact->n[3] = fourth;
}

static void add_lines(const EventRecord *r)
{
    uint64_t line = (r->arg[0] - SMALL) / LINE_BYTES;

    for (uint64_t i = line; i < line + r->arg[1]; i++) {
        Fact *fact = add('d', r);

        fact->vcpu = 0;
        fact->n[0] = i / PAGE_LINES;
        fact->n[1] = i % PAGE_LINES;
    }
}

static void add_numbers(char kind, const EventRecord *r, const uint64_t (*numbers)[6])
{
    memcpy(add(kind, r)->n, numbers, sizeof(*numbers));
}

/* An event in the words of the model; what the model does not know is no fact. */
static void understand(const EventRecord *r)
{
    const uint64_t *a = r->arg, gpa = (a[0] - SMALL) / PAGE_BYTES;

    switch (r->kind) {
    case EV_CONVERT:
        add_numbers('c', r,
                    &(uint64_t[6]){gpa, a[1] / PAGE_BYTES, r->flags & EF_TO_SHARED, a[3],
                                   a[4] >> 32, (uint32_t)a[4]});
        break;
    case EV_DIRTY_RUN:
        add_lines(r);
        break;
    case EV_STALE:
        add_place_and('s', r, r->flags, 0);
        break;
    case EV_PTE_CHANGE:
        add_place_and('p', r, r->flags & EF_TO_SHARED, 0);
        break;
    case EV_WRONG_ALIAS:
        add_place_and('w', r, a[2], r->flags);
        break;
    case EV_UNACCEPTED:
        add_place_and('u', r, a[2], r->flags);
        break;
    case EV_ACCEPT:
        add_numbers('a', r, &(uint64_t[6]){gpa, a[1], a[2], a[3]});
        break;
    case EV_CACHE_ALL:
        add_numbers('b', r, &(uint64_t[6]){0});
        break;
    }
}

static ssize_t take(void *unused, const char *data, size_t bytes)
{
    EventRecord record;

    for (size_t i = 0; i < bytes; i += sizeof(record)) {
        memcpy(&record, data + i, sizeof(record));
        understand(&record);
    }
    return bytes;
}

/* Events come here from now on, each as it is written. */
static void listen(void)
{
    fclose(stub.stream.file);
    stub.stream.file = fopencookie(NULL, "w", (cookie_io_functions_t){.write = take});
    setvbuf(stub.stream.file, NULL, _IONBF, 0);
}

static uint64_t state;

static unsigned below(unsigned top)
{
    /* xorshift64* (Marsaglia; Vigna 2016) */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1dull >> 33) % top;
}

/* Few places, so that steps meet: the ends of pages and lines. */
static Step make_step(void)
{
    static const unsigned offsets[] = {0, 8, 60, 64, 127, 4032, 4088, 4089, 4095};
    static const unsigned sizes[] = {1, 2, 4, 8, 16, 64}, lines[] = {0, 1, 63};
    /* Each as often as it stands here; WBINVD looks at all pages, so it is left to one in many. */
    static const char letters[] = "SSSSSSLLLLLLFFFFWPPPPPNNIIIICGMMMAAHRR";
    char letter = below(400) ? letters[below(sizeof(letters) - 1)] : 'B';
    Step s = {.letter = letter, .vcpu = below(NAIVE_VCPUS), .n = {below(2), below(NAIVE_PAGES)}};

    switch (letter) {
    case 'S':
    case 'L':
        s.n[1] = below(NAIVE_PAGES - 1);
        s.n[2] = offsets[below(G_N_ELEMENTS(offsets))];
        s.n[3] = sizes[below(G_N_ELEMENTS(sizes))];
        break;
    case 'F':
    case 'W':
        s.n[2] = lines[below(G_N_ELEMENTS(lines))];
        break;
    case 'P':
        s.n[2] = below(2);
        break;
    case 'M':
        s.n[0] = below(2);
        s.n[1] = 1 + below(NAIVE_PAGES - 1);
        s.n[2] = below(2);
        break;
    case 'A':
        s.n[0] = below(NAIVE_PAGES);
        s.n[1] = s.n[0] == 0 && !below(4);
        break;
    }
    return s;
}

static void print_step(const Step *s)
{
    printf("%c %u %u %u %u %u; ", s->letter, s->vcpu, s->n[0], s->n[1], s->n[2], s->n[3]);
}

static void seed(uint64_t number)
{
    state = (number + 1) * 0x9e3779b97f4a7c15ull;
}

int whole_steps(uint64_t number, unsigned length)
{
    seed(number);
    for (unsigned i = 0; i < length; i++) {
        Step s = make_step();

        print_step(&s);
    }
    puts("");
    return 0;
}

/* Whether the naive model does the step: what is not mapped faults. */
static bool is_done(const Step *s, char left_out)
{
    if (s->letter == left_out) {
        return false;
    }
    if (s->letter == 'S' || s->letter == 'L') {
        return naive_is_mapped(s->n[0], s->n[1], s->n[2], s->n[3]);
    }
    return (s->letter != 'F' && s->letter != 'W') || naive_is_mapped(s->n[0], s->n[1], 0, 1);
}

static bool is_same(const Facts *a, const Facts *b)
{
    return a->count == b->count && !memcmp(a->fact, b->fact, a->count * sizeof(a->fact[0]));
}

/* Exits with 1 at the first difference. */
static void run_sequence(uint64_t number, unsigned length, char left_out)
{
    static Facts expected;

    seed(number);
    random_start();
    listen();
    naive_start();
    for (unsigned i = 0; i < length; i++) {
        Step s = make_step();

        told.count = expected.count = 0;
        random_step(&s);
        if (is_done(&s, left_out)) {
            naive_step(&s, &expected);
        }
        if (!is_same(&told, &expected)) {
            printf("sequence %" PRIu64 " differs at step %u\n", number, i);
            fflush(stdout);
            _exit(1);
        }
    }
    _exit(0);
}

int whole_fast(uint64_t first, unsigned sequences, unsigned length, char left_out)
{
    int status;

    for (uint64_t number = first; number < first + sequences; number++) {
        if (!fork()) {
            run_sequence(number, length, left_out);
        }
        wait(&status);
        if (status) {
            return 1;
        }
    }
    printf("%llu steps agree\n", (unsigned long long)sequences * length);
    return 0;
}

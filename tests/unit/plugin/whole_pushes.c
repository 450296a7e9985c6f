/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The omissions of access.c lose no line: random blocks of pushes and stores, by plain reckoning.
 */
#include "whole.h"

#include "guest.h"

enum { AREA_PAGES = 4, BLOCKS = 400 };

typedef struct Code {
    uint8_t bytes[FAKE_TB_INSNS][FAKE_INSN_BYTES];
    size_t length[FAKE_TB_INSNS];
    unsigned store[FAKE_TB_INSNS]; /* bytes; 0: none */
    bool push[FAKE_TB_INSNS];
    size_t count;
} Code;

static uint64_t state = 88172645463325252ull;

static unsigned pick(unsigned below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

/* Encodings of SDM volume 2; the addresses that they name do not matter here. */
static void add(Code *c)
{
    static const struct {
        uint8_t bytes[4];
        uint8_t length, store;
        bool push;
    } insns[] = {
        {{0x50}, 1, 8, true}, /* push %rax */
        {{0x50}, 1, 8, true},
        {{0x50}, 1, 8, true},
        {{0x41, 0x54}, 2, 8, true}, /* push %r12 */
        {{0x41, 0x57}, 2, 8, true},
        {{0x6a, 1}, 2, 8, true},                /* push $1 */
        {{0x48, 0x89, 0x07}, 3, 8, false},      /* mov %rax,(%rdi) */
        {{0xf0, 0xff, 0x07}, 3, 4, false},      /* lock incl (%rdi) */
        {{0x0f, 0x11, 0x07}, 3, 16, false},     /* movups */
        {{0xaa}, 1, 1, false},                  /* stosb */
        {{0x90}, 1, 0, false},                  /* nop */
        {{0x48, 0x8b, 0x04, 0x24}, 4, 0, false} /* mov (%rsp),%rax */
    };
    unsigned i = pick(10) < 7 ? pick(6) : pick(G_N_ELEMENTS(insns));

    for (unsigned byte = 0; byte < insns[i].length; byte++) {
        c->bytes[c->count][byte] = insns[i].bytes[byte];
    }
    c->length[c->count] = insns[i].length;
    c->store[c->count] = insns[i].store;
    c->push[c->count++] = insns[i].push;
}

static void run(const Code *c, uint8_t *lines)
{
    FakeTb *tb = fake_translate(GUEST_PC, c->count, c->bytes, c->length);
    uint64_t rsp = PAGE_BYTES + pick((AREA_PAGES - 1) * PAGE_BYTES);

    for (size_t i = 0; i < c->count; i++) {
        uint64_t to = pick(AREA_PAGES * PAGE_BYTES - 16);

        CHECK_EQ(fake_exec(0, &tb->insn[i]), true);
        if (c->push[i]) {
            rsp -= 8;
            to = rsp;
        }
        if (c->store[i]) {
            fake_access(0, &tb->insn[i], at(SMALL + to), c->store[i], MEM_W);
            lines[to / LINE_BYTES] = 1;
            lines[(to + c->store[i] - 1) / LINE_BYTES] = 1;
        }
    }
}

TEST(no_line_of_a_push_is_lost)
{
    guest_start(1);
    for (unsigned block = 0; block < BLOCKS; block++) {
        uint8_t lines[AREA_PAGES * PAGE_LINES] = {0};
        unsigned want = 1 + pick(FAKE_TB_INSNS);
        Code code = {0};

        while (code.count < want) {
            add(&code);
        }
        run(&code, lines);
        for (unsigned page = 0; page < AREA_PAGES; page++) {
            uint64_t gpa = SMALL + page * PAGE_BYTES, mask = 0;

            for (unsigned line = 0; line < PAGE_LINES; line++) {
                mask |= (uint64_t)lines[page * PAGE_LINES + line] << line;
            }
            CHECK_EQ(guest_dirty(gpa, true), mask);
            guest_map_gpa(0, gpa, PAGE_BYTES, false);
            guest_accept(0, gpa, 0);
        }
    }
}

/* The other way round: something is left out, or the property says nothing. */
TEST(inner_pushes_are_not_watched)
{
    const uint8_t bytes[8][FAKE_INSN_BYTES] = {{0x50}, {0x50}, {0x50}, {0x50},
                                               {0x50}, {0x50}, {0x50}, {0x50}};
    const size_t lengths[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    unsigned watched = 0;
    FakeTb *tb;

    guest_start(1);
    tb = fake_translate(GUEST_PC, 8, bytes, lengths);
    for (unsigned i = 0; i < 8; i++) {
        watched |= tb->insn[i].mem_count << i;
    }
    CHECK_EQ(watched, 1 << 0 | 1 << 6 | 1 << 7);
}

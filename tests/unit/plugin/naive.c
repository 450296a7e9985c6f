/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "naive_tlb.h"

#include <stdlib.h>
#include <string.h>

enum { LINES = 64, LINE = 64, PAGE = 4096 };
enum { PRIVATE, SHARED, PENDING };
enum { VIA_SHARED = 8, WRITE = 16, CACHE = 32 };

static struct {
    int owner[NAIVE_PAGES];
    bool said[NAIVE_PAGES][3];
    bool dirty[2][NAIVE_PAGES][LINES];
    bool flushed[NAIVE_PAGES][LINES];
    unsigned again[NAIVE_PAGES];
} m;

static Facts *told;

void naive_tell(Fact fact)
{
    if (told->count == NAIVE_FACTS) {
        abort();
    }
    told->fact[told->count++] = fact;
}

void naive_start(void)
{
    memset(&m, 0, sizeof(m));
    naive_tlb_start();
}

static void say(unsigned page, int what, Fact fact)
{
    if (!m.said[page][what]) {
        m.said[page][what] = true;
        naive_tell(fact);
    }
}

static void access_page(unsigned vcpu, unsigned mapping, unsigned page, unsigned flags)
{
    bool shared = naive_maps_shared(mapping, page);
    int owner = m.owner[page];

    naive_use(vcpu, mapping, page, flags);
    if (shared && owner != SHARED) {
        say(page, 0, (Fact){'w', vcpu, {mapping, page, owner, flags | VIA_SHARED}});
    } else if (!shared && owner == SHARED) {
        say(page, 1, (Fact){'w', vcpu, {mapping, page, owner, flags}});
    } else if (!shared && owner == PENDING) {
        say(page, 2, (Fact){'u', vcpu, {mapping, page, owner, flags}});
    }
}

static void store(unsigned vcpu, unsigned mapping, unsigned at, unsigned bytes)
{
    for (unsigned line = at / LINE; line <= (at + bytes - 1) / LINE; line++) {
        unsigned page = line / LINES;

        m.dirty[naive_maps_shared(mapping, page)][page][line % LINES] = true;
        access_page(vcpu, mapping, page, WRITE);
    }
}

static void load(unsigned vcpu, unsigned mapping, unsigned at, unsigned bytes)
{
    for (unsigned page = at / PAGE; page <= (at + bytes - 1) / PAGE; page++) {
        access_page(vcpu, mapping, page, 0);
    }
}

static void flush_line(unsigned vcpu, unsigned mapping, unsigned page, unsigned line, bool drop)
{
    bool *dirty = &m.dirty[naive_maps_shared(mapping, page)][page][line];

    access_page(vcpu, mapping, page, CACHE);
    if (drop) {
        m.again[page] += m.flushed[page][line] && !*dirty;
        m.flushed[page][line] = true;
    }
    *dirty = false;
}

static void map_gpa(unsigned vcpu, unsigned first, unsigned pages, bool shared)
{
    unsigned lost = 0, flushed = 0, again = 0;

    if (shared) {
        naive_commit_to_shared(vcpu, first, pages);
    }
    for (unsigned page = first; page < first + pages; page++) {
        for (int line = 0; line < LINES; line++) {
            lost += m.dirty[!shared][page][line];
            flushed += m.flushed[page][line];
        }
        again += m.again[page];
    }
    naive_tell((Fact){'c', vcpu, {first, pages, shared, lost, flushed, again}});
    for (unsigned page = first; page < first + pages; page++) {
        for (int line = 0; line < LINES; line++) {
            if (m.dirty[!shared][page][line]) {
                naive_tell((Fact){'d', 0, {page, line}});
            }
        }
        memset(m.dirty[!shared][page], 0, sizeof(m.dirty[0][page]));
        memset(m.flushed[page], 0, sizeof(m.flushed[page]));
        memset(m.said[page], 0, sizeof(m.said[page]));
        m.again[page] = 0;
        m.owner[page] = shared ? SHARED : m.owner[page] == SHARED ? PENDING : m.owner[page];
    }
}

static void accept(unsigned vcpu, unsigned page, unsigned level)
{
    unsigned long long status = 0;
    bool any_shared = false, any_pending = false;
    int before = m.owner[page];

    for (int p = 0; p < NAIVE_PAGES; p++) {
        if (level || p == (int)page) {
            any_shared |= m.owner[p] == SHARED;
            any_pending |= m.owner[p] == PENDING;
        }
    }
    if (any_shared) {
        status = 0xc0000b0000000001;
    } else if (!any_pending) {
        status = 0x00000b0a00000000 | level;
    } else if (level) {
        status = 0xc0000b0b00000000 | level;
    } else {
        m.owner[page] = PRIVATE;
    }
    naive_tell((Fact){'a', vcpu, {page, level, status, before}});
}

void naive_step(const Step *s, Facts *facts)
{
    const unsigned *n = s->n;

    told = facts;
    switch (s->letter) {
    case 'S':
        store(s->vcpu, n[0], n[1] * PAGE + n[2], n[3]);
        break;
    case 'L':
        load(s->vcpu, n[0], n[1] * PAGE + n[2], n[3]);
        break;
    case 'F':
    case 'W':
        flush_line(s->vcpu, n[0], n[1], n[2], s->letter == 'F');
        break;
    case 'B':
        memset(m.dirty, 0, sizeof(m.dirty));
        naive_tell((Fact){'b', s->vcpu, {0}});
        break;
    case 'P':
        naive_set_entry(s->vcpu, n[0], n[1], n[2]);
        break;
    case 'N':
        naive_unmap(n[0], n[1]);
        break;
    case 'I':
        naive_invalidate(s->vcpu, n[0], n[1]);
        break;
    case 'C':
        naive_invalidate(s->vcpu, 1, -1);
        break;
    case 'G':
        naive_invalidate(s->vcpu, -1, -1);
        break;
    case 'H':
    case 'R':
        naive_invalidate(s->vcpu, -1, -1);
        naive_run(s->vcpu, s->letter == 'R');
        break;
    case 'M':
        map_gpa(s->vcpu, n[0], n[1], n[2]);
        break;
    case 'A':
        accept(s->vcpu, n[0], n[1]);
        break;
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "naive_tlb.h"

#include <stdlib.h>
#include <string.h>

enum { MAPPINGS = 2, PAGE = 4096, MOST_DEBTS = 4096 };
enum { TO_SHARED = 1, USED = 64, GLOBAL = 128 };

/* A mapping changed; some vCPUs have not invalidated it since. */
typedef struct Debt {
    unsigned mapping, page;
    bool shared, judged;
    bool owing[NAIVE_VCPUS], used[NAIVE_VCPUS];
} Debt;

/* A mapping that was taken away. */
typedef struct Away {
    bool is, judged;
    bool owing[NAIVE_VCPUS];
    unsigned long long when;
} Away;

static struct {
    bool mapped_shared[MAPPINGS][NAIVE_PAGES];
    Away away[MAPPINGS][NAIVE_PAGES];
    bool runs[NAIVE_VCPUS];
    Debt debt[MOST_DEBTS];
    size_t debts;
    unsigned long long now;
} m;

void naive_tlb_start(void)
{
    memset(&m, 0, sizeof(m));
    for (int v = 0; v < NAIVE_VCPUS; v++) {
        m.runs[v] = true;
    }
}

void naive_run(unsigned vcpu, bool runs)
{
    m.runs[vcpu] = runs;
}

bool naive_maps_shared(unsigned mapping, unsigned page)
{
    return m.mapped_shared[mapping][page];
}

static void tell_stale(const Debt *d, unsigned vcpu, unsigned flags)
{
    flags |= (d->shared ? TO_SHARED : 0) | (d->mapping == 0 ? GLOBAL : 0);
    naive_tell((Fact){'s', vcpu, {d->mapping, d->page, flags}});
}

static void commit(Debt *d)
{
    for (unsigned v = 0; v < NAIVE_VCPUS && !d->judged; v++) {
        if (d->owing[v]) {
            tell_stale(d, v, 0);
        }
    }
    d->judged = true;
}

bool naive_is_mapped(unsigned mapping, unsigned page, unsigned offset, unsigned bytes)
{
    return !m.away[mapping][page].is && !m.away[mapping][page + (offset + bytes - 1) / PAGE].is;
}

void naive_invalidate(unsigned vcpu, int mapping, int page)
{
    size_t kept = 0;

    for (size_t i = 0; i < m.debts; i++) {
        Debt *d = &m.debt[i];
        bool owed = false;

        if ((mapping < 0 || d->mapping == (unsigned)mapping) &&
            (page < 0 || d->page == (unsigned)page)) {
            d->owing[vcpu] = false;
        }
        for (int v = 0; v < NAIVE_VCPUS; v++) {
            owed |= d->owing[v];
        }
        /* What nobody owes tells nothing any more. */
        if (owed) {
            m.debt[kept++] = *d;
        }
    }
    m.debts = kept;
    for (int i = 0; i < MAPPINGS * NAIVE_PAGES; i++) {
        if ((mapping < 0 || i / NAIVE_PAGES == mapping) && (page < 0 || i % NAIVE_PAGES == page)) {
            m.away[i / NAIVE_PAGES][i % NAIVE_PAGES].owing[vcpu] = false;
        }
    }
}

static void add_debt(const Debt *d)
{
    for (int v = 0; v < NAIVE_VCPUS; v++) {
        if (d->owing[v]) {
            if (m.debts == MOST_DEBTS) {
                abort();
            }
            m.debt[m.debts++] = *d;
            return;
        }
    }
}

void naive_set_entry(unsigned vcpu, unsigned mapping, unsigned page, bool shared)
{
    Away *away = &m.away[mapping][page];
    Debt d = {.mapping = mapping, .page = page, .shared = shared};
    bool same = m.mapped_shared[mapping][page] == shared;

    memcpy(d.owing, away->is ? away->owing : m.runs, sizeof(d.owing));
    d.judged = away->is && away->judged;
    away->is = false;
    m.mapped_shared[mapping][page] = shared;
    if (!same) {
        naive_tell((Fact){'p', vcpu, {mapping, page, shared}});
        add_debt(&d);
    }
}

void naive_unmap(unsigned mapping, unsigned page)
{
    Away *away = &m.away[mapping][page];

    if (!away->is) {
        *away = (Away){.is = true, .when = ++m.now};
        memcpy(away->owing, m.runs, sizeof(away->owing));
    }
}

/* The private mapping of the range that was taken away first, and is owed and not judged. */
static int first_away(unsigned first, unsigned pages)
{
    unsigned long long when = ~0ull;
    int found = -1;

    for (int i = 0; i < MAPPINGS * NAIVE_PAGES; i++) {
        unsigned page = i % NAIVE_PAGES;
        const Away *away = &m.away[i / NAIVE_PAGES][page];
        bool owed = false;

        for (int v = 0; v < NAIVE_VCPUS; v++) {
            owed |= away->owing[v];
        }
        if (away->is && !away->judged && owed && away->when < when && page >= first &&
            page < first + pages && !m.mapped_shared[i / NAIVE_PAGES][page]) {
            when = away->when;
            found = i;
        }
    }
    return found;
}

void naive_commit_to_shared(unsigned vcpu, unsigned first, unsigned pages)
{
    for (size_t i = 0; i < m.debts; i++) {
        if (m.debt[i].shared && m.debt[i].page >= first && m.debt[i].page < first + pages) {
            commit(&m.debt[i]);
        }
    }
    for (int i; (i = first_away(first, pages)) >= 0;) {
        Debt d = {.mapping = i / NAIVE_PAGES, .page = i % NAIVE_PAGES, .shared = true};
        Away *away = &m.away[d.mapping][d.page];

        memcpy(d.owing, away->owing, sizeof(d.owing));
        naive_tell((Fact){'p', vcpu, {d.mapping, d.page, true}});
        commit(&d);
        away->judged = true;
    }
}

void naive_use(unsigned vcpu, unsigned mapping, unsigned page, unsigned flags)
{
    for (size_t i = 0; i < m.debts; i++) {
        Debt *d = &m.debt[i];

        if (d->mapping != mapping || d->page != page) {
            continue;
        }
        if (!d->shared) {
            commit(d);
        }
        if (d->owing[vcpu] && !d->used[vcpu]) {
            d->used[vcpu] = true;
            tell_stale(d, vcpu, flags | USED);
        }
    }
}

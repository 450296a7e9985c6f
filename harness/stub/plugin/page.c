/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "page.h"

#include <string.h>
#include <sys/mman.h>

#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define STORE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

_Static_assert(sizeof(Page) == 64, "the budget is 1/64 of guest memory");

#define FOUR_GIB (4ull << 30)
#define MIN(a, b) ((a) < (b) ? (a) : (b))

size_t memory_page_count(const Memory *m)
{
    return (m->below_4g + m->above_4g) / PAGE_BYTES;
}

bool memory_init(Memory *m, uint64_t below_4g, uint64_t above_4g)
{
    void *pages;

    m->below_4g = below_4g;
    m->above_4g = above_4g;
    pages = mmap(NULL, memory_page_count(m) * sizeof(Page), PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    m->pages = pages == MAP_FAILED ? NULL : pages;
    return m->pages != NULL;
}

void memory_free(Memory *m)
{
    munmap(m->pages, memory_page_count(m) * sizeof(Page));
    m->pages = NULL;
}

uint64_t memory_end(const Memory *m)
{
    return m->above_4g ? FOUR_GIB + m->above_4g : m->below_4g;
}

Page *memory_page(const Memory *m, uint64_t gpa)
{
    /* 640 KiB to 1 MiB: VGA memory and ROMs, which firmware and kernel map in both ways. */
    if (gpa >= 0xa0000 && gpa < 0x100000) {
        return NULL;
    }
    if (gpa < m->below_4g) {
        return &m->pages[gpa / PAGE_BYTES];
    }
    if (gpa >= FOUR_GIB && gpa - FOUR_GIB < m->above_4g) {
        return &m->pages[(m->below_4g + gpa - FOUR_GIB) / PAGE_BYTES];
    }
    return NULL;
}

bool page_flush(Page *page, Key key, unsigned line, bool drop)
{
    uint64_t bit = 1ull << line;
    uint64_t dirty = __atomic_fetch_and(&page->dirty[key], ~bit, __ATOMIC_RELAXED);

    if (drop && __atomic_fetch_or(&page->flushed, bit, __ATOMIC_RELAXED) & bit && !(dirty & bit)) {
        __atomic_fetch_add(&page->flushed_again, 1, __ATOMIC_RELAXED);
    }
    return dirty & bit;
}

/* The lines of `mask` that follow each other, starting at the lowest. */
static DirtyRun first_run(const Page *page, uint64_t gpa, uint64_t mask)
{
    unsigned line = __builtin_ctzll(mask), grain = line / (PAGE_LINES / STORE_GRAINS);
    uint64_t rest = mask >> line;
    uint32_t half = page->store_pc[grain];

    return (DirtyRun){
        .gpa = gpa + line * LINE_BYTES,
        .lines = ~rest ? __builtin_ctzll(~rest) : PAGE_LINES,
        .store_pc = half ? KERNEL_HALF | half : 0,
        .store_vcpu = page->store_vcpu,
    };
}

static uint64_t without(uint64_t mask, const DirtyRun *run, uint64_t gpa)
{
    unsigned first = (run->gpa - gpa) / LINE_BYTES;
    uint64_t lines = run->lines == PAGE_LINES ? ~0ull : (1ull << run->lines) - 1;

    return mask & ~(lines << first);
}

static void page_convert(Page *page, uint64_t gpa, bool to_shared, Conversion *c,
                         void (*found)(const DirtyRun *, void *), void *data)
{
    Key old_key = to_shared ? KEY_PRIVATE : KEY_SHARED;
    uint64_t dirty = __atomic_exchange_n(&page->dirty[old_key], 0, __ATOMIC_RELAXED);
    uint8_t owner = LOAD(page->state) & PAGE_OWNER_MASK;

    c->lines += PAGE_LINES;
    c->dirty += __builtin_popcountll(dirty);
    c->flushed += __builtin_popcountll(page->flushed);
    c->flushed_again += page->flushed_again;
    while (dirty) {
        DirtyRun run = first_run(page, gpa, dirty);

        found(&run, data);
        dirty = without(dirty, &run, gpa);
    }
    page->flushed = 0;
    page->flushed_again = 0;
    page->said = 0;
    if (to_shared) {
        owner = PAGE_SHARED;
    } else if (owner & PAGE_SHARED) {
        owner = PAGE_PENDING;
    }
    STORE(page->state, (page->state & ~PAGE_OWNER_MASK) | owner);
}

Conversion memory_convert(Memory *m, uint64_t gpa, uint64_t bytes, bool to_shared,
                          void (*found)(const DirtyRun *, void *), void *data)
{
    Conversion c = {0};
    uint64_t end = MIN(gpa + bytes, memory_end(m));

    /* The range is the guest's choice, and may be far larger than its memory. */
    for (uint64_t at = gpa; at < end; at += PAGE_BYTES) {
        Page *page = memory_page(m, at);

        if (page) {
            page_convert(page, at, to_shared, &c, found, data);
        }
    }
    return c;
}

AcceptResult memory_accept(Memory *m, uint64_t gpa, uint64_t bytes, uint8_t *before)
{
    uint64_t pending = 0, pages = bytes / PAGE_BYTES;
    bool shared = false, any = false;

    *before = 0;
    for (uint64_t at = gpa; at < gpa + bytes; at += PAGE_BYTES) {
        Page *page = memory_page(m, at);
        uint8_t owner = page ? LOAD(page->state) & PAGE_OWNER_MASK : 0;

        *before |= at == gpa ? owner : 0;
        any |= page != NULL;
        shared |= owner & PAGE_SHARED;
        pending += owner == PAGE_PENDING;
    }
    if (shared || !any) {
        return shared ? ACCEPT_SHARED : ACCEPT_NOTHING;
    }
    if (pending != pages) {
        return pending ? ACCEPT_MISMATCH : ACCEPT_ALREADY;
    }
    for (uint64_t at = gpa; at < gpa + bytes; at += PAGE_BYTES) {
        Page *page = memory_page(m, at);

        __atomic_fetch_and(&page->state, (uint8_t)~PAGE_PENDING, __ATOMIC_RELAXED);
    }
    return ACCEPT_DONE;
}

void memory_flush_all(Memory *m)
{
    for (size_t i = 0; i < memory_page_count(m); i++) {
        /* Pages never touched stay untouched: writing them would cost real memory. */
        if (m->pages[i].dirty[KEY_PRIVATE] | m->pages[i].dirty[KEY_SHARED]) {
            memset(m->pages[i].dirty, 0, sizeof(m->pages[i].dirty));
        }
    }
}

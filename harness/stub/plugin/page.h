/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model of memory: owner and acceptance per 4 KiB page, dirtiness per 64-byte line and key.
 *
 * The caches that this stands for are infinite and evict nothing: a line stays dirty under the key
 * it was stored with until a flush through a translation of that key reaches it.
 */
#ifndef TDH_PAGE_H
#define TDH_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "events.h"

#define PAGE_BYTES 4096ull
#define LINE_BYTES 64ull
#define PAGE_LINES 64
#define MIB2 (2ull << 20)
#define GIB1 (1ull << 30)

/* Bits of Page.state beside the PageState of events.h: they only lead to the slow path. */
enum {
    PAGE_TABLE = 1 << 2,   /* a page table of the kernel half */
    PAGE_WATCHED = 1 << 3, /* a PTE change of a mapping of this page is not flushed everywhere */
    PAGE_ODD = 1 << 4,     /* a misbehaving VMM left it in a state of its own: odd.h */
    PAGE_OWNER_MASK = PAGE_SHARED | PAGE_PENDING
};

/* Findings on a page are emitted once until its next conversion. */
enum { SAID_PRIVATE_ACCESS = 1 << 0, SAID_SHARED_ACCESS = 1 << 1, SAID_UNACCEPTED = 1 << 2 };

typedef enum Key { KEY_PRIVATE, KEY_SHARED } Key;

#define STORE_GRAINS 8

/*
 * One guest page: 64 bytes for 4096, 1/64 of guest memory. Fields are accessed with relaxed
 * atomics: vCPUs run in threads of their own, and a lost race between two stores to one line can
 * only misname the last of two storing instructions.
 */
typedef struct Page {
    uint64_t dirty[2]; /* by Key, a bit per line */
    uint64_t flushed;  /* lines flushed since the last conversion */
    /* low half of the kernel PC of the last store per 512 bytes, 0 for user space */
    uint32_t store_pc[STORE_GRAINS];
    uint16_t flushed_again;
    uint8_t store_vcpu; /* of the last store to the page */
    uint8_t state;
    uint8_t said;
} Page;

/* Pages of [0, below_4g) and [4 GiB, 4 GiB + above_4g). */
typedef struct Memory {
    Page *pages;
    uint64_t below_4g, above_4g;
} Memory;

typedef struct DirtyRun {
    uint64_t gpa, lines, store_pc;
    unsigned store_vcpu;
} DirtyRun;

typedef struct Conversion {
    uint64_t lines, dirty, flushed, flushed_again;
} Conversion;

/* Reserves address space only; false when even that fails. */
bool memory_init(Memory *m, uint64_t below_4g, uint64_t above_4g);
void memory_free(Memory *m);
/* Where the last RAM ends. */
uint64_t memory_end(const Memory *m);
size_t memory_page_count(const Memory *m);
/* The page that holds `gpa`, NULL where there is no RAM (devices, the legacy hole's ROMs). */
Page *memory_page(const Memory *m, uint64_t gpa);

/* Kernel text and modules lie in the top 4 GiB, so half an address names a PC there. */
#define KERNEL_HALF 0xffffffff00000000ull

/* The hottest code of the stub: once per store of the guest. */
static inline void page_store(Page *page, Key key, unsigned line, uint64_t pc, unsigned vcpu)
{
    uint64_t bit = 1ull << line;
    unsigned grain = line / (PAGE_LINES / STORE_GRAINS);
    uint32_t half = pc >= KERNEL_HALF ? (uint32_t)pc : 0;

    /* Most stores hit a line that is dirty already: look before locking the bus. */
    if (!(__atomic_load_n(&page->dirty[key], __ATOMIC_RELAXED) & bit)) {
        __atomic_fetch_or(&page->dirty[key], bit, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&page->store_pc[grain], half, __ATOMIC_RELAXED);
    __atomic_store_n(&page->store_vcpu, (uint8_t)vcpu, __ATOMIC_RELAXED);
}

/* The line is written back under `key`; with `drop` it was CLFLUSH, without CLWB. Returns whether
   it was dirty. */
bool page_flush(Page *page, Key key, unsigned line, bool drop);

/*
 * Give [gpa, gpa + bytes) to the other owner. Lines dirty under the old key are counted, handed to
 * `found` in runs, and forgotten: they are lost to whoever writes them back next.
 */
Conversion memory_convert(Memory *m, uint64_t gpa, uint64_t bytes, bool to_shared,
                          void (*found)(const DirtyRun *, void *), void *data);

typedef enum AcceptResult {
    ACCEPT_DONE,
    ACCEPT_ALREADY, /* every page was accepted before */
    ACCEPT_SHARED,  /* a page of it is shared */
    ACCEPT_NOTHING, /* no page of it is RAM */
    ACCEPT_MISMATCH /* some pages pending, some accepted: a smaller size is needed */
} AcceptResult;

/* TDG.MEM.PAGE.ACCEPT on 4 KiB or 2 MiB; `before` gets the first page's state. */
AcceptResult memory_accept(Memory *m, uint64_t gpa, uint64_t bytes, uint8_t *before);

/* WBINVD and INVD: no line is dirty any more. */
void memory_flush_all(Memory *m);

#endif

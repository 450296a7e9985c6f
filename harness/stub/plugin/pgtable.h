/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page tables: the walk, and shadow copies of the kernel half's tables, so that a store into one
 * tells which mapping changed its shared bit. SDM volume 3, 4.5; the shared bit is bit GPAW - 1.
 *
 * Tables of the user half are walked but not shadowed: the kernel converts by its own mappings.
 */
#ifndef TDH_PGTABLE_H
#define TDH_PGTABLE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define GPAW 53
#define SHARED_BIT (1ull << (GPAW - 1))
#define PTE_PRESENT 1ull
#define PTE_LARGE 0x80ull
#define PTE_GLOBAL 0x100ull
#define PTE_ADDRESS 0x000ffffffffff000ull
#define TABLE_ENTRIES 512

/* Levels count from the leaf: 0 holds 4 KiB leaves, 1 2 MiB, 2 1 GiB. */
static inline uint64_t level_bytes(int level)
{
    return 4096ull << (9 * level);
}

/* Copies `count` entries from guest memory at `gpa`; false where there is none. */
typedef bool (*ReadEntries)(uint64_t gpa, uint64_t *entries, size_t count, void *data);

typedef struct Leaf {
    uint64_t gpa;       /* of the 4 KiB page asked for */
    uint64_t slot;      /* address of the last entry read: the leaf's, when there is one */
    uint64_t top_table; /* the table that the root's entry points to */
    int level;          /* -1: not mapped */
    bool shared, global;
} Leaf;

typedef struct Flip {
    uint64_t gva, gpa, bytes, old_pte, new_pte, slot;
    bool away; /* not present between the two */
} Flip;

typedef struct Tables {
    GHashTable *by_gpa;
    uint64_t epoch; /* counts adoptions */
    /* by entry of the root: the table that was adopted for it last, 0 for none */
    uint64_t top[TABLE_ENTRIES];
    ReadEntries read;
    /* A table's page was taken into the shadow, or left it. */
    void (*watch)(uint64_t gpa, bool is_table);
    /* The shared bit of a present leaf changed. */
    void (*flip)(const Flip *flip, void *data);
    /* A leaf was taken away: new_pte is what is not present now. */
    void (*gone)(const Flip *flip, void *data);
    /* A leaf came where nothing was present: old_pte is 0. */
    void (*came)(const Flip *flip, void *data);
} Tables;

void tables_init(Tables *t);
void tables_free(Tables *t);

/* Walk from `root` with `levels` levels (4 or 5). */
Leaf pgtable_walk(ReadEntries read, void *data, uint64_t root, int levels, uint64_t gva);

/* Take the table that maps gva below `root`, of `levels` levels, and all below it, into the shadow;
   those of an earlier root that this one does not lead to leave it. `data` goes to the callbacks,
   here and in the next. */
void tables_adopt(Tables *t, uint64_t root, int levels, uint64_t gva, void *data);

/* `bytes` at `gpa` inside a shadowed table were stored to. */
void tables_store(Tables *t, uint64_t gpa, unsigned bytes, void *data);

/* One link less to the table: without any it is no page table any more. */
void tables_unlink(Tables *t, uint64_t gpa);

#endif

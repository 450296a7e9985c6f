/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pgtable.h"

typedef struct Table {
    uint64_t gva;
    uint64_t epoch;
    uint64_t links; /* entries of shadowed tables that point here, and one for a root's */
    int level;
    uint64_t entry[TABLE_ENTRIES];
} Table;

static bool is_leaf(uint64_t pte, int level)
{
    return pte & PTE_PRESENT && (level == 0 || (level <= 2 && pte & PTE_LARGE));
}

static bool is_link(uint64_t pte, int level)
{
    return pte & PTE_PRESENT && !is_leaf(pte, level);
}

static uint64_t leaf_gpa(uint64_t pte, int level)
{
    return pte & PTE_ADDRESS & ~(level_bytes(level) - 1);
}

static Table *table_at(const Tables *t, uint64_t gpa)
{
    return g_hash_table_lookup(t->by_gpa, GSIZE_TO_POINTER(gpa / 4096));
}

void tables_init(Tables *t)
{
    t->by_gpa = g_hash_table_new_full(NULL, NULL, NULL, g_free);
}

void tables_free(Tables *t)
{
    g_hash_table_destroy(t->by_gpa);
}

static void unlink_children(Tables *t, const Table *table)
{
    for (int i = 0; i < TABLE_ENTRIES; i++) {
        if (is_link(table->entry[i], table->level)) {
            tables_unlink(t, table->entry[i] & PTE_ADDRESS);
        }
    }
}

/*
 * One more link to the table. A page may have been another table before (early tables are freed
 * with the init data), so the last adoption wins; the epoch ends the recursion where one table is
 * linked many times (KASAN).
 */
static void adopt(Tables *t, uint64_t gpa, int level, uint64_t gva, void *data)
{
    Table *before = table_at(t, gpa), *table;

    if (before && (before->epoch == t->epoch || (before->gva == gva && before->level == level))) {
        before->links++;
        return;
    }
    table = g_new0(Table, 1);
    table->gva = gva;
    table->level = level;
    table->epoch = t->epoch;
    table->links = 1 + (before ? before->links : 0);
    if (!t->read(gpa, table->entry, TABLE_ENTRIES, data)) {
        g_free(table);
        return;
    }
    g_hash_table_steal(t->by_gpa, GSIZE_TO_POINTER(gpa / 4096));
    g_hash_table_replace(t->by_gpa, GSIZE_TO_POINTER(gpa / 4096), table);
    t->watch(gpa, true);
    for (int i = 0; i < TABLE_ENTRIES; i++) {
        if (is_link(table->entry[i], level)) {
            adopt(t, table->entry[i] & PTE_ADDRESS, level - 1, gva + i * level_bytes(level), data);
        }
    }
    if (before) {
        unlink_children(t, before);
        g_free(before);
    }
}

void tables_unlink(Tables *t, uint64_t gpa)
{
    Table *table = table_at(t, gpa);

    if (!table || --table->links) {
        return;
    }
    g_hash_table_steal(t->by_gpa, GSIZE_TO_POINTER(gpa / 4096));
    t->watch(gpa, false);
    unlink_children(t, table);
    g_free(table);
}

Leaf pgtable_walk(ReadEntries read, void *data, uint64_t root, int levels, uint64_t gva)
{
    uint64_t table = root & PTE_ADDRESS;
    Leaf leaf = {.level = -1};

    for (int level = levels - 1; level >= 0; level--) {
        uint64_t slot = table + (gva / level_bytes(level) % TABLE_ENTRIES) * 8;
        uint64_t pte = 0;

        leaf.slot = slot;
        if (!read(slot, &pte, 1, data) || !(pte & PTE_PRESENT)) {
            break;
        }
        if (is_leaf(pte, level)) {
            leaf.gpa = leaf_gpa(pte, level) | (gva & (level_bytes(level) - 1) & ~4095ull);
            leaf.level = level;
            leaf.shared = pte & SHARED_BIT;
            leaf.global = pte & PTE_GLOBAL;
            break;
        }
        table = pte & PTE_ADDRESS;
        if (level == levels - 1) {
            leaf.top_table = table;
        }
    }
    return leaf;
}

/*
 * Roots are not shadowed, and of the kernel half there is one in use: what an earlier one led to
 * (that of early boot, of the kernel before kexec) may be anybody's memory by now. Under KASLR the
 * new one need not have an entry where the earlier one had.
 */
static void leave_others(Tables *t, const uint64_t *root)
{
    for (int i = 0; i < TABLE_ENTRIES; i++) {
        uint64_t top = t->top[i];

        if (top && (!(root[i] & PTE_PRESENT) || (root[i] & PTE_ADDRESS) != top)) {
            t->top[i] = 0;
            tables_unlink(t, top);
        }
    }
}

void tables_adopt(Tables *t, uint64_t root, int levels, uint64_t gva, void *data)
{
    uint64_t entry[TABLE_ENTRIES], top;
    int index = gva / level_bytes(levels - 1) % TABLE_ENTRIES;

    if (!t->read(root & PTE_ADDRESS, entry, TABLE_ENTRIES, data)) {
        return;
    }
    top = entry[index] & PTE_ADDRESS;
    t->epoch++;
    adopt(t, top, levels - 2, gva & ~(level_bytes(levels - 1) - 1), data);
    leave_others(t, entry);
    t->top[index] = table_at(t, top) ? top : 0;
}

/* A leaf came or went whole: told by `tell`. */
static void one_sided(void (*tell)(const Flip *, void *), uint64_t slot, uint64_t gva, int level,
                      uint64_t old, uint64_t now, void *data)
{
    Flip flip = {
        .gva = gva,
        .gpa = leaf_gpa(is_leaf(old, level) ? old : now, level),
        .bytes = level_bytes(level),
        .old_pte = old,
        .new_pte = now,
        .slot = slot,
    };

    tell(&flip, data);
}

/* A table was linked where nothing was: its leaves came. */
static void leaves_came(Tables *t, uint64_t child_gpa, void *data)
{
    Table *child = table_at(t, child_gpa);

    for (int i = 0; child && i < TABLE_ENTRIES; i++) {
        if (is_leaf(child->entry[i], child->level)) {
            one_sided(t->came, child_gpa + i * 8, child->gva + i * level_bytes(child->level),
                      child->level, 0, child->entry[i], data);
        }
    }
}

static void flip_if_changed(Tables *t, uint64_t slot, uint64_t gva, int level, uint64_t old,
                            uint64_t now, void *data)
{
    if ((old ^ now) & SHARED_BIT) {
        Flip flip = {
            .gva = gva,
            .gpa = leaf_gpa(now, level),
            .bytes = level_bytes(level),
            .old_pte = old,
            .new_pte = now,
            .slot = slot,
        };
        t->flip(&flip, data);
    }
}

/* A large page was split: its pages may differ from it. */
static void compare_split(Tables *t, const Table *parent, int index, uint64_t old, void *data)
{
    uint64_t child_gpa = parent->entry[index] & PTE_ADDRESS;
    Table *child = table_at(t, child_gpa);

    for (int i = 0; child && i < TABLE_ENTRIES; i++) {
        if (is_leaf(child->entry[i], child->level)) {
            flip_if_changed(t, child_gpa + i * 8, child->gva + i * level_bytes(child->level),
                            child->level, old, child->entry[i], data);
        }
    }
}

/* Pages were joined into a large one. */
static void compare_join(Tables *t, uint64_t slot, uint64_t old_link, uint64_t now, void *data)
{
    Table *child = table_at(t, old_link & PTE_ADDRESS);

    for (int i = 0; child && i < TABLE_ENTRIES; i++) {
        if (is_leaf(child->entry[i], child->level)) {
            /* Bit 12 of a large entry is no address: it may be PAT. */
            uint64_t part = (now & ~PTE_ADDRESS) | leaf_gpa(now, child->level + 1);

            part += i * level_bytes(child->level);
            flip_if_changed(t, slot, child->gva + i * level_bytes(child->level), child->level,
                            child->entry[i], part, data);
        }
    }
}

static void entry_changed(Tables *t, Table *table, uint64_t slot, int index, uint64_t old,
                          void *data)
{
    uint64_t now = table->entry[index], gva = table->gva + index * level_bytes(table->level);
    int level = table->level;

    if (is_link(now, level)) {
        t->epoch++;
        adopt(t, now & PTE_ADDRESS, level - 1, gva, data);
        if (is_leaf(old, level)) {
            compare_split(t, table, index, old, data);
        } else if (!(old & PTE_PRESENT)) {
            leaves_came(t, now & PTE_ADDRESS, data);
        }
    } else if (is_leaf(now, level) && is_leaf(old, level)) {
        if (leaf_gpa(now, level) == leaf_gpa(old, level)) {
            flip_if_changed(t, slot, gva, level, old, now, data);
        }
    } else if (is_leaf(now, level) && is_link(old, level)) {
        compare_join(t, slot, old, now, data);
    } else if (is_leaf(now, level)) {
        one_sided(t->came, slot, gva, level, 0, now, data);
    } else if (is_leaf(old, level)) {
        one_sided(t->gone, slot, gva, level, old, now, data);
    }
    if (is_link(old, level)) {
        tables_unlink(t, old & PTE_ADDRESS);
    }
}

void tables_store(Tables *t, uint64_t gpa, unsigned bytes, void *data)
{
    uint64_t first = gpa & ~7ull, last = (gpa + bytes - 1) & ~7ull;

    for (uint64_t slot = first; slot <= last; slot += 8) {
        /* Looked up anew each time: a change may have made this table leave the shadow. */
        Table *table = table_at(t, slot);
        int index = slot / 8 % TABLE_ENTRIES;
        uint64_t old;

        if (!table) {
            return;
        }
        old = table->entry[index];
        if (t->read(slot, &table->entry[index], 1, data) && table->entry[index] != old) {
            entry_changed(t, table, slot, index, old, data);
        }
    }
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Remembered translations: see Xlate in vcpu.h. */
#include "track.h"

bool xlate_read(uint64_t gpa, uint64_t *entries, size_t count, void *data)
{
    return vcpu_read_gpa(data, gpa, entries, count * sizeof(*entries));
}

/*
 * Void what any vCPU remembers of one page. Its state was changed before; a vCPU that fills a slot
 * meanwhile looks at the state once more behind it, so one of the two sees the other.
 */
void xlate_void_page(const Page *page)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < stub.vcpu_count; i++) {
        for (unsigned slot = 0; slot < XLATE_SLOTS; slot++) {
            Xlate *x = &stub.vcpus[i].xlate[slot];

            if (xlate_page(x) == page) {
                __atomic_store_n(&x->tag, ~0ull, __ATOMIC_RELAXED);
            }
        }
    }
}

static int paging_levels(const Vcpu *v)
{
    return v->cr4 & CR4_LA57 ? 5 : 4;
}

static void adopt_tables(Vcpu *v, const Leaf *leaf, uint64_t va)
{
    Page *top = memory_page(&stub.memory, leaf->top_table);

    if (leaf->top_table && top && !(top->state & PAGE_TABLE)) {
        g_mutex_lock(&stub.lock);
        /* Once: each adoption counts as a link. */
        if (!(top->state & PAGE_TABLE)) {
            tables_adopt(&stub.tables, v->cr3, paging_levels(v), va, v);
        }
        g_mutex_unlock(&stub.lock);
    }
}

Leaf xlate_leaf(Vcpu *v, uint64_t va)
{
    if (!(v->cr0 & CR0_PG)) {
        return (Leaf){.gpa = va & ~(PAGE_BYTES - 1), .global = true};
    }
    /* 32-bit paging is passed through by boot code only, long before there is a TD to judge. */
    if (!(v->cr4 & CR4_PAE)) {
        return (Leaf){.level = -1};
    }
    return pgtable_walk(xlate_read, v, v->cr3, paging_levels(v), va);
}

static uintptr_t flags_of(const Leaf *leaf, uint8_t state)
{
    uintptr_t flags = leaf->shared ? XLATE_SHARED : 0;

    flags |= leaf->level > 0 ? XLATE_LARGE : 0;
    flags |= state & PAGE_TABLE ? XLATE_TABLE : 0;
    if ((state & ~PAGE_TABLE) != (leaf->shared ? PAGE_SHARED : 0)) {
        flags |= XLATE_LOOK;
    }
    return flags;
}

Xlate *xlate_fill(Vcpu *v, Xlate *slot, uint64_t va)
{
    uint64_t generation[2] = {vcpu_fresh_generation(v, false), vcpu_fresh_generation(v, true)};
    Leaf leaf = xlate_leaf(v, va);
    Page *page = leaf.level < 0 ? NULL : memory_page(&stub.memory, leaf.gpa);
    uint8_t state;

    v->counter[CNT_WALK]++;
    v->has_huge |= leaf.level > 1;
    if (va >> 63 && v->cr0 & CR0_PG) {
        v->online = !v->parked;
        adopt_tables(v, &leaf, va);
    }
    if (!page) {
        /* A mapping that is made later needs no invalidation, so its absence is not remembered. */
        slot->tag = leaf.level < 0 ? ~0ull : va / PAGE_BYTES | generation[leaf.global];
        slot->page = (uintptr_t)&v->nowhere;
        return slot;
    }
    do {
        state = __atomic_load_n(&page->state, __ATOMIC_RELAXED);
        slot->page = (uintptr_t)page | flags_of(&leaf, state);
        slot->tag = va / PAGE_BYTES | generation[leaf.global];
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    } while (state != __atomic_load_n(&page->state, __ATOMIC_RELAXED));
    return slot;
}

void track_void_all(void)
{
    for (unsigned i = 0; i < stub.vcpu_count; i++) {
        vcpu_void_xlate(&stub.vcpus[i], true);
    }
}

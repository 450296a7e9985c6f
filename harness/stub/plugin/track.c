/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads, stores and line flushes, attributed to a page and a key. The fast path is one look at a
 * remembered translation; whoever changes a page's owner or watches a page voids them all.
 */
#include "stub.h"

typedef struct Access {
    Vcpu *v;
    uint64_t va, gpa, pc;
    unsigned bytes;
    uint32_t flags;
} Access;

static bool read_entries(uint64_t gpa, uint64_t *entries, size_t count, void *data)
{
    return vcpu_read_gpa(data, gpa, entries, count * sizeof(*entries));
}

/*
 * Void what any vCPU remembers of one page. Its state was changed before; a vCPU that fills a slot
 * meanwhile looks at the state once more behind it, so one of the two sees the other.
 */
static void void_page(const Page *page)
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

static void watch_table(uint64_t gpa, bool is_table)
{
    Page *page = memory_page(&stub.memory, gpa);

    if (page && is_table) {
        __atomic_fetch_or(&page->state, PAGE_TABLE, __ATOMIC_RELAXED);
        void_page(page);
    } else if (page) {
        __atomic_fetch_and(&page->state, (uint8_t)~PAGE_TABLE, __ATOMIC_RELAXED);
    }
}

static void watch_pages(const Pending *entry)
{
    for (uint64_t at = 0; at < entry->bytes; at += PAGE_BYTES) {
        Page *page = memory_page(&stub.memory, entry->gpa + at);

        if (page) {
            __atomic_fetch_or(&page->state, PAGE_WATCHED, __ATOMIC_RELAXED);
        }
    }
}

static void unwatch_pages(const Pending *entry, void *unused)
{
    for (uint64_t at = 0; at < entry->bytes; at += PAGE_BYTES) {
        Page *page = memory_page(&stub.memory, entry->gpa + at);

        if (page) {
            __atomic_fetch_and(&page->state, (uint8_t)~PAGE_WATCHED, __ATOMIC_RELAXED);
        }
    }
}

void track_void_all(void)
{
    for (unsigned i = 0; i < stub.vcpu_count; i++) {
        vcpu_void_xlate(&stub.vcpus[i], true);
    }
}

void track_sweep(void)
{
    size_t before = stub.pending.count;

    pending_sweep(&stub.pending, unwatch_pages, NULL);
    if (stub.pending.count == before) {
        return;
    }
    /* A dropped entry may have shared pages with one that stays (another alias of them). */
    for (size_t i = 0; i < stub.pending.count; i++) {
        watch_pages(&stub.pending.entries[i]);
    }
    track_void_all();
}

static int paging_levels(const Vcpu *v)
{
    return v->cr4 & CR4_LA57 ? 5 : 4;
}

/* A shadowed entry changed its shared bit: from now on every running vCPU owes an invalidation. */
static void on_flip(const Flip *flip, void *data)
{
    Vcpu *v = data;
    Leaf now = pgtable_walk(read_entries, v, v->cr3, paging_levels(v), flip->gva);
    EventRecord record = {
        .kind = EV_PTE_CHANGE,
        .vcpu = v->index,
        .flags = (flip->new_pte & SHARED_BIT ? EF_TO_SHARED : 0) |
                 (flip->old_pte & PTE_GLOBAL ? EF_GLOBAL : 0),
        .arg = {flip->gva, flip->gpa, flip->old_pte, flip->new_pte, flip->bytes},
    };
    Pending entry = {
        .gva = flip->gva,
        .gpa = flip->gpa,
        .bytes = flip->bytes,
        .to_shared = flip->new_pte & SHARED_BIT,
        .global = flip->old_pte & PTE_GLOBAL,
        .pcid = v->cr4 & CR4_PCIDE ? v->cr3 & 0xfff : PCID_NONE,
    };

    /* A page that was a table once and holds data now is told apart by the walk. */
    if (now.level < 0 || now.slot != flip->slot) {
        return;
    }
    entry.seq = stream_put(&stub.stream, &record);
    for (unsigned i = 0; i < stub.vcpu_count; i++) {
        entry.owing |= (uint64_t)stub.vcpus[i].online << i;
    }
    pending_add(&stub.pending, &entry);
    watch_pages(&entry);
    track_void_all();
}

void track_init(void)
{
    stub.tables.read = read_entries;
    stub.tables.watch = watch_table;
    stub.tables.flip = on_flip;
    tables_init(&stub.tables);
}

static void adopt_tables(Vcpu *v, const Leaf *leaf, uint64_t va)
{
    Page *top = memory_page(&stub.memory, leaf->top_table);

    if (leaf->top_table && top && !(top->state & PAGE_TABLE)) {
        g_mutex_lock(&stub.lock);
        tables_adopt(&stub.tables, leaf->top_table, paging_levels(v), va, v);
        g_mutex_unlock(&stub.lock);
    }
}

static Leaf leaf_of(Vcpu *v, uint64_t va)
{
    if (!(v->cr0 & CR0_PG)) {
        return (Leaf){.gpa = va & ~(PAGE_BYTES - 1), .global = true};
    }
    /* 32-bit paging is passed through by boot code only, long before there is a TD to judge. */
    if (!(v->cr4 & CR4_PAE)) {
        return (Leaf){.level = -1};
    }
    return pgtable_walk(read_entries, v, v->cr3, paging_levels(v), va);
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

static Xlate *fill(Vcpu *v, Xlate *slot, uint64_t va)
{
    uint64_t generation[2] = {vcpu_fresh_generation(v, false), vcpu_fresh_generation(v, true)};
    Leaf leaf = leaf_of(v, va);
    Page *page = leaf.level < 0 ? NULL : memory_page(&stub.memory, leaf.gpa);
    uint8_t state;

    v->counter[CNT_WALK]++;
    v->has_huge |= leaf.level > 1;
    if (va >> 63 && v->cr0 & CR0_PG) {
        v->online = true;
        adopt_tables(v, &leaf, va);
    }
    if (!page) {
        slot->tag = va / PAGE_BYTES | generation[leaf.global];
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

static inline Xlate *slot_of(Vcpu *v, uint64_t va)
{
    return &v->xlate[va / PAGE_BYTES % XLATE_SLOTS];
}

static inline bool is_hit(const Vcpu *v, const Xlate *slot, uint64_t va)
{
    uint64_t difference = slot->tag ^ va / PAGE_BYTES;

    return difference == v->generation[1] || difference == v->generation[0];
}

static Xlate *translate(Vcpu *v, uint64_t va)
{
    Xlate *slot = slot_of(v, va);

    return is_hit(v, slot, va) ? slot : fill(v, slot, va);
}

static void emit_stale(const Pending *entry, unsigned vcpu, const Access *access, uint32_t flags)
{
    EventRecord record = {
        .kind = EV_STALE,
        .vcpu = vcpu,
        .flags = flags | (entry->to_shared ? EF_TO_SHARED : 0) | (entry->global ? EF_GLOBAL : 0),
        .pc = access->pc,
        .arg = {entry->gva, entry->gpa, entry->bytes, entry->seq},
    };

    stream_put(&stub.stream, &record);
}

static void commit(Pending *entry, const Access *access)
{
    for (unsigned i = 0; !entry->judged && i < stub.vcpu_count; i++) {
        if (entry->owing >> i & 1) {
            emit_stale(entry, i, access, 0);
        }
    }
    entry->judged = true;
}

void track_commit_to_shared(Vcpu *v, uint64_t gpa, uint64_t bytes, uint64_t pc)
{
    Access access = {.v = v, .pc = pc};
    Pending *entry;

    for (size_t at = 0; (entry = pending_next_gpa(&stub.pending, &at, gpa, bytes));) {
        if (entry->to_shared) {
            commit(entry, &access);
        }
    }
}

static void judge_translation(const Access *access)
{
    uint64_t bit = 1ull << access->v->index;
    Pending *entry;

    for (size_t at = 0; (entry = pending_next_gva(&stub.pending, &at, access->va));) {
        if (!entry->to_shared) {
            commit(entry, access);
        }
        if (entry->owing & bit && !(entry->said_used & bit)) {
            entry->said_used |= bit;
            emit_stale(entry, access->v->index, access, EF_USED | access->flags);
        }
    }
}

static void judge_owner(const Access *access, Page *page, bool shared)
{
    uint8_t owner = page->state & PAGE_OWNER_MASK, say;
    EventRecord record = {
        .kind = EV_WRONG_ALIAS,
        .vcpu = access->v->index,
        .flags = access->flags | (shared ? EF_SHARED : 0),
        .pc = access->pc,
        .arg = {access->va, access->gpa, owner},
    };

    if (shared && owner != PAGE_SHARED) {
        say = SAID_SHARED_ACCESS;
    } else if (!shared && owner == PAGE_SHARED) {
        say = SAID_PRIVATE_ACCESS;
    } else if (!shared && owner == PAGE_PENDING) {
        say = SAID_UNACCEPTED;
        record.kind = EV_UNACCEPTED;
    } else {
        return;
    }
    if (!(page->said & say)) {
        page->said |= say;
        stream_put(&stub.stream, &record);
    }
}

/* The page is not in the state that the translation expects: find out why, under the lock. */
static void look_closer(const Access *access, const Xlate *x)
{
    Page *page = xlate_page(x);

    g_mutex_lock(&stub.lock);
    if (page->state & PAGE_WATCHED) {
        judge_translation(access);
    }
    judge_owner(access, page, x->page & XLATE_SHARED);
    if (access->flags & EF_WRITE && page->state & PAGE_TABLE) {
        access->v->counter[CNT_PT_STORE]++;
        tables_store(&stub.tables, access->gpa, access->bytes, access->v);
    }
    g_mutex_unlock(&stub.lock);
}

static void one_access(Vcpu *v, uint64_t va, unsigned bytes, uint32_t flags, uint64_t pc)
{
    Xlate *x = translate(v, va);

    if (flags & EF_WRITE) {
        page_store(xlate_page(x), x->page & XLATE_SHARED, va / LINE_BYTES % PAGE_LINES, pc,
                   v->index);
    }
    if (x->page & (XLATE_LOOK | XLATE_TABLE)) {
        Access access = {
            .v = v,
            .va = va,
            .gpa = leaf_of(v, va).gpa | va % PAGE_BYTES,
            .pc = pc,
            .bytes = bytes,
            .flags = flags,
        };

        look_closer(&access, x);
    }
}

/* An access may reach into the next line, and so into the next page. */
static __attribute__((noinline)) void slow_access(Vcpu *v, qemu_plugin_meminfo_t info, uint64_t va,
                                                  uint32_t flags, uint64_t pc)
{
    unsigned bytes = 1u << qemu_plugin_mem_size_shift(info), room = LINE_BYTES - va % LINE_BYTES;

    one_access(v, va, MIN(bytes, room), flags, pc);
    if (bytes > room) {
        one_access(v, va + room, bytes - room, flags, pc);
    }
}

void track_load(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    Vcpu *v = &stub.vcpus[vcpu];
    const Xlate *slot = slot_of(v, va);

    if (__builtin_expect(!is_hit(v, slot, va) || slot->page & XLATE_LOOK, 0) ||
        __builtin_expect(va % PAGE_BYTES > PAGE_BYTES - 8, 0)) {
        slow_access(v, info, va, 0, (uintptr_t)pc);
    }
}

void track_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    Vcpu *v = &stub.vcpus[vcpu];
    const Xlate *slot = slot_of(v, va);

    if (__builtin_expect(!is_hit(v, slot, va) || slot->page & (XLATE_LOOK | XLATE_TABLE), 0) ||
        __builtin_expect(va % LINE_BYTES > LINE_BYTES - 8, 0)) {
        slow_access(v, info, va, EF_WRITE, (uintptr_t)pc);
        return;
    }
    page_store(xlate_page(slot), slot->page & XLATE_SHARED, va / LINE_BYTES % PAGE_LINES,
               (uintptr_t)pc, vcpu);
}

void track_load_wide(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    slow_access(&stub.vcpus[vcpu], info, va, 0, (uintptr_t)pc);
}

void track_store_wide(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    slow_access(&stub.vcpus[vcpu], info, va, EF_WRITE, (uintptr_t)pc);
}

void track_flush_line(Vcpu *v, uint64_t va, bool drop, uint64_t pc)
{
    Xlate *x;

    one_access(v, va, 1, EF_CACHE, pc);
    x = translate(v, va);
    page_flush(xlate_page(x), x->page & XLATE_SHARED, va / LINE_BYTES % PAGE_LINES, drop);
}

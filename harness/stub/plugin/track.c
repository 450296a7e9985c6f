/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads, stores and line flushes, attributed to a page and a key. The fast path costs a few
 * loads: a remembered translation, and a page in the state that this translation expects.
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

static void watch_table(uint64_t gpa, bool is_table)
{
    Page *page = memory_page(&stub.memory, gpa);

    if (page && is_table) {
        __atomic_fetch_or(&page->state, PAGE_TABLE, __ATOMIC_RELAXED);
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
        vcpu_void_xlate(&stub.vcpus[i], true);
    }
    pending_add(&stub.pending, &entry);
    watch_pages(&entry);
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

static Xlate *fill(Vcpu *v, Xlate *slot, uint64_t va)
{
    uint32_t generation[2] = {v->generation[0], v->generation[1]};
    Leaf leaf = {.gpa = va & ~(PAGE_BYTES - 1), .global = true};

    v->counter[CNT_WALK]++;
    if (v->cr0 & CR0_PG) {
        leaf = (Leaf){.level = -1};
        if (v->cr4 & CR4_PAE) {
            leaf = pgtable_walk(read_entries, v, v->cr3, paging_levels(v), va);
        }
        if (va >> 63) {
            v->online = true;
            adopt_tables(v, &leaf, va);
        }
    }
    *slot = (Xlate){
        .vpage = va / PAGE_BYTES,
        .page = leaf.level < 0 ? NULL : memory_page(&stub.memory, leaf.gpa),
        .generation = generation[leaf.global],
        .global = leaf.global,
        .shared = leaf.shared,
        .expect = leaf.shared ? PAGE_SHARED : 0,
        .level = leaf.level,
    };
    v->has_huge |= leaf.level > 1;
    if (!slot->page) {
        slot->page = &v->nowhere;
        slot->expect = v->nowhere.state;
    }
    return slot;
}

static inline Xlate *translate(Vcpu *v, uint64_t va)
{
    Xlate *slot = &v->xlate[va / PAGE_BYTES % XLATE_SLOTS];

    if (__builtin_expect(
            slot->vpage == va / PAGE_BYTES && slot->generation == v->generation[slot->global], 1)) {
        return slot;
    }
    return fill(v, slot, va);
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
static __attribute__((noinline)) void look_closer(Access *access, const Xlate *x)
{
    Leaf leaf;

    leaf =
        pgtable_walk(read_entries, access->v, access->v->cr3, paging_levels(access->v), access->va);
    access->gpa = access->v->cr0 & CR0_PG ? leaf.gpa : access->va & ~(PAGE_BYTES - 1);
    access->gpa |= access->va & (PAGE_BYTES - 1);
    g_mutex_lock(&stub.lock);
    if (x->page->state & PAGE_WATCHED) {
        judge_translation(access);
    }
    judge_owner(access, x->page, x->shared);
    if (access->flags & EF_WRITE && x->page->state & PAGE_TABLE) {
        access->v->counter[CNT_PT_STORE]++;
        tables_store(&stub.tables, access->gpa, access->bytes, access->v);
    }
    g_mutex_unlock(&stub.lock);
}

static inline void one_access(Vcpu *v, uint64_t va, unsigned bytes, uint32_t flags, uint64_t pc)
{
    Xlate *x = translate(v, va);

    if (flags & EF_WRITE) {
        page_store(x->page, x->shared, va / LINE_BYTES % PAGE_LINES, pc, v->index);
    }
    if (__builtin_expect(x->page->state != x->expect, 0)) {
        Access access = {.v = v, .va = va, .pc = pc, .bytes = bytes, .flags = flags};

        look_closer(&access, x);
    }
}

/* An access of up to 64 bytes may reach into the next line, and so into the next page. */
static inline void any_access(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va,
                              uint32_t flags, void *data)
{
    Vcpu *v = &stub.vcpus[vcpu];
    uint64_t pc = (uintptr_t)data, offset = va % LINE_BYTES;

    if (__builtin_expect(offset > LINE_BYTES - 16, 0)) {
        unsigned bytes = 1u << qemu_plugin_mem_size_shift(info);

        if (offset + bytes > LINE_BYTES) {
            unsigned head = LINE_BYTES - offset;

            one_access(v, va, head, flags, pc);
            one_access(v, va + head, bytes - head, flags, pc);
            return;
        }
    }
    one_access(v, va, 8, flags, pc);
}

void track_load(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    any_access(vcpu, info, va, 0, pc);
}

void track_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    any_access(vcpu, info, va, EF_WRITE, pc);
}

void track_flush_line(Vcpu *v, uint64_t va, bool drop, uint64_t pc)
{
    one_access(v, va, 1, EF_CACHE, pc);
    page_flush(translate(v, va)->page, translate(v, va)->shared, va / LINE_BYTES % PAGE_LINES,
               drop);
}

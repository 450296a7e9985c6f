/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Owed invalidations and wrong aliases: what is emitted, and when. */
#include "inject.h"
#include "odd.h"
#include "track.h"

static void watch_table(uint64_t gpa, bool is_table)
{
    Page *page = memory_page(&stub.memory, gpa);

    if (page && is_table) {
        __atomic_fetch_or(&page->state, PAGE_TABLE, __ATOMIC_RELAXED);
        xlate_void_page(page);
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
    track_void_all();
}

uint64_t conflict_running(void)
{
    uint64_t mask = 0;

    for (unsigned i = 0; i < stub.vcpu_count; i++) {
        mask |= (uint64_t)stub.vcpus[i].online << i;
    }
    return mask;
}

uint16_t conflict_pcid(const Vcpu *v)
{
    return v->cr4 & CR4_PCIDE ? v->cr3 & 0xfff : 0;
}

uint64_t conflict_emit_change(const Vcpu *v, const Flip *flip, bool to_shared)
{
    EventRecord record = {
        .kind = EV_PTE_CHANGE,
        .vcpu = v->index,
        .flags = (to_shared ? EF_TO_SHARED : 0) | (flip->old_pte & PTE_GLOBAL ? EF_GLOBAL : 0) |
                 (flip->away ? EF_AWAY : 0),
        .arg = {flip->gva, flip->gpa, flip->old_pte, flip->new_pte, flip->bytes},
    };

    return stream_put(&stub.stream, &record);
}

/* From the change on, these vCPUs owe an invalidation of the old translation. */
void conflict_owe(const Vcpu *v, const Flip *flip, uint64_t owing, bool judged)
{
    Pending entry = {
        .gva = flip->gva,
        .gpa = flip->gpa,
        .bytes = flip->bytes,
        .to_shared = flip->new_pte & SHARED_BIT,
        .global = flip->old_pte & PTE_GLOBAL,
        .pcid = conflict_pcid(v),
        .seq = conflict_emit_change(v, flip, flip->new_pte & SHARED_BIT),
        .owing = owing,
        .judged = judged,
    };

    if (stub.faults && !judged) {
        inject_flip(&entry);
    }
    if (owing) {
        pending_add(&stub.pending, &entry);
        watch_pages(&entry);
    }
    track_void_all();
}

/* A page that was a table once and holds data now is told apart by the walk. */
bool conflict_in_use(Vcpu *v, const Flip *flip)
{
    return xlate_leaf(v, flip->gva).slot == flip->slot;
}

/* A shadowed entry changed its shared bit. */
static void on_flip(const Flip *flip, void *data)
{
    if (conflict_in_use(data, flip)) {
        conflict_owe(data, flip, conflict_running(), false);
    }
}

void track_owe(const Pending *entry, uint64_t owing)
{
    Pending again = *entry;

    for (size_t i = 0; i < stub.pending.count; i++) {
        if (stub.pending.entries[i].seq == entry->seq) {
            stub.pending.entries[i].owing |= owing;
            return;
        }
    }
    again.owing = owing;
    pending_add(&stub.pending, &again);
    watch_pages(&again);
    track_void_all();
}

void conflict_init(void)
{
    stub.tables.read = xlate_read;
    stub.tables.watch = watch_table;
    stub.tables.flip = on_flip;
    tables_init(&stub.tables);
    unmapped_init();
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

    /* The access that tells it has a stack; MapGPA's comes with the conversion. */
    if (access->bytes) {
        stub_emit_with_stack(access->v, &record);
    } else {
        stream_put(&stub.stream, &record);
    }
}

void conflict_commit(Pending *entry, const Access *access)
{
    for (unsigned i = 0; !entry->judged && i < stub.vcpu_count; i++) {
        if (entry->owing >> i & 1) {
            emit_stale(entry, i, access, 0);
        }
    }
    entry->judged = true;
    entry->deaf_page = entry->deaf_all = 0;
}

void track_commit_to_shared(Vcpu *v, uint64_t gpa, uint64_t bytes, uint64_t pc)
{
    Access access = {.v = v, .pc = pc};
    Pending *entry;

    for (size_t at = 0; (entry = pending_next_gpa(&stub.pending, &at, gpa, bytes));) {
        if (entry->to_shared) {
            conflict_commit(entry, &access);
        }
    }
    unmapped_commit(gpa, bytes, &access);
}

static void judge_translation(const Access *access)
{
    uint64_t bit = 1ull << access->v->index;
    Pending *entry;

    for (size_t at = 0; (entry = pending_next_gva(&stub.pending, &at, access->va));) {
        if (!entry->to_shared) {
            conflict_commit(entry, access);
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
        stub_emit_with_stack(access->v, &record);
    }
}

void conflict_look(const Access *access, const Xlate *x)
{
    Page *page = xlate_page(x);
    bool ends = false;

    g_mutex_lock(&stub.lock);
    if (page->state & PAGE_ODD) {
        ends = odd_look(access, page, x->page & XLATE_SHARED);
    }
    if (page->state & PAGE_WATCHED) {
        judge_translation(access);
    }
    judge_owner(access, page, x->page & XLATE_SHARED);
    if (access->flags & EF_WRITE && page->state & PAGE_TABLE) {
        access->v->counter[CNT_PT_STORE]++;
        tables_store(&stub.tables, access->gpa, access->bytes, access->v);
    }
    g_mutex_unlock(&stub.lock);
    if (ends) {
        odd_end();
    }
}

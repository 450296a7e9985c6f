/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "inject.h"

#include <sys/mman.h>

#include "track.h"

static size_t page_index(const Page *page)
{
    return page - stub.memory.pages;
}

bool inject_setup(const char *text)
{
    Faults *f = g_new0(Faults, 1);
    size_t bytes = memory_page_count(&stub.memory) * sizeof(*f->cleaned);
    void *cleaned = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (!fault_parse(&f->set, text) || cleaned == MAP_FAILED) {
        g_free(f);
        return false;
    }
    f->cleaned = cleaned;
    f->flipped = g_array_new(FALSE, FALSE, sizeof(Flipped));
    f->armed = g_array_new(FALSE, FALSE, sizeof(Armed));
    f->records = g_array_new(FALSE, FALSE, sizeof(EventRecord));
    f->lost = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    stub.faults = f;
    return true;
}

void inject_cleaned(const Page *page, unsigned line)
{
    size_t index = page_index(page);

    /* What is no RAM has a page of its own, outside. */
    if (index < memory_page_count(&stub.memory)) {
        __atomic_fetch_or(&stub.faults->cleaned[index], 1ull << line, __ATOMIC_RELAXED);
    }
}

/* Pages that follow each other and lost the same are told as one. */
void inject_record(const Fault *fault, unsigned vcpu, FaultRange pages, uint64_t what)
{
    GArray *records = stub.faults->records;
    EventRecord *last =
        records->len ? &g_array_index(records, EventRecord, records->len - 1) : NULL;
    EventRecord one = {
        .kind = EV_FAULT,
        .vcpu = vcpu,
        .flags = fault->to_shared ? EF_TO_SHARED : 0,
        .arg = {fault->number, pages.start, pages.end - pages.start, what},
    };

    if (last && last->arg[0] == fault->number && last->arg[1] + last->arg[2] == pages.start &&
        last->arg[3] == what) {
        last->arg[2] += one.arg[2];
    } else {
        g_array_append_val(records, one);
    }
}

void inject_emit(uint64_t seq)
{
    GArray *records = stub.faults->records;

    for (guint i = 0; i < records->len; i++) {
        EventRecord *one = &g_array_index(records, EventRecord, i);

        one->arg[4] = seq;
        stream_put(&stub.stream, one);
    }
    g_array_set_size(records, 0);
}

/* The lines are as if no flush had reached them. */
static void lose_flushes(const Fault *fault, const FaultCall *call)
{
    uint64_t end = MIN(call->gpa + call->bytes, memory_end(&stub.memory));

    for (uint64_t at = call->gpa; at < end; at += PAGE_BYTES) {
        Page *page = memory_page(&stub.memory, at);
        uint64_t lines;

        if (!page) {
            continue;
        }
        lines = fault_lines(fault->part, call->gpa, call->bytes, at) &
                stub.faults->cleaned[page_index(page)];
        if (lines) {
            __atomic_fetch_or(&page->dirty[KEY_PRIVATE], lines, __ATOMIC_RELAXED);
            __atomic_fetch_and(&page->flushed, ~lines, __ATOMIC_RELAXED);
            inject_record(fault, call->vcpu, (FaultRange){at, at + PAGE_BYTES}, lines);
        }
    }
}

/* The translations are as if they had not been invalidated between PTE change and MapGPA. */
static void lose_invalidations(const Fault *fault, const FaultCall *call)
{
    FaultRange pages = fault_pages(fault->part, call->gpa, call->bytes);
    GArray *flipped = stub.faults->flipped;

    for (guint i = 0; i < flipped->len; i++) {
        const Flipped *one = &g_array_index(flipped, Flipped, i);
        uint64_t owing = fault_vcpus(fault, call->vcpu, one->entry.owing);

        if (fault->keep_globals) {
            owing = one->entry.global ? owing & ~one->by_page : 0;
        }
        if (owing && inject_overlaps(&one->entry, pages)) {
            track_owe(&one->entry, owing);
            inject_record(fault, call->vcpu,
                          (FaultRange){one->entry.gpa, one->entry.gpa + one->entry.bytes}, owing);
        }
    }
}

/* What was flushed for this conversion must not count for the next one. */
static void leave_out(FaultRange pages)
{
    for (uint64_t at = pages.start; at < MIN(pages.end, memory_end(&stub.memory));
         at += PAGE_BYTES) {
        Page *page = memory_page(&stub.memory, at);

        if (page) {
            page->flushed = 0;
            page->flushed_again = 0;
        }
    }
}

static FaultRange lose(Fault *fault, const FaultCall *call)
{
    FaultRange left_out = {0};

    if (fault->action == FAULT_CACHE) {
        lose_flushes(fault, call);
    } else if (fault->action == FAULT_TLB && call->to_shared) {
        lose_invalidations(fault, call);
    } else if (fault->action == FAULT_MAPGPA) {
        left_out = fault_pages(fault->part, call->gpa, call->bytes);
        leave_out(left_out);
        inject_record(fault, call->vcpu, left_out, 0);
    } else {
        inject_arm(fault, call);
    }
    return left_out;
}

FaultRange inject_map_gpa(Vcpu *v, uint64_t gpa, uint64_t bytes, bool to_shared, uint64_t pc)
{
    enum { MOST_KEPT = 40 };
    uint64_t stack[MOST_KEPT];
    FaultSet *set = &stub.faults->set;
    FaultRange left_out = {0};
    FaultCall call = {
        .gpa = gpa,
        .bytes = bytes,
        .pc = pc,
        .to_shared = to_shared,
        .vcpu = v->index,
        .stack = stack,
        .words = stub_stack(v, stack, MOST_KEPT),
    };

    inject_disarm((FaultRange){gpa, gpa + bytes});
    stub.faults->first_armed = stub.faults->armed->len;
    for (unsigned i = 0; i < set->count; i++) {
        if (fault_picks(&set->fault[i], &call)) {
            FaultRange pages = lose(&set->fault[i], &call);

            left_out = pages.end ? pages : left_out;
        }
    }
    return left_out;
}

void inject_converted(uint64_t gpa, uint64_t bytes, uint64_t seq)
{
    Faults *f = stub.faults;
    FaultRange range = {gpa, MIN(gpa + bytes, memory_end(&stub.memory))};

    inject_emit(seq);
    for (size_t i = f->first_armed; i < f->armed->len; i++) {
        g_array_index(f->armed, Armed, i).seq = seq;
    }
    for (uint64_t at = range.start; at < range.end; at += PAGE_BYTES) {
        Page *page = memory_page(&stub.memory, at);

        if (page && f->cleaned[page_index(page)]) {
            f->cleaned[page_index(page)] = 0;
        }
    }
    for (guint i = f->flipped->len; i-- > 0;) {
        if (inject_overlaps(&g_array_index(f->flipped, Flipped, i).entry, range)) {
            g_array_remove_index_fast(f->flipped, i);
        }
    }
}

/* Of one translation only the last change counts. */
void inject_remember(const Pending *entry)
{
    GArray *flipped = stub.faults->flipped;
    Flipped one = {.entry = *entry};

    for (guint i = flipped->len; i-- > 0;) {
        if (g_array_index(flipped, Flipped, i).entry.gva == entry->gva) {
            g_array_remove_index_fast(flipped, i);
        }
    }
    if (entry->to_shared) {
        g_array_append_val(flipped, one);
    }
}

void inject_invalidated_page(unsigned vcpu, uint64_t gva)
{
    GArray *flipped = stub.faults->flipped;

    for (guint i = 0; i < flipped->len; i++) {
        Flipped *one = &g_array_index(flipped, Flipped, i);

        if (gva - one->entry.gva < one->entry.bytes) {
            one->by_page |= 1ull << vcpu;
        }
    }
}

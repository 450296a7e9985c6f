/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Faults of what comes behind a MapGPA to private: invalidations and ACCEPTs that are lost. */
#include "inject.h"

void inject_arm(Fault *fault, const FaultCall *call)
{
    Armed armed = {
        .fault = fault,
        .pages = fault_pages(fault->part, call->gpa, call->bytes),
        .vcpu = call->vcpu,
    };

    g_array_append_val(stub.faults->armed, armed);
}

/* Another conversion of the pages ends what was armed by the one before. */
void inject_disarm(FaultRange pages)
{
    GArray *armed = stub.faults->armed;

    for (guint i = armed->len; i-- > 0;) {
        FaultRange old = g_array_index(armed, Armed, i).pages;

        if (old.start < pages.end && pages.start < old.end) {
            g_array_remove_index_fast(armed, i);
        }
    }
}

void inject_flip(Pending *entry)
{
    GArray *armed = stub.faults->armed;

    inject_remember(entry);
    for (guint i = 0; i < armed->len && !entry->to_shared; i++) {
        const Armed *one = &g_array_index(armed, Armed, i);
        uint64_t deaf = fault_vcpus(one->fault, one->vcpu, entry->owing);

        if (one->fault->action == FAULT_TLB && inject_overlaps(entry, one->pages) &&
            (!one->fault->keep_globals || entry->global)) {
            entry->deaf_all |= deaf;
            entry->deaf_page |= one->fault->keep_globals ? 0 : deaf;
            inject_record(one->fault, one->vcpu,
                          (FaultRange){entry->gpa, entry->gpa + entry->bytes}, deaf);
            inject_emit(one->seq);
        }
    }
}

static void lose_accept(const Armed *armed, const Vcpu *v, FaultRange pages)
{
    for (uint64_t at = pages.start; at < pages.end; at += PAGE_BYTES) {
        Page *page = memory_page(&stub.memory, at);

        if (page) {
            __atomic_fetch_or(&page->state, PAGE_PENDING, __ATOMIC_RELAXED);
            g_array_append_val(stub.faults->lost, at);
        }
    }
    inject_record(armed->fault, v->index, pages, 0);
    inject_emit(armed->seq);
}

void inject_accepted(const Vcpu *v, uint64_t gpa, uint64_t bytes)
{
    GArray *armed = stub.faults->armed;

    for (guint i = 0; i < armed->len; i++) {
        const Armed *one = &g_array_index(armed, Armed, i);
        FaultRange pages = {MAX(gpa, one->pages.start), MIN(gpa + bytes, one->pages.end)};

        if (one->fault->action == FAULT_ACCEPT && pages.start < pages.end) {
            lose_accept(one, v, pages);
        }
    }
}

static void make_good(void)
{
    GArray *lost = stub.faults->lost;

    for (guint i = 0; i < lost->len; i++) {
        Page *page = memory_page(&stub.memory, g_array_index(lost, uint64_t, i));

        if ((page->state & PAGE_OWNER_MASK) == PAGE_PENDING) {
            __atomic_fetch_and(&page->state, (uint8_t)~PAGE_PENDING, __ATOMIC_RELAXED);
        }
    }
    g_array_set_size(lost, 0);
    g_array_set_size(stub.faults->armed, 0);
    for (size_t i = 0; i < stub.pending.count; i++) {
        stub.pending.entries[i].deaf_all = stub.pending.entries[i].deaf_page = 0;
    }
    track_void_all();
}

void inject_mark(bool begins, uint64_t id)
{
    if (fault_mark(&stub.faults->set, begins, id)) {
        make_good();
    }
}

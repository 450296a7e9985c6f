/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "odd.h"

#include <unistd.h>

bool odd_setup(const char *option)
{
    stub.odd = g_new0(Odd, 1);
    stub.odd->pages = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    return vmm_parse(&stub.odd->vmm, option);
}

static OddPage *find_or_make(uint64_t gpa)
{
    Page *page = memory_page(&stub.memory, gpa);
    OddPage *one = page ? odd_find(gpa) : NULL;

    if (page && !one) {
        one = g_new0(OddPage, 1);
        g_hash_table_insert(stub.odd->pages, GSIZE_TO_POINTER(gpa / PAGE_BYTES), one);
        __atomic_fetch_or(&page->state, PAGE_ODD, __ATOMIC_RELAXED);
    }
    return one;
}

static void forget_page(uint64_t gpa, Page *page, void *unused)
{
    OddPage *one = odd_find(gpa);

    if (one) {
        stub.odd->due -= one->due != 0;
        __atomic_fetch_and(&page->state, (uint8_t)~PAGE_ODD, __ATOMIC_RELAXED);
        g_hash_table_remove(stub.odd->pages, GSIZE_TO_POINTER(gpa / PAGE_BYTES));
    }
}

static void fail_page(uint64_t gpa, Page *page, void *seq)
{
    find_or_make(gpa)->failed = *(uint64_t *)seq;
}

/* Before the page changes hands: from then on its lines count as clean. */
static void hold_page(uint64_t gpa, Page *page, void *rule)
{
    uint64_t dirty = __atomic_load_n(&page->dirty[KEY_SHARED], __ATOMIC_RELAXED);

    if (page->state & PAGE_SHARED && dirty) {
        OddPage *one = find_or_make(gpa);

        one->held = dirty;
        one->rule = rule;
    }
}

static void name_convert(uint64_t gpa, Page *page, void *seq)
{
    OddPage *one = odd_find(gpa);

    if (one && one->held) {
        one->convert = *(uint64_t *)seq;
    }
}

static uint64_t emit(Call *call, const VmmAnswer *a, const VmmCall *asked, OddReply reply)
{
    EventRecord record = {
        .kind = EV_VMM,
        .vcpu = call->vcpu->index,
        .flags = asked->to_shared ? EF_TO_SHARED : 0,
        .pc = call->pc,
        .arg = {a->done / PAGE_BYTES << 32 | a->rule->behaviour, asked->gpa, asked->bytes,
                reply.r10, reply.r11},
    };

    return stub_emit_with_stack(call->vcpu, &record);
}

/* The conversion as a whole succeeded, or the guest is told so. */
static void settle(const VmmAnswer *a, const VmmCall *asked, Call *call)
{
    uint64_t end = asked->gpa + asked->bytes, seq;
    bool holds = a->rule && a->rule->behaviour == VMM_CACHE;

    if (g_hash_table_size(stub.odd->pages)) {
        odd_each(a->start, end, forget_page, NULL);
    }
    if (holds) {
        odd_each(asked->gpa, end, hold_page, (void *)a->rule);
    }
    seq = a->done ? convert_range(call, asked->gpa, a->done, asked->to_shared) : 0;
    if (holds) {
        odd_each(asked->gpa, end, name_convert, &seq);
    }
}

static void fail(const VmmAnswer *a, const VmmCall *asked, Call *call, uint64_t seq)
{
    if (a->done) {
        convert_range(call, asked->gpa, a->done, asked->to_shared);
    }
    if (a->first || a->r10 != VMM_RETRY_STATUS) {
        odd_each(a->start, asked->gpa + asked->bytes, fail_page, &seq);
        track_void_all();
    }
}

OddReply odd_map_gpa(Call *call, uint64_t gpa, uint64_t bytes, bool to_shared, uint64_t r11)
{
    VmmCall asked = {gpa, bytes, to_shared};
    OddReply reply = {.r11 = r11};
    uint64_t seq = 0, slow_us;
    VmmAnswer a;

    g_mutex_lock(&stub.lock);
    a = vmm_choose(&stub.odd->vmm, &asked);
    slow_us = a.rule && a.rule->behaviour == VMM_SLOW ? a.rule->ms * 1000 : 0;
    reply.r10 = a.r10;
    if (a.r10 == VMM_RETRY_STATUS) {
        reply.r11 = a.next | (to_shared ? SHARED_BIT : 0);
    }
    if (a.rule) {
        seq = emit(call, &a, &asked, reply);
    }
    if (a.r10) {
        fail(&a, &asked, call, seq);
    } else {
        settle(&a, &asked, call);
    }
    stream_flush(&stub.stream);
    g_mutex_unlock(&stub.lock);
    if (!stub.single && slow_us) {
        usleep(slow_us);
    }
    return reply;
}

void odd_mark(bool begins, uint64_t id)
{
    vmm_mark(&stub.odd->vmm, begins, id);
}

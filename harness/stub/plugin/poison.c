/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lines that a VMM did not flush: their write-back into private memory, and who reads them then. */
#include <signal.h>
#include <unistd.h>

#include "odd.h"

/*
 * How long the vCPU that read poison stands still: whoever injects the machine check polls the
 * stream, and QEMU takes the signal in its main loop. Neither may have to wait for this vCPU, so
 * it does go on.
 */
enum { HOLD_US = 400000 };

OddPage *odd_find(uint64_t gpa)
{
    return g_hash_table_lookup(stub.odd->pages, GSIZE_TO_POINTER(gpa / PAGE_BYTES));
}

/* The range may be larger than memory: pages that exist only. */
void odd_each(uint64_t gpa, uint64_t end, void (*visit)(uint64_t, Page *, void *), void *data)
{
    uint64_t ram =
        stub.memory.above_4g ? (4ull << 30) + stub.memory.above_4g : stub.memory.below_4g;

    for (uint64_t at = gpa; at < MIN(end, ram); at += PAGE_BYTES) {
        Page *page = memory_page(&stub.memory, at);

        if (page) {
            visit(at, page, data);
        }
    }
}

static void poison(uint64_t gpa, OddPage *one)
{
    EventRecord record = {.kind = EV_POISON, .arg = {gpa, one->held, one->convert}};

    stream_put(&stub.stream, &record);
    stream_flush(&stub.stream);
    one->poisoned |= one->held;
    one->held = 0;
}

/* ACCEPT writes every line anew: older poison is gone, what a cache still holds is not. */
static void accepted_page(uint64_t gpa, Page *page, void *unused)
{
    OddPage *one = odd_find(gpa);

    if (!one) {
        return;
    }
    one->poisoned = 0;
    if (one->held && one->rule->after) {
        stub.odd->due += !one->due;
        one->due = stub.stream.next_seq + one->rule->after;
    } else if (one->held) {
        poison(gpa, one);
    }
}

void odd_accepted(uint64_t gpa, uint64_t bytes)
{
    odd_each(gpa, gpa + bytes, accepted_page, NULL);
}

void odd_tick(void)
{
    GHashTableIter at;
    void *number, *value;

    if (!stub.odd->due) {
        return;
    }
    g_hash_table_iter_init(&at, stub.odd->pages);
    while (g_hash_table_iter_next(&at, &number, &value)) {
        OddPage *one = value;

        if (one->due && one->due <= stub.stream.next_seq) {
            one->due = 0;
            stub.odd->due--;
            poison(GPOINTER_TO_SIZE(number) * PAGE_BYTES, one);
        }
    }
}

static void use_failed(const Access *access, OddPage *one, const Page *page, bool shared)
{
    EventRecord record = {
        .kind = EV_DISOWNED,
        .vcpu = access->v->index,
        .flags = access->flags | (shared ? EF_SHARED : 0),
        .pc = access->pc,
        .arg = {access->va, access->gpa, page->state & PAGE_OWNER_MASK, one->failed},
    };

    if (one->failed && !(access->flags & EF_CACHE)) {
        one->failed = 0;
        stream_put(&stub.stream, &record);
    }
}

bool odd_look(const Access *access, Page *page, bool shared)
{
    OddPage *one = odd_find(access->gpa);
    uint64_t line = 1ull << access->gpa / LINE_BYTES % PAGE_LINES;
    EventRecord record = {
        .kind = EV_POISON_READ,
        .vcpu = access->v->index,
        .flags = access->flags,
        .pc = access->pc,
        .arg = {access->va, access->gpa},
    };

    if (!one || stub.odd->over) {
        return false;
    }
    use_failed(access, one, page, shared);
    if (!(one->poisoned & line) || shared || access->flags & EF_CACHE) {
        return false;
    }
    /*
     * A store to a part of the line reads the rest, and no instruction that TCG has stores a whole
     * one at once (MOVDIR64B would). Found once, the page counts as given up.
     */
    one->poisoned = 0;
    stub.odd->action = one->rule->on;
    record.arg[2] = stub.odd->action;
    record.arg[3] = one->convert;
    stream_put(&stub.stream, &record);
    stream_flush(&stub.stream);
    if (stub.odd->action != POISON_GUEST_MCE) {
        stub.odd->over = true;
        stub.stream.muted = true;
    }
    return true;
}

void odd_end(void)
{
    if (stub.odd->over) {
        kill(getpid(), SIGTERM);
    }
    if (!stub.single) {
        usleep(HOLD_US);
    }
}

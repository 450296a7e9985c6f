/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads, stores and line flushes, attributed to a page and a key. The fast path is one look at a
 * remembered translation; whoever changes a page's owner or watches a page voids them all.
 */
#include "inject.h"
#include "track.h"

static Xlate *translate(Vcpu *v, uint64_t va)
{
    Xlate *slot = xlate_slot(v, va);

    return xlate_hit(v, slot, va) ? slot : xlate_fill(v, slot, va);
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
            .gpa = xlate_leaf(v, va).gpa | va % PAGE_BYTES,
            .pc = pc,
            .bytes = bytes,
            .flags = flags,
        };

        conflict_look(&access, x);
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
    const Xlate *slot = xlate_slot(v, va);

    if (__builtin_expect(!xlate_hit(v, slot, va) || slot->page & XLATE_LOOK, 0) ||
        __builtin_expect(va % PAGE_BYTES > PAGE_BYTES - 8, 0)) {
        slow_access(v, info, va, 0, (uintptr_t)pc);
    }
}

void track_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc)
{
    Vcpu *v = &stub.vcpus[vcpu];
    const Xlate *slot = xlate_slot(v, va);

    if (__builtin_expect(!xlate_hit(v, slot, va) || slot->page & (XLATE_LOOK | XLATE_TABLE), 0) ||
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
    unsigned line = va / LINE_BYTES % PAGE_LINES;
    Xlate *x;
    Key key;

    one_access(v, va, 1, EF_CACHE, pc);
    x = translate(v, va);
    key = x->page & XLATE_SHARED;
    if (page_flush(xlate_page(x), key, line, drop) && key == KEY_PRIVATE && stub.faults) {
        inject_cleaned(xlate_page(x), line);
    }
}

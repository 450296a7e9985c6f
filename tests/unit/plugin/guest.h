/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest on the fake machine: page tables, instructions, TDCALLs, and the
 * events that came of it.
 */
#ifndef TDH_GUEST_H
#define TDH_GUEST_H

#include "check.h"
#include "fake_qemu_api.h"
#include "page.h"
#include "pgtable.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define BELOW_4G (32 * MIB)
#define ABOVE_4G (4 * MIB)
/* The kernel's direct map in 5-level and in 4-level paging. */
#define DIRECT5 0xff11000000000000ull
#define DIRECT4 0xffff888000000000ull

/* Of a mapping beside PRESENT: bits of the entry. */
#define PTE_BITS 0x63ull
/* [SMALL, SMALL + 2 MiB) is mapped by 4 KiB leaves, other RAM by 2 MiB leaves;
 * all global. */
#define SMALL (4 * MIB)
#define LARGE_AT (8 * MIB)
/* Of the direct map: where the first GiB is mapped again by a 1 GiB leaf, not
 * global. */
#define HUGE_ALIAS (64 * GIB)
/* [SMALL, SMALL + 2 MiB) again, shared, by 4 KiB leaves, not global. */
#define SHARED_ALIAS (128 * GIB)
/* An address that no test converts. */
#define ELSEWHERE (12 * MIB)
#define GUEST_PC 0xffffffff81000000ull

typedef struct Guest {
    uint64_t direct;
    int levels;
    unsigned vcpus;
    uint64_t root;
} Guest;

extern Guest guest;

/* Tables of the default mappings; between this and guest_boot() more can be
 * made. */
void guest_prepare(int levels);
void guest_map(uint64_t va, uint64_t gpa, int level, uint64_t bits);
/* Install with `options` (NULL: none beside those needed); every vCPU comes
 * online. */
void guest_boot(unsigned vcpus, const char *options);
/* vCPUs exist and have their registers, but have accessed nothing. */
void guest_install(unsigned vcpus, const char *options);
void guest_come_online(unsigned vcpu);
/* prepare, boot. */
void guest_start(unsigned vcpus);

static inline uint64_t at(uint64_t gpa)
{
    return guest.direct + gpa;
}

/* One instruction; its first callback's return value is fake_exec()'s. */
FakeInsn *guest_insn(size_t length, const uint8_t *bytes);
#define INSN(...) guest_insn(sizeof((const uint8_t[]){__VA_ARGS__}), (const uint8_t[]){__VA_ARGS__})

void guest_store(unsigned vcpu, uint64_t va, unsigned bytes);
void guest_load(unsigned vcpu, uint64_t va, unsigned bytes);
/* An 8-byte store of `value` by the direct map. */
void guest_write(unsigned vcpu, uint64_t gpa, uint64_t value);
void guest_clflush(unsigned vcpu, uint64_t va);
void guest_clwb(unsigned vcpu, uint64_t va);
void guest_clflush_range(unsigned vcpu, uint64_t va, uint64_t bytes);
void guest_wbinvd(unsigned vcpu);
void guest_invlpg(unsigned vcpu, uint64_t va);
void guest_write_cr3(unsigned vcpu, uint64_t value);
void guest_write_cr4(unsigned vcpu, uint64_t value);
void guest_flush_global(unsigned vcpu); /* the CR4.PGE pair */
void guest_invpcid(unsigned vcpu, unsigned type, uint16_t pcid, uint64_t va);

/* Address of the entry of `level` that maps va, by the tables as they are. */
uint64_t guest_slot(uint64_t va, int level);
uint64_t guest_entry(uint64_t slot);
/* Take the leaf of va away; guest_set_shared() brings it back. */
void guest_unmap(unsigned vcpu, uint64_t va, int level);
/* Store the leaf of va again with another shared bit. */
void guest_set_shared(unsigned vcpu, uint64_t va, int level, bool shared);

/* Registers are set before. Returns RAX. */
uint64_t guest_tdcall(unsigned vcpu, uint64_t leaf);
/* RAX must be 0; returns R10. */
uint64_t guest_vmcall(unsigned vcpu, uint64_t r10, uint64_t r11, uint64_t r12, uint64_t r13);
uint64_t guest_map_gpa(unsigned vcpu, uint64_t gpa, uint64_t bytes, bool to_shared);
uint64_t guest_accept(unsigned vcpu, uint64_t gpa, unsigned level);

/* Events since the last guest_forget() that are neither stacks nor counters. */
size_t guest_events(void);
const EventRecord *guest_event(size_t i);
size_t guest_count(EventKind kind);
/* The last of a kind; fails when there is none. */
const EventRecord *guest_last(EventKind kind);
/* How many words of stack follow the last event that is no stack. */
size_t guest_stack_words(void);
void guest_forget(void);
/* Run a whole correct conversion of [gpa, gpa + bytes) of the small pages, as
 * Linux 6.12 does. */
void guest_convert(unsigned vcpu, uint64_t gpa, uint64_t bytes, bool to_shared);
/* Converts one page; a bit per line that was found dirty under the old key. */
uint64_t guest_dirty(uint64_t gpa, bool to_shared);

#endif

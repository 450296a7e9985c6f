/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stub's one state, and what its parts offer each other. */
#ifndef TDH_STUB_H
#define TDH_STUB_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "fault.h"
#include "gone.h"
#include "insn.h"
#include "page.h"
#include "pending.h"
#include "pgtable.h"
#include "qemu_api.h"
#include "stream.h"
#include "vcpu.h"

typedef struct Faults Faults;

typedef struct Stub {
    GMutex lock; /* guards pending, gone, tables, stream and page owners; never the fast path */
    Memory memory;
    PendingSet pending;
    GoneSet gone;
    Tables tables;
    Stream stream;
    Vcpu *vcpus;
    unsigned vcpu_count;
    bool track;  /* accesses and invalidations; off to measure what they cost */
    bool single; /* all vCPUs share one thread: never sleep */
    uint64_t td_ctls;
    Faults *faults;  /* inject.h; NULL without the option */
    struct Odd *odd; /* odd.h; NULL without the option */
} Stub;

extern Stub stub;

/* track.c: accesses. The pc of the instruction is the callbacks' data. */
void track_load(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc);
void track_store(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc);
/* For instructions that may access more than 8 bytes at once. */
void track_load_wide(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc);
void track_store_wide(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *pc);
/* A cache flush instruction on the line at va. */
void track_flush_line(Vcpu *v, uint64_t va, bool drop, uint64_t pc);
/* Under the lock: emit what vCPUs still owe in [gpa, gpa + bytes) at the commit of a conversion. */
void track_commit_to_shared(Vcpu *v, uint64_t gpa, uint64_t bytes, uint64_t pc);
/* Under the lock: these vCPUs owe the invalidation after all. */
void track_owe(const Pending *entry, uint64_t owing);
/* Owners changed: every vCPU translates anew. */
void track_void_all(void);
/* Under the lock: forget invalidations that nobody owes. */
void track_sweep(void);

/* flush.c: cache and translation instructions. */
typedef struct Site {
    Insn insn;
    uint64_t pc;
} Site;
VcpuCallback flush_callback(InsnKind kind);
/* Before the first instruction of a page below 1 MiB, where INIT and SIPI start a vCPU: in real
   mode it holds no translation, and its control registers are new. */
void flush_restart(unsigned vcpu, void *unused);
/* The vCPU executes nothing until it is started anew, so it owes nothing. */
void flush_park(Vcpu *v);

/* tdcall.c, vmcall.c */
typedef struct Call {
    Vcpu *vcpu;
    uint64_t pc;
    uint64_t rax; /* the status that the handler leaves */
    uint32_t flags;
} Call;
void tdcall_emulate(Vcpu *v, uint64_t pc);
void vmcall_emulate(Call *call);
/* convert.c: under the lock, the range changes hands; the record's sequence number. */
uint64_t convert_range(Call *call, uint64_t gpa, uint64_t bytes, bool to_shared);
/* stack.c */
/* The vCPU runs the callback: at most `most` words of its stack that look like return addresses. */
size_t stub_stack(Vcpu *v, uint64_t *words, size_t most);
/* Under the lock: the record, then the stack of the vCPU that runs the callback. */
uint64_t stub_emit_with_stack(Vcpu *v, EventRecord *record);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event stream: what the stub saw and did, as fixed records.  harness/events.py holds the
 * same schema; tests/unit/test_events_schema.py compiles this header and compares the two.
 *
 * A stream is one header, any number of records, and one trailer record.  No trailer, or a
 * trailer that disagrees with the records before it, means that the stream was cut.
 */
#ifndef TDH_EVENTS_H
#define TDH_EVENTS_H

#include <stdint.h>

#define EVENT_MAGIC "TDHEVENT"
#define EVENT_VERSION 1

typedef struct EventHeader {
    char magic[8];
    uint32_t version;
    uint32_t record_size;
    uint32_t vcpus;
    uint32_t gpaw;
    uint64_t ram_below_4g;
    uint64_t ram_above_4g;
    uint64_t reserved[3];
} EventHeader;

typedef struct EventRecord {
    uint64_t seq;
    uint16_t kind;
    uint16_t vcpu;
    uint32_t flags;
    uint64_t pc;
    uint64_t arg[5];
} EventRecord;

/* Arguments are listed in order; those not listed are zero. */
typedef enum EventKind {
    EV_MARK = 1,       /* mark (1 begin, 2 end), id */
    EV_TDCALL = 2,     /* leaf, RCX, RDX, R8, status */
    EV_VMCALL = 3,     /* R11 in, R12, R13, R10 out, R11 out */
    EV_CONVERT = 4,    /* gpa, bytes, R10 out, dirty lines, flushed << 32 | flushed again */
    EV_DIRTY_RUN = 5,  /* gpa of the first line, lines, pc of the store, its vcpu, seq of convert */
    EV_STALE = 6,      /* gva, gpa, bytes of the leaf, seq of the PTE change */
    EV_PTE_CHANGE = 7, /* gva, gpa, old PTE, new PTE, bytes of the leaf; new PTE 0: taken away
                          before, and told when its range becomes shared */
    EV_WRONG_ALIAS = 8, /* gva, gpa, page state */
    EV_UNACCEPTED = 9,  /* gva, gpa, page state */
    EV_ACCEPT = 10,     /* gpa, level, status, page state before */
    EV_STACK = 11,      /* up to five words of the stack that look like return addresses;
                           belongs to the record before it that is no EV_STACK */
    EV_CACHE_ALL = 12,  /* opcode: 0x08 INVD, 0x09 WBINVD or WBNOINVD */
    EV_COUNTER = 13,    /* counter, value */
    EV_FAULT = 14,      /* an action of the guest was ignored: number of the fault, gpa, bytes,
                           lines of each page or vCPUs as a bit mask, seq of the conversion */
    EV_VMM = 15,        /* the VMM misbehaved at a MapGPA: pages converted << 32 | behaviour, gpa,
                           bytes asked for, R10 given, R11 given; the EV_CONVERT of what was
                           converted comes next */
    EV_POISON = 16,     /* lines dirty under the shared key were written back to a private page: gpa
                           of the page, lines as a bit mask, seq of the convert */
    EV_POISON_READ = 17, /* gva, gpa, what came of it, seq of the convert */
    EV_DISOWNED = 20,    /* access to a page whose conversion failed: gva, gpa, page state, seq of
                            the EV_VMM */
    EV_TRAILER = 0xffff  /* records before this one, CRC-32 of them */
} EventKind;

typedef enum EventFlag {
    EF_TO_SHARED = 1 << 0, /* convert, stale, PTE change, fault: the new state is shared */
    EF_BAD = 1 << 1,       /* tdcall, vmcall, convert, accept: operands break the contract */
    EF_UNKNOWN = 1 << 2,   /* tdcall, vmcall: no such leaf or function */
    EF_SHARED = 1 << 3,    /* access went through a shared mapping */
    EF_WRITE = 1 << 4,     /* access was a store */
    EF_CACHE = 1 << 5,     /* access was a cache flush instruction */
    EF_USED = 1 << 6,      /* stale: the translation was used (otherwise: not invalidated) */
    EF_GLOBAL = 1 << 7,    /* stale, PTE change: the mapping is global */
    EF_AWAY = 1 << 8       /* PTE change: nothing was mapped in between */
} EventFlag;

typedef enum EventCounter {
    CNT_CLFLUSH = 1,
    CNT_INVLPG = 2,
    CNT_FLUSH_NONGLOBAL = 3,
    CNT_FLUSH_ALL = 4,
    CNT_HLT = 5,
    CNT_WALK = 6,
    CNT_VMCALL_IO = 7,
    CNT_PT_STORE = 8
} EventCounter;

/* Bits of the page state in EV_WRONG_ALIAS, EV_UNACCEPTED and EV_ACCEPT. */
typedef enum PageState { PAGE_SHARED = 1 << 0, PAGE_PENDING = 1 << 1 } PageState;

/* In EV_VMM; vmm.h says what each does. */
typedef enum VmmBehaviour {
    VMM_RETRY = 1,
    VMM_STUCK = 2,
    VMM_BELOW = 3,
    VMM_ABOVE = 4,
    VMM_ERROR = 5,
    VMM_SHORT = 6,
    VMM_SLOW = 7,
    VMM_CACHE = 8,
    VMM_EPT = 9
} VmmBehaviour;

/* In EV_POISON_READ: who finds the poison that the guest read. */
typedef enum PoisonAction {
    POISON_TD_DEAD = 0,   /* the TD never runs again, the host logs a machine check */
    POISON_GUEST_MCE = 1, /* the guest takes the machine check */
    POISON_HOST_CRASH = 2
} PoisonAction;

#endif

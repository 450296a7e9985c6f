/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults to be injected, by name: which guest action the stub ignores, and at which conversion;
 * pure. inject.c does it. harness/faults.py writes the option:
 *
 *   FAULT[+FAULT...], FAULT = ACTION[/KEY=VALUE...]
 *
 *   ACTION        cache | tlb | accept | mapgpa: whose effect is lost
 *   to=           shared | private: conversions of this direction
 *   part=         of the range (see FaultPart); cache takes all, the others none that are of lines
 *   who=          all | self | others, vcpu=N: whose invalidations are lost (tlb)
 *   globals=kept  whole flushes spare global entries, single invalidations work (tlb)
 *   index=N       the N-th conversion that the rest picks, from 1; 0: each of them
 *   min=, max=    bytes of the conversion
 *   at=A-B        the conversion overlaps [A, B) of guest memory
 *   caller=A-B    a return address in [A, B) is on the stack; tdcall=C-D, the function that the
 *                 call is made in, tells by how much KASLR has moved the kernel since it was linked
 *   mark=ID       only between the guest's marks of this id
 */
#ifndef TDH_FAULT_H
#define TDH_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_FAULTS 64

typedef enum FaultAction { FAULT_CACHE, FAULT_TLB, FAULT_ACCEPT, FAULT_MAPGPA } FaultAction;

typedef enum FaultPart {
    PART_ALL,
    PART_FIRST_PAGE,
    PART_MIDDLE_PAGE,
    PART_LAST_PAGE,
    PART_SECOND_HALF,
    /* from here on lines, for the cache only */
    PART_FIRST_LINE,
    PART_MIDDLE_LINE,
    PART_LAST_LINE,
    PART_SECOND_LINES, /* every second line */
    PART_LINE_PER_PAGE /* line N % 64 of the N-th page */
} FaultPart;

typedef enum FaultWho { WHO_ALL, WHO_SELF, WHO_OTHERS, WHO_VCPU } FaultWho;

/* Addresses [start, end); empty: not asked for. */
typedef struct FaultRange {
    uint64_t start, end;
} FaultRange;

typedef struct Fault {
    unsigned number; /* place in the option, from 1 */
    FaultAction action;
    FaultPart part;
    FaultWho who;
    uint64_t vcpu;
    bool to_shared, keep_globals;
    uint64_t index, min, max, mark;
    FaultRange at, caller, tdcall;
    bool active;   /* between its marks, or without any */
    uint64_t seen; /* conversions that matched, since it became active */
} Fault;

typedef struct FaultSet {
    Fault fault[MOST_FAULTS];
    unsigned count;
} FaultSet;

/* A MapGPA that is about to succeed. */
typedef struct FaultCall {
    uint64_t gpa, bytes, pc;
    bool to_shared;
    unsigned vcpu;
    const uint64_t *stack; /* words of it that may be return addresses */
    size_t words;
} FaultCall;

/* False when the text is no list of faults. */
bool fault_parse(FaultSet *set, const char *text);

/* Whether the fault picks this call; counts it. */
bool fault_picks(Fault *fault, const FaultCall *call);

/* Lines, as a bit mask, of the page at `page` inside [gpa, gpa + bytes). */
uint64_t fault_lines(FaultPart part, uint64_t gpa, uint64_t bytes, uint64_t page);
/* The pages of a part that is not of lines. */
FaultRange fault_pages(FaultPart part, uint64_t gpa, uint64_t bytes);
/* A bit per vCPU of `running`; `self` made the conversion. */
uint64_t fault_vcpus(const Fault *fault, unsigned self, uint64_t running);

/* The guest set a mark; returns whether a fault became active or ceased to be. */
bool fault_mark(FaultSet *set, bool begins, uint64_t id);

#endif

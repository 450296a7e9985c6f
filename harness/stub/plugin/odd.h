/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages that a misbehaving VMM left in an odd state, and what follows for who touches them. Only
 * with the option vmm= (stub.odd is not NULL); such pages carry PAGE_ODD, which leads their
 * accesses to the slow path.
 */
#ifndef TDH_ODD_H
#define TDH_ODD_H

#include "track.h"
#include "vmm.h"

typedef struct OddPage {
    uint64_t failed;   /* sequence number of the EV_VMM that answered its MapGPA; 0: none */
    uint64_t held;     /* lines dirty under the shared key, in a cache that was not flushed */
    uint64_t poisoned; /* lines that such a write-back has met */
    uint64_t convert;  /* sequence number of the conversion that left them */
    uint64_t due;      /* write back when the stream is that long; 0: not accepted yet */
    const VmmRule *rule;
} OddPage;

typedef struct Odd {
    VmmSet vmm;
    GHashTable *pages; /* number of the page to OddPage */
    unsigned due;      /* pages with a due time */
    PoisonAction action;
    bool over; /* the TD is dead */
} Odd;

/* What is kept of a page; NULL: nothing. */
OddPage *odd_find(uint64_t gpa);
/* Of [gpa, end), which may be larger than memory, the pages that exist. */
void odd_each(uint64_t gpa, uint64_t end, void (*visit)(uint64_t gpa, Page *page, void *data),
              void *data);

/* False when the text is no list of rules (vmm.h). */
bool odd_setup(const char *option);

/*
 * A MapGPA with good operands, answered and carried out. Takes the lock. r11 is the guest's, with
 * the shared bit as in R12 when it is an address.
 */
typedef struct OddReply {
    uint64_t r10, r11;
} OddReply;
OddReply odd_map_gpa(Call *call, uint64_t gpa, uint64_t bytes, bool to_shared, uint64_t r11);

/* The others are called under the lock. */
void odd_accepted(uint64_t gpa, uint64_t bytes);
void odd_mark(bool begins, uint64_t id);
/* A TDCALL ended: what was due by now is written back. */
void odd_tick(void);

/* An access to a page with PAGE_ODD; whether odd_end() must follow, without the lock. */
bool odd_look(const Access *access, Page *page, bool shared);
/* Somebody read poison. */
void odd_end(void);

#endif

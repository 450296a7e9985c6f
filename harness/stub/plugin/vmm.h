/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the VMM misbehaves at a MapGPA, by name, and at which one; pure. odd.c does it.
 * harness/vmm.py writes the option:
 *
 *   RULE[+RULE...], RULE = KIND[/KEY=VALUE...]; of those that match a call the first counts
 *
 *   retry    RETRY behind every chunk= bytes, converted so far
 *   stuck    RETRY at the call's own address, nothing converted; times=N times, 0: for ever
 *   below    RETRY at the page below the range, nothing converted
 *   above    RETRY at the end of the range, nothing converted
 *   error    R10 is status=, after done= pages
 *   short    success, and only done= pages are converted
 *   slow     the answer takes ms= milliseconds
 *   cache    to private: lines dirty under the shared key are not flushed; they are written back
 *            after=N records behind the page's ACCEPT (0: at once), and poison their lines; who
 * reads one then, on= td-dead | guest-mce | host-crash ept      a guest-physical mapping of the old
 * state is kept
 *
 *   to=      shared | private: conversions of this direction only
 *   index=N  the N-th conversion that the rest picks, from 1; 0: each of them
 *   min=, max=  bytes of the conversion
 *   mark=ID  only between the guest's marks of this id
 *   boot=on  before the guest's first mark as well
 */
#ifndef TDH_VMM_H
#define TDH_VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "events.h"

enum { MOST_VMM_RULES = 32, MOST_VMM_CHAINS = 32 };

#define VMM_SUCCESS 0ull
#define VMM_RETRY_STATUS 1ull

typedef struct VmmRule {
    VmmBehaviour behaviour;
    uint64_t chunk, times, status, done, ms, after;
    PoisonAction on;
    bool any_direction, to_shared, boot;
    uint64_t index, min, max, mark;
    bool active;   /* between its marks */
    uint64_t seen; /* conversions that matched */
} VmmRule;

/* A conversion that the guest makes in several calls: it was told to ask again. */
typedef struct VmmChain {
    uint64_t start, end;
    bool to_shared;
    const VmmRule *rule; /* NULL: free */
    uint64_t told;       /* answers without progress */
} VmmChain;

typedef struct VmmSet {
    VmmRule rule[MOST_VMM_RULES];
    unsigned count;
    VmmChain chain[MOST_VMM_CHAINS];
    unsigned next_chain;
    bool marked; /* the guest has set a mark: its boot is over */
} VmmSet;

typedef struct VmmCall {
    uint64_t gpa, bytes;
    bool to_shared;
} VmmCall;

typedef struct VmmAnswer {
    const VmmRule *rule; /* NULL: the VMM does as it should */
    uint64_t r10;
    uint64_t next;  /* gpa for R11 when R10 is RETRY */
    uint64_t done;  /* bytes that change hands */
    uint64_t start; /* of the conversion that this call goes on with */
    bool first;     /* no part of it was answered before */
} VmmAnswer;

/* False when the text is no list of rules. */
bool vmm_parse(VmmSet *set, const char *text);
VmmAnswer vmm_choose(VmmSet *set, const VmmCall *call);
/* The guest set a mark. */
void vmm_mark(VmmSet *set, bool begins, uint64_t id);

#endif

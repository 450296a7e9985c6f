/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The faults of fault.h, done to the model: an action of the guest is lost, and the guest is told
 * that it worked. All but inject_setup() and inject_cleaned() under the stub's lock, and only while
 * stub.faults is set: without the option nothing is allocated and nothing is asked.
 *
 * A private-to-shared conversion is judged at its MapGPA, behind all that may be lost: what was
 * flushed and invalidated is kept in mind until then, and taken back. Shared to private the MapGPA
 * comes first: what is to be lost later is armed there.
 */
#ifndef TDH_INJECT_H
#define TDH_INJECT_H

#include "stub.h"

/* A PTE change to shared whose conversion is not committed yet. */
typedef struct Flipped {
    Pending entry;    /* as it was at the change */
    uint64_t by_page; /* vCPUs that invalidated it by its address since */
} Flipped;

/* Something is to be lost behind a MapGPA to private. */
typedef struct Armed {
    Fault *fault;
    FaultRange pages;
    uint64_t seq; /* of the conversion */
    unsigned vcpu;
} Armed;

struct Faults {
    FaultSet set;
    uint64_t *cleaned; /* per page: lines that a flush cleaned since the last conversion */
    GArray *flipped, *armed;
    GArray *records;   /* EV_FAULTs of the MapGPA that is being done */
    guint first_armed; /* of that MapGPA */
    GArray *lost;      /* addresses of pages whose ACCEPT was lost */
};

/* False when the option's text is bad, or there is no memory. */
bool inject_setup(const char *text);

/* A line that was dirty under the private key was flushed. */
void inject_cleaned(const Page *page, unsigned line);
/* The guest set a mark: faults become active, or what they left behind is made good. */
void inject_mark(bool begins, uint64_t id);
/* A PTE change, about to be added: what is armed for it goes into the entry. */
void inject_flip(Pending *entry);
void inject_invalidated_page(unsigned vcpu, uint64_t gva);
/* A MapGPA is about to be done: which pages of it must not change hands (none: an empty range). */
FaultRange inject_map_gpa(Vcpu *v, uint64_t gpa, uint64_t bytes, bool to_shared, uint64_t pc);
/* It was recorded as `seq`. */
void inject_converted(uint64_t gpa, uint64_t bytes, uint64_t seq);
/* [gpa, gpa + bytes) was accepted, and that was recorded. */
void inject_accepted(const Vcpu *v, uint64_t gpa, uint64_t bytes);

/* Between inject.c and armed.c. */
void inject_record(const Fault *fault, unsigned vcpu, FaultRange pages, uint64_t what);
void inject_emit(uint64_t seq);
/* A PTE change to shared that may be asked for at its MapGPA. */
void inject_remember(const Pending *entry);
void inject_arm(Fault *fault, const FaultCall *call);
void inject_disarm(FaultRange pages);

static inline bool inject_overlaps(const Pending *entry, FaultRange pages)
{
    return entry->gpa < pages.end && pages.start < entry->gpa + entry->bytes;
}

#endif

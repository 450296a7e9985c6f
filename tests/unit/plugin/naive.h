/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model of harness/testing/reference.py once more, as plain and for millions of steps: arrays
 * of flags and loops over all of them. It shares no code with the plugin.
 */
#ifndef TDH_NAIVE_H
#define TDH_NAIVE_H

#include <stdbool.h>
#include <stddef.h>

enum { NAIVE_VCPUS = 2, NAIVE_PAGES = 3, NAIVE_NUMBERS = 4, NAIVE_FACTS = 512 };

/* A letter of reference.py, the vCPU, and what the letter takes. */
typedef struct Step {
    char letter;
    unsigned vcpu;
    unsigned n[NAIVE_NUMBERS];
} Step;

/* As facts_of() of reference.py gives them: the first letter of its name, the vCPU, the rest. */
typedef struct Fact {
    char kind;
    unsigned vcpu;
    unsigned long long n[6];
} Fact;

typedef struct Facts {
    size_t count;
    Fact fact[NAIVE_FACTS];
} Facts;

void naive_start(void);
/* Whether every page of the access is mapped; what is not would fault. */
bool naive_is_mapped(unsigned mapping, unsigned page, unsigned offset, unsigned bytes);
/* `facts` gets what the step tells. */
void naive_step(const Step *step, Facts *facts);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random sequences of steps on the fake machine: see harness/testing/reference.py. */
#ifndef TDH_RANDOM_H
#define TDH_RANDOM_H

#include "naive.h"

/* A machine with two mappings of the pages, ready for steps. */
void random_start(void);
void random_step(const Step *step);
/* Mapping 0 is the direct map's, which is global; mapping 1 is not. Both begin as private. */
#define SECOND (256 * GIB)

#endif

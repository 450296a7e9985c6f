/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The smallest thing that makes a C test fail loudly. */
#ifndef TDH_CHECK_H
#define TDH_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK_EQ(got, want)                                                                        \
    do {                                                                                           \
        uint64_t got_ = (uint64_t)(got), want_ = (uint64_t)(want);                                 \
        if (got_ != want_) {                                                                       \
            fprintf(stderr, "%s:%d: %s is %#" PRIx64 ", not %#" PRIx64 "\n", __FILE__, __LINE__,   \
                    #got, got_, want_);                                                            \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#endif

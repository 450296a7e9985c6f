/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the whole plugin: each runs in a process of its own, with the plugin not yet loaded. */
#ifndef TDH_WHOLE_H
#define TDH_WHOLE_H

#include <stdint.h>

void whole_add(const char *name, void (*test)(void));
/* Run the sequences that the file of this number holds, one a line (whole_random.c). */
int whole_random(int fd);
/* whole_fast.c: compare the plugin with the naive model on sequences of random steps, numbered from
   `first`; or print the steps of one, as whole_random() reads them. The model does not see steps of
   the letter `left_out`, which is how a test makes sure that a difference is found. */
int whole_fast(uint64_t first, unsigned sequences, unsigned length, char left_out);
int whole_steps(uint64_t number, unsigned length);

/* tests/unit/test_plugin_whole.py finds the names by this word at the start of a line. */
#define TEST(name)                                                                                 \
    static void name(void);                                                                        \
    static __attribute__((constructor)) void add_##name(void)                                      \
    {                                                                                              \
        whole_add(#name, name);                                                                    \
    }                                                                                              \
    static void name(void)

#endif

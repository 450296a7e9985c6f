/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the whole plugin: each runs in a process of its own, with the plugin not yet loaded. */
#ifndef TDH_WHOLE_H
#define TDH_WHOLE_H

void whole_add(const char *name, void (*test)(void));
/* Run the sequences that the file of this number holds, one a line (whole_random.c). */
int whole_random(int fd);

/* tests/unit/test_plugin_whole.py finds the names by this word at the start of a line. */
#define TEST(name)                                                                                 \
    static void name(void);                                                                        \
    static __attribute__((constructor)) void add_##name(void)                                      \
    {                                                                                              \
        whole_add(#name, name);                                                                    \
    }                                                                                              \
    static void name(void)

#endif

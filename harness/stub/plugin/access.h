/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which memory accesses of an instruction have to be watched; pure. */
#ifndef TDH_ACCESS_H
#define TDH_ACCESS_H

#include <stddef.h>
#include <stdint.h>

enum {
    ACCESS_LOAD = 1 << 0,
    ACCESS_STORE = 1 << 1,
    ACCESS_WIDE = 1 << 2, /* may be of more than 8 bytes */
    ACCESS_PUSH = 1 << 3, /* PUSH of a register: stores 8 bytes below the push before it */
    ACCESS_ANY = ACCESS_LOAD | ACCESS_STORE | ACCESS_WIDE
};

/* A run of pushes is contiguous: with one in so many watched, every line of it is seen. */
#define PUSHES_PER_LINE 8

/*
 * Loads are left out where a watched store speaks for them: the load of a read-modify-write (the
 * store goes to the same address), and loads from the stack, which are POP, RET, LEAVE and what is
 * addressed by RSP (the slot was stored to through the same linear address before). What is not
 * known here counts as ACCESS_ANY.
 */
unsigned insn_access(const uint8_t *bytes, size_t length);

#endif

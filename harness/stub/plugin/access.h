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
    ACCESS_ANY = ACCESS_LOAD | ACCESS_STORE | ACCESS_WIDE
};

/*
 * Two loads are left out because a watched store speaks for them: the load of a read-modify-write
 * (the store goes to the same address), and the load of POP, RET and LEAVE (the slot was stored to
 * through the same linear address before). What is not known here counts as ACCESS_ANY.
 */
unsigned insn_access(const uint8_t *bytes, size_t length);

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "access.h"

#include <stdbool.h>

enum {
    NONE = 0,
    L = ACCESS_LOAD,
    S = ACCESS_STORE,
    P = ACCESS_STORE | ACCESS_PUSH,
    LS = L | S,
    M = 1 << 4,     /* the access is ModRM's: none when that names a register */
    GROUP = 1 << 5, /* the ModRM's reg field decides */
    KNOWN = 1 << 6,
};

#define RANGE(first, last, what) [first... last] = KNOWN | (what)
#define ONE(opcode, what) [opcode] = KNOWN | (what)
/* ADD, OR, ADC, SBB, AND, SUB, XOR: to memory, from memory, immediate. */
#define ARITHMETIC(base)                                                                           \
    RANGE(base, base + 1, M | S), RANGE(base + 2, base + 3, M | L), RANGE(base + 4, base + 5, NONE)

/* SDM volume 2, table A-2. */
static const uint8_t one_byte[256] = {
    ARITHMETIC(0x00),
    ARITHMETIC(0x08),
    ARITHMETIC(0x10),
    ARITHMETIC(0x18),
    ARITHMETIC(0x20),
    ARITHMETIC(0x28),
    ARITHMETIC(0x30),
    RANGE(0x38, 0x3b, M | L),
    RANGE(0x3c, 0x3d, NONE),
    RANGE(0x50, 0x57, P),
    RANGE(0x58, 0x5f, NONE),
    ONE(0x63, M | L),
    ONE(0x68, S),
    ONE(0x69, M | L),
    ONE(0x6a, S),
    ONE(0x6b, M | L),
    RANGE(0x70, 0x7f, NONE),
    RANGE(0x80, 0x81, M | GROUP),
    ONE(0x83, M | GROUP),
    RANGE(0x84, 0x85, M | L),
    RANGE(0x86, 0x89, M | S),
    RANGE(0x8a, 0x8b, M | L),
    ONE(0x8d, NONE),
    RANGE(0x90, 0x99, NONE),
    ONE(0x9c, S),
    ONE(0x9d, NONE),
    RANGE(0xa0, 0xa1, L),
    RANGE(0xa2, 0xa3, S),
    RANGE(0xa4, 0xa5, LS),
    RANGE(0xa6, 0xa7, L),
    RANGE(0xa8, 0xa9, NONE),
    RANGE(0xaa, 0xab, S),
    RANGE(0xac, 0xaf, L),
    RANGE(0xb0, 0xbf, NONE),
    RANGE(0xc0, 0xc1, M | S),
    RANGE(0xc2, 0xc3, NONE),
    RANGE(0xc6, 0xc7, M | S),
    ONE(0xc9, NONE),
    RANGE(0xd0, 0xd3, M | S),
    RANGE(0xe0, 0xe7, NONE),
    ONE(0xe8, S),
    ONE(0xe9, NONE),
    RANGE(0xeb, 0xef, NONE),
    RANGE(0xf4, 0xf5, NONE),
    RANGE(0xf6, 0xf7, M | GROUP),
    RANGE(0xf8, 0xfd, NONE),
    ONE(0xfe, M | S),
    ONE(0xff, M | GROUP),
};

/* Table A-3, behind 0f. */
static const uint8_t two_byte[256] = {
    ONE(0x0d, NONE),          ONE(0x18, NONE),          ONE(0x1e, NONE),
    ONE(0x1f, NONE),          RANGE(0x30, 0x33, NONE),  RANGE(0x40, 0x4f, M | L),
    RANGE(0x80, 0x8f, NONE),  RANGE(0x90, 0x9f, M | S), ONE(0xa2, NONE),
    ONE(0xa3, M | L),         RANGE(0xa4, 0xa5, M | S), ONE(0xab, M | S),
    RANGE(0xac, 0xad, M | S), ONE(0xaf, M | L),         RANGE(0xb0, 0xb1, M | S),
    ONE(0xb3, M | S),         RANGE(0xb6, 0xb8, M | L), ONE(0xba, M | GROUP),
    ONE(0xbb, M | S),         RANGE(0xbc, 0xbf, M | L), RANGE(0xc0, 0xc1, M | S),
    ONE(0xc3, M | S),         RANGE(0xc8, 0xcf, NONE),
};

/* Opcodes whose reg field decides: SDM volume 2, table A-6. */
static unsigned group_access(uint8_t opcode, uint8_t modrm)
{
    unsigned reg = modrm >> 3 & 7;
    bool is_register = modrm >= 0xc0;

    switch (opcode) {
    case 0xff: /* INC DEC CALL CALLF JMP JMPF PUSH */
        if (reg == 3 || reg == 5 || reg == 7) {
            return ACCESS_ANY;
        }
        if (reg == 2 || reg == 6) {
            return is_register ? S : LS;
        }
        return is_register ? NONE : reg == 4 ? L : S;
    case 0xf6: /* TEST TEST NOT NEG MUL IMUL DIV IDIV */
    case 0xf7:
        return is_register ? NONE : reg == 2 || reg == 3 ? S : L;
    case 0xba: /* BT BTS BTR BTC */
        return is_register ? NONE : reg == 4 ? L : S;
    default: /* 80, 81, 83: the seventh is CMP */
        return is_register ? NONE : reg == 7 ? L : S;
    }
}

/* ModRM with a SIB byte whose base is RSP. */
static bool is_on_stack(uint8_t rex, uint8_t modrm, uint8_t sib)
{
    return modrm < 0xc0 && (modrm & 7) == 4 && (sib & 7) == 4 && !(rex & 1);
}

static bool is_prefix(uint8_t byte)
{
    return byte == 0x66 || byte == 0x67 || byte == 0xf0 || byte == 0xf2 || byte == 0xf3 ||
           byte == 0x2e || byte == 0x36 || byte == 0x3e || byte == 0x26 || byte == 0x64 ||
           byte == 0x65;
}

unsigned insn_access(const uint8_t *bytes, size_t length)
{
    const uint8_t *table = one_byte;
    size_t at = 0;
    uint8_t opcode, modrm, sib, entry, rex = 0;

    while (at < length && is_prefix(bytes[at])) {
        at++;
    }
    if (at < length && (bytes[at] & 0xf0) == 0x40) {
        rex = bytes[at++];
    }
    if (at < length && bytes[at] == 0x0f) {
        table = two_byte;
        at++;
    }
    if (at >= length) {
        /* A lone 40..4f: INC or DEC of a register in 16- and 32-bit code. */
        return length ? NONE : ACCESS_ANY;
    }
    opcode = bytes[at];
    modrm = at + 1 < length ? bytes[at + 1] : 0;
    sib = at + 2 < length ? bytes[at + 2] : 0;
    entry = table[opcode];
    if (!(entry & KNOWN)) {
        return ACCESS_ANY;
    }
    if (entry & GROUP) {
        return group_access(opcode, modrm);
    }
    if (entry & M && (modrm >= 0xc0 || (!(entry & S) && is_on_stack(rex, modrm, sib)))) {
        return NONE;
    }
    return entry & (LS | ACCESS_PUSH);
}

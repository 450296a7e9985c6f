/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "insn.h"

#include <string.h>

typedef struct Cursor {
    const uint8_t *bytes;
    size_t length, at;
} Cursor;

typedef struct Prefixes {
    bool opsize, addrsize, rep, repne;
    Segment segment;
    uint8_t rex;
} Prefixes;

/* Bytes behind the end read as zero: every caller checks what it decoded, not where. */
static uint8_t peek(const Cursor *c, size_t ahead)
{
    return c->at + ahead < c->length ? c->bytes[c->at + ahead] : 0;
}

static int64_t take_signed(Cursor *c, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)peek(c, i) << (8 * i);
    }
    c->at += size;
    return size == 1 ? (int8_t)value : (int32_t)value;
}

static Prefixes take_prefixes(Cursor *c)
{
    Prefixes p = {0};

    for (;; c->at++) {
        uint8_t byte = peek(c, 0);

        switch (byte) {
        case 0x66:
            p.opsize = true;
            break;
        case 0x67:
            p.addrsize = true;
            break;
        case 0xf2:
            p.repne = true;
            break;
        case 0xf3:
            p.rep = true;
            break;
        case 0x64:
            p.segment = SEG_FS;
            break;
        case 0x65:
            p.segment = SEG_GS;
            break;
        case 0x26: /* ES, CS, SS, DS: base zero in 64-bit mode */
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0xf0:
            break;
        default:
            /* REX counts only directly in front of the opcode. */
            if ((byte & 0xf0) == 0x40) {
                p.rex = byte;
                c->at++;
            }
            return p;
        }
    }
}

/* ModRM with a memory operand: SDM volume 2, tables 2-2 and 2-3. */
static void take_operand(Cursor *c, const Prefixes *p, uint64_t pc, Insn *insn)
{
    uint8_t modrm = peek(c, 0), mod = modrm >> 6, rm = modrm & 7;

    c->at++;
    insn->segment = p->segment;
    insn->addr32 = p->addrsize;
    insn->index = REG_NONE;
    insn->base = rm | (p->rex & 1) << 3;
    if (rm == 4) {
        uint8_t sib = peek(c, 0), index = (sib >> 3 & 7) | (p->rex & 2) << 2;

        c->at++;
        insn->scale = sib >> 6;
        insn->index = index == 4 ? REG_NONE : index;
        insn->base = (sib & 7) | (p->rex & 1) << 3;
        if ((sib & 7) == 5 && mod == 0) {
            insn->base = REG_NONE;
            insn->disp = take_signed(c, 4);
            return;
        }
    } else if (rm == 5 && mod == 0) {
        insn->base = REG_NONE;
        insn->disp = take_signed(c, 4);
        insn->disp += pc + c->at;
        return;
    }
    if (mod == 1) {
        insn->disp = take_signed(c, 1);
    } else if (mod == 2) {
        insn->disp = take_signed(c, 4);
    }
}

static InsnKind kind_0f01(uint8_t modrm, const Prefixes *p)
{
    if (modrm == 0xcc && p->opsize && !p->rep && !p->repne) {
        return INSN_TDCALL;
    }
    if (modrm == 0xc9 && !p->opsize && !p->rep && !p->repne) {
        return INSN_MWAIT;
    }
    return modrm < 0xc0 && (modrm >> 3 & 7) == 7 ? INSN_INVLPG : INSN_OTHER;
}

static InsnKind kind_0fae(uint8_t modrm, const Prefixes *p)
{
    uint8_t extension = modrm >> 3 & 7;

    if (modrm >= 0xc0 || p->rep || p->repne) {
        return INSN_OTHER;
    }
    if (extension == 7) {
        return INSN_CLFLUSH;
    }
    return extension == 6 && p->opsize ? INSN_CLWB : INSN_OTHER;
}

static void decode_0f(Cursor *c, const Prefixes *p, uint64_t pc, Insn *insn)
{
    uint8_t opcode = peek(c, 0), modrm = peek(c, 1);

    c->at++;
    switch (opcode) {
    case 0x01:
        insn->kind = kind_0f01(modrm, p);
        break;
    case 0x08:
        insn->kind = INSN_INVD;
        return;
    case 0x09:
        insn->kind = INSN_WBINVD;
        return;
    case 0x22:
        insn->kind = INSN_MOV_TO_CR;
        insn->cr = (modrm >> 3 & 7) | (p->rex & 4) << 1;
        insn->reg = (modrm & 7) | (p->rex & 1) << 3;
        return;
    case 0x38:
        if (modrm == 0x82 && p->opsize && peek(c, 1) < 0xc0) {
            c->at++;
            insn->kind = INSN_INVPCID;
            insn->reg = (peek(c, 0) >> 3 & 7) | (p->rex & 4) << 1;
        }
        break;
    case 0xa2:
        insn->kind = INSN_CPUID;
        return;
    case 0xae:
        insn->kind = kind_0fae(modrm, p);
        break;
    default:
        return;
    }
    if (insn->kind != INSN_OTHER && modrm < 0xc0) {
        take_operand(c, p, pc, insn);
    }
}

Insn insn_decode(const uint8_t *bytes, size_t length, uint64_t pc)
{
    Cursor c = {.bytes = bytes, .length = length};
    Prefixes p = take_prefixes(&c);
    Insn insn = {.kind = INSN_OTHER, .base = REG_NONE, .index = REG_NONE};

    if (peek(&c, 0) == 0x0f) {
        c.at++;
        decode_0f(&c, &p, pc, &insn);
    } else if (peek(&c, 0) == 0xf4) {
        c.at++;
        insn.kind = INSN_HLT;
    }
    if (c.at > length) {
        insn.kind = INSN_OTHER;
    }
    return insn;
}

bool insn_ends_with_call(const uint8_t *bytes, size_t length)
{
    if (length >= 5 && bytes[length - 5] == 0xe8) {
        return true;
    }
    /* FF /2 with a register, or with a SIB byte and a displacement of up to four bytes. */
    for (size_t size = 2; size <= 7 && size <= length; size++) {
        const uint8_t *insn = bytes + length - size;

        if (insn[0] == 0xff && (insn[1] >> 3 & 7) == 2) {
            return true;
        }
    }
    return false;
}

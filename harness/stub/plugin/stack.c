/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Words of the stack of the vCPU that runs a callback, for call traces. */
#include <string.h>

#include "stub.h"

#define KERNEL_TEXT 0xffffffff80000000ull
#define KERNEL_TEXT_END 0xffffffffff000000ull

static bool read_va(Vcpu *v, uint64_t va, void *data, size_t bytes)
{
    g_byte_array_set_size(v->buffer, 0);
    if (!qemu_plugin_read_memory_vaddr(va, v->buffer, bytes) || v->buffer->len != bytes) {
        return false;
    }
    memcpy(data, v->buffer->data, bytes);
    return true;
}

/* A word of the stack that points behind a CALL in the kernel's code. */
static bool is_return_address(Vcpu *v, uint64_t word)
{
    uint8_t before[7];

    return word >= KERNEL_TEXT && word < KERNEL_TEXT_END &&
           read_va(v, word - sizeof(before), before, sizeof(before)) &&
           insn_ends_with_call(before, sizeof(before));
}

size_t stub_stack(Vcpu *v, uint64_t *words, size_t most)
{
    enum { MOST_WORDS = 512 };
    uint64_t rsp = vcpu_get(v, RSP), word;
    size_t count = 0;

    for (int i = 0; i < MOST_WORDS && count < most; i++) {
        if (!read_va(v, rsp + 8 * i, &word, sizeof(word))) {
            break;
        }
        if (is_return_address(v, word)) {
            words[count++] = word;
        }
    }
    return count;
}

uint64_t stub_emit_with_stack(Vcpu *v, EventRecord *record)
{
    enum { MOST_KEPT = 40 };
    uint64_t seq = stream_put(&stub.stream, record), kept[MOST_KEPT];

    stream_put_stack(&stub.stream, v->index, kept, stub_stack(v, kept, MOST_KEPT));
    return seq;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vcpu.h"

#include <string.h>

#include "qemu_api.h"

static const char *const reg_names[REG_COUNT] = {
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp",    "rsi",     "rdi",     "r8",  "r9",  "r10", "r11",
    "r12", "r13", "r14", "r15", "cs",  "eflags", "fs_base", "gs_base", "cr0", "cr3", "cr4",
};

void vcpu_init(Vcpu *v, unsigned index)
{
    GArray *known = qemu_plugin_get_registers();

    v->index = index;
    v->newest[1] = 1;
    vcpu_void_xlate(v, true);
    memset(v->xlate, 0xff, sizeof(v->xlate));
    if (!v->buffer) {
        v->buffer = g_byte_array_new();
    }
    for (guint i = 0; i < known->len; i++) {
        qemu_plugin_reg_descriptor *d = &g_array_index(known, qemu_plugin_reg_descriptor, i);

        for (int r = 0; r < REG_COUNT; r++) {
            if (!strcmp(d->name, reg_names[r])) {
                v->reg[r] = d->handle;
            }
        }
    }
    g_array_free(known, TRUE);
    for (int r = 0; r < REG_COUNT; r++) {
        if (!v->reg[r]) {
            g_error("tdstub: this QEMU exposes no register named %s", reg_names[r]);
        }
    }
}

uint64_t vcpu_fresh_generation(Vcpu *v, bool global)
{
    uint64_t now = __atomic_load_n(&v->generation[global], __ATOMIC_ACQUIRE);

    if (now >> GENERATION_SHIFT != GENERATION_VOID + global) {
        return now;
    }
    if (v->newest[global] >= GENERATION_LAST) {
        /* Numbers run out: entries of old generations must not come to life again. */
        memset(v->xlate, 0xff, sizeof(v->xlate));
        v->newest[global] = GENERATION_VOID + global;
    }
    v->newest[global] += 2;
    now = v->newest[global] << GENERATION_SHIFT;
    __atomic_store_n(&v->generation[global], now, __ATOMIC_RELEASE);
    return now;
}

uint64_t vcpu_get(Vcpu *v, Reg reg)
{
    uint64_t value = 0;

    g_byte_array_set_size(v->buffer, 0);
    if (qemu_plugin_read_register(v->reg[reg], v->buffer)) {
        memcpy(&value, v->buffer->data, MIN(v->buffer->len, sizeof(value)));
    }
    return value;
}

void vcpu_put(Vcpu *v, Reg reg, uint64_t value)
{
    g_byte_array_set_size(v->buffer, 0);
    g_byte_array_append(v->buffer, (const guint8 *)&value, sizeof(value));
    qemu_plugin_write_register(v->reg[reg], v->buffer);
}

uint64_t vcpu_address(Vcpu *v, const Insn *insn)
{
    uint64_t address = insn->disp;

    if (insn->base != REG_NONE) {
        address += vcpu_get(v, insn->base);
    }
    if (insn->index != REG_NONE) {
        address += vcpu_get(v, insn->index) << insn->scale;
    }
    if (insn->addr32) {
        address = (uint32_t)address;
    }
    if (insn->segment != SEG_FLAT) {
        address += vcpu_get(v, insn->segment == SEG_FS ? REG_FS_BASE : REG_GS_BASE);
    }
    return address;
}

bool vcpu_read_gpa(Vcpu *v, uint64_t gpa, void *data, size_t bytes)
{
    g_byte_array_set_size(v->buffer, 0);
    if (qemu_plugin_read_memory_hwaddr(gpa, v->buffer, bytes) || v->buffer->len != bytes) {
        return false;
    }
    memcpy(data, v->buffer->data, bytes);
    return true;
}

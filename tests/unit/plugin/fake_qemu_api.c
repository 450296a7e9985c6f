/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The functions of qemu_api.h. */
#include "fake_qemu_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFUSE(word) (fprintf(stderr, "fake QEMU: %s\n", word), abort())

/* As QEMU lists them: more than the plugin wants, and in another order than it
 * numbers them. */
static const struct {
    const char *name;
    int reg;
    unsigned bytes;
} registers[] = {
    {"rip", FAKE_RIP, 8},
    {"rax", RAX, 8},
    {"rbx", RBX, 8},
    {"rcx", RCX, 8},
    {"rdx", RDX, 8},
    {"rsi", RSI, 8},
    {"rdi", RDI, 8},
    {"rbp", RBP, 8},
    {"rsp", RSP, 8},
    {"r8", R8, 8},
    {"r9", R9, 8},
    {"r10", R10, 8},
    {"r11", R11, 8},
    {"r12", R12, 8},
    {"r13", R13, 8},
    {"r14", R14, 8},
    {"r15", R15, 8},
    {"cs", REG_CS, 4},
    {"eflags", REG_EFLAGS, 4},
    {"cr0", REG_CR0, 8},
    {"cr3", REG_CR3, 8},
    {"cr4", REG_CR4, 8},
    {"fs_base", REG_FS_BASE, 8},
    {"gs_base", REG_GS_BASE, 8},
};
enum { REGISTERS = sizeof(registers) / sizeof(registers[0]) };

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, VcpuCallback callback, void *data)
{
    fake.on_vcpu = callback;
}

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*callback)(struct qemu_plugin_tb *, void *),
                                           void *data)
{
    fake.on_translate = callback;
}

void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*callback)(void *), void *data)
{
    fake.on_exit = callback;
}

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb)
{
    return tb->count;
}

struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i)
{
    return (FakeInsn *)&tb->insn[i];
}

size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t room)
{
    size_t bytes = MIN(insn->length, room);

    memcpy(to, insn->bytes, bytes);
    return bytes;
}

uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn)
{
    return insn->pc;
}

void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, VcpuCallback callback,
                                            int flags, void *data)
{
    if (!fake.translating || insn->exec_count == 2) {
        REFUSE("no such instruction handle");
    }
    insn->exec[insn->exec_count++] = (FakeExec){callback, flags, data};
}

void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, MemCallback callback,
                                      int flags, int rw, void *data)
{
    if (!fake.translating || insn->mem_count == 2) {
        REFUSE("no such instruction handle");
    }
    insn->mem[insn->mem_count++] = (FakeMem){callback, flags, rw, data};
}

unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info)
{
    return info & 15;
}

GArray *qemu_plugin_get_registers(void)
{
    GArray *known = g_array_new(FALSE, FALSE, sizeof(qemu_plugin_reg_descriptor));

    for (size_t i = 0; i < REGISTERS; i++) {
        qemu_plugin_reg_descriptor d = {(void *)(i + 1), registers[i].name, "core", false};

        g_array_append_val(known, d);
    }
    return known;
}

bool qemu_plugin_read_register(void *handle, GByteArray *to)
{
    size_t i = (size_t)handle - 1;

    if (fake_thread.allowed < CB_R_REGS || i >= REGISTERS) {
        REFUSE("this callback may not read registers");
    }
    g_byte_array_append(to, (guint8 *)&fake.reg[fake_thread.current][registers[i].reg],
                        registers[i].bytes);
    return true;
}

bool qemu_plugin_write_register(void *handle, GByteArray *from)
{
    size_t i = (size_t)handle - 1;

    if (fake_thread.allowed < CB_RW_REGS || i >= REGISTERS || from->len < registers[i].bytes) {
        REFUSE("this callback may not write registers");
    }
    memcpy(&fake.reg[fake_thread.current][registers[i].reg], from->data, registers[i].bytes);
    return true;
}

void qemu_plugin_set_pc(uint64_t pc)
{
    if (fake_thread.allowed != CB_RW_REGS_PC) {
        REFUSE("this callback may not set the PC");
    }
    fake.reg[fake_thread.current][FAKE_RIP] = pc;
    siglongjmp(fake_thread.away, 1);
}

bool qemu_plugin_read_memory_vaddr(uint64_t va, GByteArray *to, size_t bytes)
{
    g_byte_array_set_size(to, bytes);
    for (size_t i = 0; i < bytes; i++) {
        uint64_t gpa;
        uint8_t *byte = fake_virtual(fake_thread.current, va + i, &gpa) ? fake_ram(gpa, 1) : NULL;

        if (!byte) {
            return false;
        }
        to->data[i] = *byte;
    }
    return true;
}

int qemu_plugin_read_memory_hwaddr(uint64_t gpa, GByteArray *to, size_t bytes)
{
    void *ram = fake_ram(gpa, bytes);

    g_byte_array_set_size(to, bytes);
    if (ram) {
        memcpy(to->data, ram, bytes);
    }
    return ram ? 0 : 1;
}

int qemu_plugin_write_memory_hwaddr(uint64_t gpa, GByteArray *from)
{
    void *ram = fake_ram(gpa, from->len);

    if (!ram) {
        REFUSE("a store to what is no RAM");
    }
    memcpy(ram, from->data, from->len);
    return 0;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine of fake_qemu_api.h. */
#include "fake_qemu_api.h"

#include <string.h>
#include <sys/mman.h>

#include "pgtable.h"

#define FOUR_GIB (4ull << 30)
int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);

Fake fake;
__thread FakeThread fake_thread;
__thread void *current_cpu;

void *qemu_get_cpu(int number)
{
    return fake.reg[number];
}

static unsigned told(unsigned vcpu)
{
    return fake.told_zero ? 0 : vcpu;
}

static void run_on(unsigned vcpu)
{
    fake_thread.current = vcpu;
    current_cpu = qemu_get_cpu(vcpu);
}

void fake_start(uint64_t below_4g, uint64_t above_4g)
{
    fake.below_4g = below_4g;
    fake.above_4g = above_4g;
    fake.ram = mmap(NULL, below_4g + above_4g, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    fake.blocks = g_ptr_array_new();
}

int fake_install(int version, int argc, char **argv)
{
    qemu_info_t info = {.target_name = "x86_64", .version = {version, version}};

    return qemu_plugin_install(1, &info, argc, argv);
}

void fake_create_vcpu(unsigned vcpu)
{
    run_on(vcpu);
    fake_thread.allowed = CB_RW_REGS;
    fake.on_vcpu(vcpu, NULL);
    fake_thread.allowed = CB_NO_REGS;
}

void fake_exit(void)
{
    fake.on_exit(NULL);
}

uint64_t fake_get(unsigned vcpu, Reg reg)
{
    return fake.reg[vcpu][reg];
}

void fake_set(unsigned vcpu, Reg reg, uint64_t value)
{
    fake.reg[vcpu][reg] = value;
}

uint64_t fake_rip(unsigned vcpu)
{
    return fake.reg[vcpu][FAKE_RIP];
}

void *fake_ram(uint64_t gpa, size_t bytes)
{
    if (gpa < fake.below_4g && bytes <= fake.below_4g - gpa) {
        return fake.ram + gpa;
    }
    if (gpa >= FOUR_GIB && gpa - FOUR_GIB < fake.above_4g &&
        bytes <= fake.above_4g - (gpa - FOUR_GIB)) {
        return fake.ram + fake.below_4g + (gpa - FOUR_GIB);
    }
    return NULL;
}

bool fake_virtual(unsigned vcpu, uint64_t va, uint64_t *gpa)
{
    const uint64_t *reg = fake.reg[vcpu];
    uint64_t table = reg[REG_CR3] & PTE_ADDRESS;

    if (!(reg[REG_CR0] & CR0_PG)) {
        *gpa = va;
        return true;
    }
    for (int shift = reg[REG_CR4] & CR4_LA57 ? 48 : 39; shift >= 12; shift -= 9) {
        uint64_t *entry = fake_ram(table + (va >> shift & 511) * 8, 8);

        if (!entry || !(*entry & 1)) {
            return false;
        }
        if (shift == 12 || *entry & 0x80) {
            uint64_t offset = (1ull << shift) - 1;

            *gpa = (*entry & PTE_ADDRESS & ~offset) | (va & offset);
            return true;
        }
        table = *entry & PTE_ADDRESS;
    }
    return false;
}

FakeTb *fake_translate(uint64_t pc, size_t count, const uint8_t (*bytes)[FAKE_INSN_BYTES],
                       const size_t *lengths)
{
    FakeTb *tb = g_new0(FakeTb, 1);

    g_ptr_array_add(fake.blocks, tb);
    tb->count = count;
    for (size_t i = 0; i < count; i++) {
        tb->insn[i].pc = pc;
        tb->insn[i].length = lengths[i];
        memcpy(tb->insn[i].bytes, bytes[i], lengths[i]);
        pc += lengths[i];
    }
    fake.translating = true;
    fake.on_translate(tb, NULL);
    fake.translating = false;
    return tb;
}

bool fake_exec(unsigned vcpu, FakeInsn *insn)
{
    run_on(vcpu);
    fake.reg[vcpu][FAKE_RIP] = insn->pc;
    if (sigsetjmp(fake_thread.away, 0)) {
        fake_thread.allowed = CB_NO_REGS;
        return false;
    }
    for (unsigned i = 0; i < insn->exec_count; i++) {
        fake_thread.allowed = insn->exec[i].flags;
        insn->exec[i].callback(told(vcpu), insn->exec[i].data);
    }
    fake_thread.allowed = CB_NO_REGS;
    fake.reg[vcpu][FAKE_RIP] += insn->length;
    return true;
}

void fake_access(unsigned vcpu, FakeInsn *insn, uint64_t va, unsigned bytes, int rw)
{
    run_on(vcpu);
    for (unsigned i = 0; i < insn->mem_count; i++) {
        if (insn->mem[i].rw & rw) {
            fake_thread.allowed = insn->mem[i].flags;
            insn->mem[i].callback(told(vcpu), __builtin_ctz(bytes), va, insn->mem[i].data);
        }
    }
    fake_thread.allowed = CB_NO_REGS;
}

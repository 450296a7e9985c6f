/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page tables and instructions of the guest. */
#include "guest.h"

#include <string.h>

Guest guest;

static uint64_t next_table;

static uint64_t *entry_at(uint64_t va, int level)
{
    uint64_t table = guest.root;

    for (int l = guest.levels - 1;; l--) {
        uint64_t *entry = fake_ram(table + va / level_bytes(l) % TABLE_ENTRIES * 8, 8);

        if (l == level) {
            return entry;
        }
        if (!*entry) {
            *entry = next_table | PTE_BITS;
            next_table += PAGE_BYTES;
        }
        table = *entry & PTE_ADDRESS;
    }
}

void guest_map(uint64_t va, uint64_t gpa, int level, uint64_t bits)
{
    *entry_at(va, level) = gpa | PTE_BITS | bits | (level ? PTE_LARGE : 0);
}

void guest_prepare(int levels)
{
    fake_start(BELOW_4G, ABOVE_4G);
    next_table = 24 * MIB;
    guest = (Guest){
        .direct = levels == 5 ? DIRECT5 : DIRECT4,
        .levels = levels,
        .root = next_table,
    };
    next_table += PAGE_BYTES;
    for (uint64_t gpa = 0; gpa < BELOW_4G; gpa += MIB2) {
        if (gpa != SMALL) {
            guest_map(at(gpa), gpa, 1, PTE_GLOBAL);
        }
    }
    for (uint64_t gpa = SMALL; gpa < SMALL + MIB2; gpa += PAGE_BYTES) {
        guest_map(at(gpa), gpa, 0, PTE_GLOBAL);
        guest_map(at(SHARED_ALIAS + gpa), gpa, 0, SHARED_BIT);
    }
    for (uint64_t gpa = 4 * GIB; gpa < 4 * GIB + ABOVE_4G; gpa += MIB2) {
        guest_map(at(gpa), gpa, 1, PTE_GLOBAL);
    }
    guest_map(at(0xfee00000), 0xfee00000, 1, PTE_GLOBAL);
    guest_map(at(HUGE_ALIAS), 0, 2, 0);
}

void guest_install(unsigned vcpus, const char *options)
{
    g_autofree char *needed =
        g_strdup_printf("out=/tmp/events,vcpus=%u,below4g=%llu,above4g=%llu%s%s", vcpus, BELOW_4G,
                        ABOVE_4G, options ? "," : "", options ? options : "");
    char **argv = g_strsplit(needed, ",", 0);

    guest.vcpus = vcpus;
    CHECK_EQ(fake_install(PLUGIN_API, g_strv_length(argv), argv), 0);
    g_strfreev(argv);
    for (unsigned v = 0; v < vcpus; v++) {
        fake_set(v, REG_CS, 0x10);
        fake_set(v, REG_CR0, CR0_PG | 1);
        fake_set(v, REG_CR3, guest.root);
        fake_set(v, REG_CR4, CR4_PAE | CR4_PGE | (guest.levels == 5 ? CR4_LA57 : 0));
        fake_create_vcpu(v);
    }
}

void guest_come_online(unsigned vcpu)
{
    guest_load(vcpu, at(ELSEWHERE), 8);
}

void guest_boot(unsigned vcpus, const char *options)
{
    guest_install(vcpus, options);
    for (unsigned v = 0; v < vcpus; v++) {
        guest_come_online(v);
    }
    guest_forget();
}

void guest_start(unsigned vcpus)
{
    guest_prepare(5);
    guest_boot(vcpus, NULL);
}

FakeInsn *guest_insn(size_t length, const uint8_t *bytes)
{
    uint8_t padded[1][FAKE_INSN_BYTES] = {0};

    memcpy(padded[0], bytes, length);
    return &fake_translate(GUEST_PC, 1, padded, &length)->insn[0];
}

/* mov, or movups of 16 bytes; QEMU splits what is wider. */
static void access_memory(unsigned vcpu, uint64_t va, unsigned bytes, bool store)
{
    static FakeInsn *insns[2][17];
    FakeInsn **insn = &insns[store][MIN(bytes, 16)];

    if (!*insn && bytes >= 16) {
        *insn = INSN(0x0f, store ? 0x11 : 0x10, 0x07);
    } else if (!*insn) {
        uint8_t opcode = (store ? 0x88 : 0x8a) + (bytes > 1);
        const uint8_t code[] = {bytes == 8 ? 0x48 : bytes == 2 ? 0x66 : 0x3e, opcode, 0x07};

        *insn = guest_insn(sizeof(code), code);
    }
    CHECK_EQ(fake_exec(vcpu, *insn), true);
    for (unsigned done = 0; done < bytes; done += MIN(bytes, 16)) {
        fake_access(vcpu, *insn, va + done, MIN(bytes, 16), store ? MEM_W : MEM_R);
    }
}

void guest_store(unsigned vcpu, uint64_t va, unsigned bytes)
{
    access_memory(vcpu, va, bytes, true);
}

void guest_load(unsigned vcpu, uint64_t va, unsigned bytes)
{
    access_memory(vcpu, va, bytes, false);
}

void guest_write(unsigned vcpu, uint64_t gpa, uint64_t value)
{
    memcpy(fake_ram(gpa, 8), &value, 8);
    guest_store(vcpu, at(gpa), 8);
}

/* An instruction that has the address in RAX, or nothing to say. */
static void exec(unsigned vcpu, FakeInsn *insn, uint64_t rax)
{
    fake_set(vcpu, RAX, rax);
    CHECK_EQ(fake_exec(vcpu, insn), true);
}

void guest_clflush(unsigned vcpu, uint64_t va)
{
    static FakeInsn *insn;

    insn = insn ? insn : INSN(0x66, 0x0f, 0xae, 0x38); /* clflushopt (%rax) */
    exec(vcpu, insn, va);
}

void guest_clwb(unsigned vcpu, uint64_t va)
{
    static FakeInsn *insn;

    insn = insn ? insn : INSN(0x66, 0x0f, 0xae, 0x30);
    exec(vcpu, insn, va);
}

void guest_clflush_range(unsigned vcpu, uint64_t va, uint64_t bytes)
{
    for (uint64_t line = 0; line < bytes; line += LINE_BYTES) {
        guest_clflush(vcpu, va + line);
    }
}

void guest_wbinvd(unsigned vcpu)
{
    exec(vcpu, INSN(0x0f, 0x09), 0);
}

void guest_invlpg(unsigned vcpu, uint64_t va)
{
    static FakeInsn *insn;

    insn = insn ? insn : INSN(0x0f, 0x01, 0x38);
    exec(vcpu, insn, va);
}

void guest_write_cr3(unsigned vcpu, uint64_t value)
{
    static FakeInsn *insn;

    insn = insn ? insn : INSN(0x0f, 0x22, 0xd8);
    exec(vcpu, insn, value);
    fake_set(vcpu, REG_CR3, value & ~CR3_NOFLUSH);
}

void guest_write_cr4(unsigned vcpu, uint64_t value)
{
    static FakeInsn *insn;

    insn = insn ? insn : INSN(0x0f, 0x22, 0xe0);
    exec(vcpu, insn, value);
    fake_set(vcpu, REG_CR4, value);
}

void guest_flush_global(unsigned vcpu)
{
    uint64_t cr4 = fake_get(vcpu, REG_CR4);

    guest_write_cr4(vcpu, cr4 & ~CR4_PGE);
    guest_write_cr4(vcpu, cr4);
}

void guest_invpcid(unsigned vcpu, unsigned type, uint16_t pcid, uint64_t va)
{
    uint64_t descriptor[2] = {pcid, va};

    memcpy(fake_ram(ELSEWHERE, 16), descriptor, 16);
    fake_set(vcpu, RBX, type);
    exec(vcpu, INSN(0x66, 0x0f, 0x38, 0x82, 0x18), at(ELSEWHERE)); /* invpcid (%rax),%rbx */
}

uint64_t guest_slot(uint64_t va, int level)
{
    return (uint8_t *)entry_at(va, level) - (uint8_t *)fake_ram(0, 8);
}

uint64_t guest_entry(uint64_t slot)
{
    return *(uint64_t *)fake_ram(slot, 8);
}

/* What is not present keeps its frame here, so that it can come back. */
void guest_unmap(unsigned vcpu, uint64_t va, int level)
{
    uint64_t slot = guest_slot(va, level);

    guest_write(vcpu, slot, guest_entry(slot) & ~PTE_PRESENT);
}

void guest_set_shared(unsigned vcpu, uint64_t va, int level, bool shared)
{
    uint64_t slot = guest_slot(va, level), old = guest_entry(slot) | PTE_PRESENT;

    guest_write(vcpu, slot, shared ? old | SHARED_BIT : old & ~SHARED_BIT);
}

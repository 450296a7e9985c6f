/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that flush lines or invalidate translations (SDM volume 3, 5.10.4.1 and 13.5.5).
 * The callbacks run before the instruction does.
 */
#include "inject.h"
#include "stub.h"

static bool is_long_mode(const Vcpu *v)
{
    return v->cr0 & CR0_PG && v->cr4 & CR4_PAE;
}

/* Privileged instructions fault in user mode: what a process runs there changes nothing. */
static bool is_privileged(Vcpu *v)
{
    return !(v->cr0 & CR0_PE) || !(vcpu_get(v, REG_CS) & 3);
}

static void on_flush_line(unsigned vcpu, void *data)
{
    Vcpu *v = &stub.vcpus[vcpu];
    const Site *site = data;

    if (is_long_mode(v)) {
        v->counter[CNT_CLFLUSH]++;
        track_flush_line(v, vcpu_address(v, &site->insn), site->insn.kind == INSN_CLFLUSH,
                         site->pc);
    }
}

static void on_flush_caches(unsigned vcpu, void *data)
{
    const Site *site = data;
    EventRecord record = {
        .kind = EV_CACHE_ALL,
        .vcpu = vcpu,
        .pc = site->pc,
        .arg = {site->insn.kind == INSN_INVD ? 0x08 : 0x09},
    };

    if (!is_privileged(&stub.vcpus[vcpu])) {
        return;
    }
    g_mutex_lock(&stub.lock);
    memory_flush_all(&stub.memory);
    stream_put(&stub.stream, &record);
    g_mutex_unlock(&stub.lock);
}

/* A remembered large translation covers many slots: void those of its 2 MiB, or all of a larger. */
static void void_address(Vcpu *v, uint64_t va)
{
    uint64_t first = va / PAGE_BYTES & ~511ull;

    v->xlate[va / PAGE_BYTES % XLATE_SLOTS].tag = ~0ull;
    if (v->has_huge) {
        vcpu_void_xlate(v, true);
        v->has_huge = false;
        return;
    }
    for (uint64_t page = first; page < first + 512; page++) {
        Xlate *slot = &v->xlate[page % XLATE_SLOTS];

        if (slot->page & XLATE_LARGE) {
            slot->tag = ~0ull;
        }
    }
}

/* An entry added just now by another vCPU is no business of an instruction already running. */
static bool has_debts(void)
{
    return __atomic_load_n(&stub.pending.count, __ATOMIC_ACQUIRE) ||
           __atomic_load_n(&stub.gone.count, __ATOMIC_ACQUIRE);
}

static void on_invlpg(unsigned vcpu, void *data)
{
    Vcpu *v = &stub.vcpus[vcpu];
    const Site *site = data;
    uint64_t va;

    if (!is_long_mode(v) || !is_privileged(v)) {
        return;
    }
    va = vcpu_address(v, &site->insn);
    v->counter[CNT_INVLPG]++;
    void_address(v, va);
    if (has_debts()) {
        g_mutex_lock(&stub.lock);
        gone_invalidate_page(&stub.gone, vcpu, va);
        pending_invalidate_page(&stub.pending, vcpu, va);
        if (stub.faults) {
            inject_invalidated_page(vcpu, va);
        }
        track_sweep();
        g_mutex_unlock(&stub.lock);
    }
}

/* The vCPU holds no translation any more. */
static void drop_all(Vcpu *v)
{
    vcpu_void_xlate(v, true);
    gone_flush(&stub.gone, v->index, true);
    if (__atomic_load_n(&stub.pending.count, __ATOMIC_ACQUIRE)) {
        g_mutex_lock(&stub.lock);
        pending_invalidate_all(&stub.pending, v->index);
        track_sweep();
        g_mutex_unlock(&stub.lock);
    }
}

static void invalidate_all(Vcpu *v)
{
    v->counter[CNT_FLUSH_ALL]++;
    drop_all(v);
}

static void invalidate_nonglobal(Vcpu *v, uint16_t pcid)
{
    v->counter[CNT_FLUSH_NONGLOBAL]++;
    vcpu_void_xlate(v, false);
    if (pcid == PCID_NONE) {
        gone_flush(&stub.gone, v->index, false);
    }
    if (has_debts()) {
        g_mutex_lock(&stub.lock);
        if (pcid != PCID_NONE) {
            gone_invalidate_pcid(&stub.gone, v->index, pcid);
        }
        pending_invalidate_nonglobal(&stub.pending, v->index, pcid);
        track_sweep();
        g_mutex_unlock(&stub.lock);
    }
}

static void write_cr3(Vcpu *v, uint64_t value)
{
    bool pcids = v->cr4 & CR4_PCIDE;

    v->cr3 = value & ~CR3_NOFLUSH;
    /* Another root voids what is remembered, even where the architecture keeps the entries of
       another PCID: this cache is not tagged. */
    vcpu_void_xlate(v, false);
    if (!(pcids && value & CR3_NOFLUSH)) {
        invalidate_nonglobal(v, pcids ? value & 0xfff : PCID_NONE);
    }
}

static void write_cr4(Vcpu *v, uint64_t value)
{
    uint64_t changed = v->cr4 ^ value;

    v->cr4 = value;
    if (changed & (CR4_PGE | CR4_PSE | CR4_PAE | CR4_LA57) || changed & ~value & CR4_PCIDE ||
        changed & value & CR4_SMEP) {
        invalidate_all(v);
    }
}

static void on_mov_to_cr(unsigned vcpu, void *data)
{
    Vcpu *v = &stub.vcpus[vcpu];
    const Site *site = data;
    uint64_t value = vcpu_get(v, site->insn.reg);

    if (!is_privileged(v)) {
        return;
    }
    switch (site->insn.cr) {
    case 0:
        if ((v->cr0 ^ value) & CR0_PG) {
            v->cr0 = value;
            invalidate_all(v);
        }
        v->cr0 = value;
        break;
    case 3:
        write_cr3(v, value);
        break;
    case 4:
        write_cr4(v, value);
        break;
    }
}

static void on_invpcid(unsigned vcpu, void *data)
{
    Vcpu *v = &stub.vcpus[vcpu];
    const Site *site = data;
    uint64_t descriptor[2] = {0}, type = vcpu_get(v, site->insn.reg);
    GByteArray *bytes;

    if (!is_privileged(v)) {
        return;
    }
    bytes = g_byte_array_new();
    if (qemu_plugin_read_memory_vaddr(vcpu_address(v, &site->insn), bytes, sizeof(descriptor))) {
        memcpy(descriptor, bytes->data, sizeof(descriptor));
    }
    g_byte_array_free(bytes, TRUE);
    switch (type) {
    case 0:
        void_address(v, descriptor[1]);
        g_mutex_lock(&stub.lock);
        gone_invalidate_page_pcid(&stub.gone, vcpu, descriptor[1], descriptor[0] & 0xfff);
        pending_invalidate_page_pcid(&stub.pending, vcpu, descriptor[1], descriptor[0] & 0xfff);
        track_sweep();
        g_mutex_unlock(&stub.lock);
        break;
    case 1:
        invalidate_nonglobal(v, descriptor[0] & 0xfff);
        break;
    case 2:
        invalidate_all(v);
        break;
    case 3:
        invalidate_nonglobal(v, PCID_NONE);
        break;
    }
}

void flush_restart(unsigned vcpu, void *unused)
{
    Vcpu *v = &stub.vcpus[vcpu];
    uint64_t cr0 = vcpu_get(v, REG_CR0);

    if (cr0 & CR0_PE) {
        return;
    }
    v->cr0 = cr0;
    v->cr3 = vcpu_get(v, REG_CR3);
    v->cr4 = vcpu_get(v, REG_CR4);
    v->online = v->parked = false;
    drop_all(v);
}

void flush_park(Vcpu *v)
{
    v->parked = true;
    v->online = false;
    drop_all(v);
}

/* HLT and MWAIT with interrupts off: only an NMI or INIT ends that (SDM volume 2, HLT). */
static void on_halt(unsigned vcpu, void *data)
{
    enum { EFLAGS_IF = 1 << 9, MWAIT_BREAKS = 1 };
    Vcpu *v = &stub.vcpus[vcpu];
    const Site *site = data;
    bool breaks = site->insn.kind == INSN_MWAIT && vcpu_get(v, RCX) & MWAIT_BREAKS;

    if (is_long_mode(v) && is_privileged(v) && !breaks && !(vcpu_get(v, REG_EFLAGS) & EFLAGS_IF)) {
        flush_park(v);
    }
}

VcpuCallback flush_callback(InsnKind kind)
{
    static const VcpuCallback callbacks[] = {
        [INSN_CLFLUSH] = on_flush_line,  [INSN_CLWB] = on_flush_line,
        [INSN_WBINVD] = on_flush_caches, [INSN_INVD] = on_flush_caches,
        [INSN_INVLPG] = on_invlpg,       [INSN_INVPCID] = on_invpcid,
        [INSN_MOV_TO_CR] = on_mov_to_cr, [INSN_HLT] = on_halt,
        [INSN_MWAIT] = on_halt,
    };

    return callbacks[kind];
}

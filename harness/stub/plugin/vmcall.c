/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TDG.VP.VMCALL functions. Source: Intel Guest-Host-Communication Interface specification. */
#include <unistd.h>

#include "inject.h"
#include "odd.h"
#include "stub.h"

#define VMCALL_SUCCESS 0ull
#define VMCALL_INVALID_OPERAND 0x8000000000000000ull
#define VMCALL_ALIGN_ERROR 0x8000000000000002ull
#define OPERAND_INVALID_RCX 0xc000010000000001ull
/* RCX: registers passed to the VMM. RAX, RCX and RSP are never passed, nor is anything above. */
#define RCX_RESERVED 0xffffffff00000013ull
/* R10 of a marker: "TDH". The other R10 != 0 calls are a VMM's own, and this VMM has none. */
#define VENDOR_MARK 0x544448ull
#define QUOTE_UNAVAILABLE 0x8000000000000001ull
/*
 * An idle vCPU asks again at once: sleep longer each time until it has had something to do. The
 * longest sleep is what an interrupt may be late by, so it grows with the number of vCPUs only,
 * whose polling costs the host's time.
 */
enum { HLT_FIRST_US = 10, HLT_MOST_US_PER_VCPU = 40, HLT_BUSY_US = 50, FATAL_SLEEP_US = 200000 };

typedef struct Vmcall {
    Call *call;
    uint64_t r10, r11, r12, r13; /* in: as the guest set them; r10 and r11 out: what it gets */
} Vmcall;

static void put(Vmcall *m, Reg reg, uint64_t value)
{
    vcpu_put(m->call->vcpu, reg, value);
}

static void refuse(Vmcall *m, uint64_t status)
{
    m->r10 = status;
    m->call->flags |= EF_BAD;
}

static void cpuid(Vmcall *m)
{
    /* A hypervisor's leaves, all empty: the stub is none that Linux knows. */
    for (Reg reg = R12; reg <= R15; reg++) {
        put(m, reg, 0);
    }
}

static void hlt(Vmcall *m)
{
    Vcpu *v = m->call->vcpu;
    uint64_t now_us = g_get_monotonic_time();

    v->counter[CNT_HLT]++;
    /* Interrupts are blocked: as HLT itself, see flush.c. */
    if (m->r12) {
        flush_park(v);
    }
    /* In one thread the sleep would stall the other vCPUs. */
    if (stub.single) {
        return;
    }
    v->hlt_us = now_us - v->hlt_end_us > HLT_BUSY_US
                    ? HLT_FIRST_US
                    : MIN(2 * v->hlt_us, HLT_MOST_US_PER_VCPU * stub.vcpu_count);
    usleep(v->hlt_us);
    v->hlt_end_us = g_get_monotonic_time();
}

/* No port answers: the devices of the machine are reached by the instructions themselves. */
static void io(Vmcall *m)
{
    uint64_t bytes = m->r12, port = vcpu_get(m->call->vcpu, R14);

    m->call->vcpu->counter[CNT_VMCALL_IO]++;
    if ((bytes != 1 && bytes != 2 && bytes != 4) || m->r13 > 1 || port > 0xffff) {
        refuse(m, VMCALL_INVALID_OPERAND);
    } else if (!m->r13) {
        m->r11 = bytes == 4 ? 0xffffffff : (1ull << 8 * bytes) - 1;
    }
}

static void get_info(Vmcall *m)
{
    m->r11 = 0;
    for (Reg reg = R12; reg <= R14; reg++) {
        put(m, reg, 0);
    }
}

static void map_gpa(Vmcall *m)
{
    bool to_shared = m->r12 & SHARED_BIT;
    uint64_t gpa = m->r12 & ~SHARED_BIT, bytes = m->r13;
    EventRecord refused = {.kind = EV_CONVERT, .vcpu = m->call->vcpu->index, .pc = m->call->pc};
    OddReply reply;

    if (gpa % PAGE_BYTES || bytes % PAGE_BYTES) {
        refuse(m, VMCALL_ALIGN_ERROR);
    } else if (!bytes || gpa >= SHARED_BIT || bytes > SHARED_BIT - gpa) {
        refuse(m, VMCALL_INVALID_OPERAND);
    }
    if (stub.odd && !m->r10) {
        reply = odd_map_gpa(m->call, gpa, bytes, to_shared, m->r11);
        m->r10 = reply.r10;
        m->r11 = reply.r11;
        return;
    }
    g_mutex_lock(&stub.lock);
    if (m->r10) {
        refused.flags = EF_BAD | (to_shared ? EF_TO_SHARED : 0);
        refused.arg[0] = gpa;
        refused.arg[1] = bytes;
        refused.arg[2] = m->r10;
        stub_emit_with_stack(m->call->vcpu, &refused);
    } else {
        convert_range(m->call, gpa, bytes, to_shared);
    }
    stream_flush(&stub.stream);
    g_mutex_unlock(&stub.lock);
}

/* No quoting service: the buffer's header says so, as a host without one would. */
static void get_quote(Vmcall *m)
{
    uint64_t status = QUOTE_UNAVAILABLE, gpa = m->r12 & ~SHARED_BIT;
    GByteArray *array;

    if (!(m->r12 & SHARED_BIT) || gpa % PAGE_BYTES || m->r13 % PAGE_BYTES || !m->r13 ||
        !memory_page(&stub.memory, gpa)) {
        refuse(m, VMCALL_INVALID_OPERAND);
        return;
    }
    array = g_byte_array_append(g_byte_array_new(), (const guint8 *)&status, sizeof(status));
    qemu_plugin_write_memory_hwaddr(gpa + 8, array);
    g_byte_array_free(array, TRUE);
}

static void report_fatal_error(Vmcall *m)
{
    /* The guest asks again for ever; the machine's owner stops it. */
    if (!stub.single) {
        usleep(FATAL_SLEEP_US);
    }
    m->call->flags |= EF_BAD;
}

static void setup_event_notify(Vmcall *m)
{
    if (m->r12 < 32 || m->r12 > 255) {
        refuse(m, VMCALL_INVALID_OPERAND);
    }
}

/* MSR and MMIO calls come from a #VE handler, and the stub injects no #VE. */
static void unsupported(Vmcall *m)
{
    refuse(m, VMCALL_INVALID_OPERAND);
}

typedef enum Recording { ALWAYS, WHEN_BAD, BY_HANDLER } Recording;

static const struct {
    uint64_t number;
    void (*handler)(Vmcall *m);
    Recording record;
} functions[] = {
    {0x0a, cpuid, ALWAYS},
    {0x0c, hlt, WHEN_BAD},
    {0x1e, io, WHEN_BAD},
    {0x1f, unsupported, ALWAYS},
    {0x20, unsupported, ALWAYS},
    {0x30, unsupported, ALWAYS},
    {0x10000, get_info, ALWAYS},
    {0x10001, map_gpa, BY_HANDLER},
    {0x10002, get_quote, ALWAYS},
    {0x10003, report_fatal_error, ALWAYS},
    {0x10004, setup_event_notify, ALWAYS},
};

static void record_vmcall(const Vmcall *m, uint64_t r10, uint64_t r11)
{
    EventRecord record = {
        .kind = r10 == VENDOR_MARK ? EV_MARK : EV_VMCALL,
        .vcpu = m->call->vcpu->index,
        .flags = m->call->flags,
        .pc = m->call->pc,
        .arg = {r11, m->r12, m->r13, m->r10, m->r11},
    };

    if (r10 == VENDOR_MARK) {
        record.arg[2] = record.arg[3] = record.arg[4] = 0;
    }
    g_mutex_lock(&stub.lock);
    if (m->call->flags & (EF_BAD | EF_UNKNOWN)) {
        stub_emit_with_stack(m->call->vcpu, &record);
    } else {
        stream_put(&stub.stream, &record);
    }
    if (r10 == VENDOR_MARK && stub.faults) {
        inject_mark(r11 == 1, m->r12);
    }
    if (r10 == VENDOR_MARK && stub.odd) {
        odd_mark(r11 == 1, m->r12);
    }
    stream_flush(&stub.stream);
    g_mutex_unlock(&stub.lock);
}

/* Returns whether a record is due. */
static bool dispatch(Vmcall *m)
{
    if (m->r10 == VENDOR_MARK) {
        m->r10 = VMCALL_SUCCESS;
        return true;
    }
    if (!m->r10) {
        for (size_t i = 0; i < G_N_ELEMENTS(functions); i++) {
            if (functions[i].number == m->r11) {
                functions[i].handler(m);
                return functions[i].record == ALWAYS ||
                       (functions[i].record == WHEN_BAD && m->call->flags & EF_BAD);
            }
        }
    }
    m->r10 = VMCALL_INVALID_OPERAND;
    m->call->flags |= EF_UNKNOWN;
    return true;
}

void vmcall_emulate(Call *call)
{
    Vcpu *v = call->vcpu;
    Vmcall m = {
        .call = call,
        .r10 = vcpu_get(v, R10),
        .r11 = vcpu_get(v, R11),
        .r12 = vcpu_get(v, R12),
        .r13 = vcpu_get(v, R13),
    };
    uint64_t r10 = m.r10, r11 = m.r11;

    if (vcpu_get(v, RCX) & RCX_RESERVED) {
        call->rax = OPERAND_INVALID_RCX;
        call->flags |= EF_BAD;
        m.r10 = call->rax;
        record_vmcall(&m, 0, r11);
        return;
    }
    if (dispatch(&m)) {
        record_vmcall(&m, r10, r11);
    }
    vcpu_put(v, R10, m.r10);
    vcpu_put(v, R11, m.r11);
}

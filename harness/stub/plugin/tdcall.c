/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TDCALL leaves. Sources: Intel TDX Module ABI specification (leaf numbers, operands, status
 * codes); which of them Linux issues, and how it reacts, is in the kernel's arch/x86/coco/tdx.
 */
#include "inject.h"
#include "odd.h"
#include "stub.h"

#define CLASS(code) ((uint64_t)(code) << 32)
#define TDX_SUCCESS 0ull
#define TDX_OPERAND_INVALID CLASS(0xc0000100)
#define TDX_NO_VALID_VE_INFO CLASS(0xc0000704)
#define TDX_EPT_WALK_FAILED CLASS(0xc0000b00)
#define TDX_PAGE_ALREADY_ACCEPTED CLASS(0x00000b0a)
#define TDX_PAGE_SIZE_MISMATCH CLASS(0xc0000b0b)
#define TDX_METADATA_FIELD_ID_INCORRECT CLASS(0xc0000c00)
/* Operand ids in the low half of a status. */
enum { ID_RAX = 0, ID_RCX = 1, ID_RDX = 2, ID_R8 = 8 };

#define ATTRIBUTES_SEPT_VE_DISABLE (1ull << 28)
#define FIELD_CONFIG_FLAGS 0x1110000300000016ull
#define FIELD_TD_CTLS 0x1110000300000017ull
#define FIELD_NOTIFY_ENABLES 0x9100000000000010ull
#define FIELD_TOPOLOGY_ENUM_CONFIGURED 0x9100000000000019ull
#define TD_CTLS_WRITABLE 0xfull

typedef void (*Handler)(Call *call);

static uint64_t in(Call *call, Reg reg)
{
    return vcpu_get(call->vcpu, reg);
}

static void out(Call *call, Reg reg, uint64_t value)
{
    vcpu_put(call->vcpu, reg, value);
}

static void refuse(Call *call, uint64_t status)
{
    call->rax = status;
    call->flags |= EF_BAD;
}

static void record_call(Call *call, uint64_t leaf)
{
    EventRecord record = {
        .kind = EV_TDCALL,
        .vcpu = call->vcpu->index,
        .flags = call->flags,
        .pc = call->pc,
        .arg = {leaf, in(call, RCX), in(call, RDX), in(call, R8), call->rax},
    };

    g_mutex_lock(&stub.lock);
    if (call->flags & (EF_BAD | EF_UNKNOWN)) {
        stub_emit_with_stack(call->vcpu, &record);
    } else {
        stream_put(&stub.stream, &record);
    }
    g_mutex_unlock(&stub.lock);
}

static void vp_info(Call *call)
{
    uint64_t count = stub.vcpu_count;

    out(call, RCX, GPAW);
    out(call, RDX, ATTRIBUTES_SEPT_VE_DISABLE);
    out(call, R8, count | count << 32);
    out(call, R9, call->vcpu->index);
    out(call, R10, 0);
    out(call, R11, 0);
}

/* No measurement root stands behind the stub: the extension is checked and not kept. */
static void mr_rtmr_extend(Call *call)
{
    if (in(call, RCX) % 64) {
        refuse(call, TDX_OPERAND_INVALID | ID_RCX);
    } else if (in(call, RDX) > 3) {
        refuse(call, TDX_OPERAND_INVALID | ID_RDX);
    }
}

static void vp_veinfo_get(Call *call)
{
    /* The stub never injects a #VE. */
    call->rax = TDX_NO_VALID_VE_INFO;
}

/* A report that no one can verify: type TDX, the caller's REPORTDATA, nothing else. */
static void mr_report(Call *call)
{
    enum { REPORT_BYTES = 1024, DATA_BYTES = 64, DATA_OFFSET = 128, TYPE_TDX = 0x81 };
    uint64_t report = in(call, RCX) & ~SHARED_BIT, data = in(call, RDX) & ~SHARED_BIT;
    uint8_t bytes[REPORT_BYTES] = {TYPE_TDX};
    GByteArray *array;

    if (report % REPORT_BYTES || !memory_page(&stub.memory, report)) {
        refuse(call, TDX_OPERAND_INVALID | ID_RCX);
    } else if (data % DATA_BYTES ||
               !vcpu_read_gpa(call->vcpu, data, bytes + DATA_OFFSET, DATA_BYTES)) {
        refuse(call, TDX_OPERAND_INVALID | ID_RDX);
    } else if (in(call, R8)) {
        refuse(call, TDX_OPERAND_INVALID | ID_R8);
    } else {
        array = g_byte_array_append(g_byte_array_new(), bytes, sizeof(bytes));
        qemu_plugin_write_memory_hwaddr(report, array);
        g_byte_array_free(array, TRUE);
    }
}

static void zero(uint64_t gpa, uint64_t bytes)
{
    GByteArray *zeros = g_byte_array_new();

    g_byte_array_set_size(zeros, bytes);
    memset(zeros->data, 0, bytes);
    qemu_plugin_write_memory_hwaddr(gpa, zeros);
    g_byte_array_free(zeros, TRUE);
}

static uint64_t accept_status(AcceptResult result, uint64_t level)
{
    switch (result) {
    case ACCEPT_ALREADY:
        return TDX_PAGE_ALREADY_ACCEPTED | level;
    case ACCEPT_MISMATCH:
        return TDX_PAGE_SIZE_MISMATCH | level;
    case ACCEPT_SHARED:
    case ACCEPT_NOTHING:
        /* The secure EPT has no entry, which the module reports to the VMM as an EPT violation
           (TDG.MEM.PAGE.ACCEPT). This VMM has no page to add: the TD gets the reason. */
        return TDX_EPT_WALK_FAILED | ID_RCX;
    default:
        return TDX_SUCCESS;
    }
}

/* Only 4 KiB and 2 MiB are legal; Linux asks for 1 GiB first all the same. */
static void mem_page_accept(Call *call)
{
    uint64_t operand = in(call, RCX), level = operand & 7, gpa = operand & ~0xfffull;
    uint64_t bytes = level ? MIB2 : PAGE_BYTES;
    EventRecord record = {.kind = EV_ACCEPT, .vcpu = call->vcpu->index, .pc = call->pc};
    AcceptResult result = ACCEPT_MISMATCH;
    uint8_t before = 0;

    g_mutex_lock(&stub.lock);
    if (level > 1 || gpa % bytes || operand & 0xff8 || gpa >= SHARED_BIT) {
        call->rax = TDX_OPERAND_INVALID | ID_RCX;
        record.flags = operand % GIB1 == 2 && gpa < SHARED_BIT ? 0 : EF_BAD;
    } else {
        result = memory_accept(&stub.memory, gpa, bytes, &before);
        call->rax = accept_status(result, level);
        record.flags = result == ACCEPT_NOTHING ? EF_BAD : 0;
    }
    record.arg[0] = gpa;
    record.arg[1] = level;
    record.arg[2] = call->rax;
    record.arg[3] = before;
    if (result == ACCEPT_ALREADY || result == ACCEPT_SHARED || record.flags) {
        stub_emit_with_stack(call->vcpu, &record);
    } else {
        stream_put(&stub.stream, &record);
    }
    if (result == ACCEPT_DONE && stub.faults) {
        inject_accepted(call->vcpu, gpa, bytes);
    }
    if (result == ACCEPT_DONE && stub.odd) {
        odd_accepted(gpa, bytes);
    }
    track_void_all();
    g_mutex_unlock(&stub.lock);
    if (result == ACCEPT_DONE) {
        zero(gpa, bytes);
    }
}

static void vm_rd(Call *call)
{
    uint64_t value = 0;

    switch (in(call, RDX)) {
    case FIELD_CONFIG_FLAGS:
    case FIELD_NOTIFY_ENABLES:
        break;
    case FIELD_TD_CTLS:
        value = stub.td_ctls;
        break;
    case FIELD_TOPOLOGY_ENUM_CONFIGURED:
        value = 1;
        break;
    default:
        refuse(call, TDX_METADATA_FIELD_ID_INCORRECT);
    }
    out(call, R8, value);
}

static void vm_wr(Call *call)
{
    uint64_t value = in(call, R8), mask = in(call, R9), old = 0;

    switch (in(call, RDX)) {
    case FIELD_NOTIFY_ENABLES:
        break;
    case FIELD_TD_CTLS:
        old = stub.td_ctls;
        stub.td_ctls = ((old & ~mask) | (value & mask)) & TD_CTLS_WRITABLE;
        break;
    default:
        refuse(call, TDX_METADATA_FIELD_ID_INCORRECT);
    }
    out(call, R8, old);
}

static const struct {
    Handler handler;
    bool records_itself;
} leaves[] = {
    [0] = {vmcall_emulate, true}, [1] = {vp_info, false},   [2] = {mr_rtmr_extend, false},
    [3] = {vp_veinfo_get, false}, [4] = {mr_report, false}, [6] = {mem_page_accept, true},
    [7] = {vm_rd, false},         [8] = {vm_wr, false},
};

void tdcall_emulate(Vcpu *v, uint64_t pc)
{
    Call call = {.vcpu = v, .pc = pc};
    uint64_t rax = vcpu_get(v, RAX), leaf = rax & 0xffff;
    Handler handler = leaf < G_N_ELEMENTS(leaves) ? leaves[leaf].handler : NULL;
    bool records_itself = handler && leaves[leaf].records_itself;

    /* RAX: leaf in 15:0, version in 23:16 (only 0 here), the rest reserved. */
    if (rax >> 16) {
        refuse(&call, TDX_OPERAND_INVALID | ID_RAX);
        records_itself = false;
    } else if (!handler) {
        call.rax = TDX_OPERAND_INVALID | ID_RAX;
        call.flags = EF_UNKNOWN;
    } else {
        handler(&call);
    }
    if (!records_itself) {
        record_call(&call, rax);
    }
    if (stub.odd) {
        g_mutex_lock(&stub.lock);
        odd_tick();
        g_mutex_unlock(&stub.lock);
    }
    vcpu_put(v, RAX, call.rax);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A MapGPA that succeeds: what it commits, and what is recorded of it. */
#include "inject.h"
#include "stub.h"

enum { MOST_RUNS = 64 };

static void emit_dirty(const DirtyRun *run, void *data)
{
    EventRecord *runs = data;
    EventRecord *next = &runs[1 + runs[0].arg[0]];

    if (runs[0].arg[0] < MOST_RUNS) {
        *next = (EventRecord){
            .kind = EV_DIRTY_RUN,
            .arg = {run->gpa, run->lines, run->store_pc, run->store_vcpu},
        };
        runs[0].arg[0]++;
    }
}

/* All of [gpa, gpa + bytes) but the pages left out changes hands. */
static Conversion change_owner(uint64_t gpa, uint64_t bytes, bool to_shared, FaultRange left_out,
                               EventRecord *runs)
{
    Memory *m = &stub.memory;
    Conversion c, rest;

    if (left_out.start == left_out.end) {
        return memory_convert(m, gpa, bytes, to_shared, emit_dirty, runs);
    }
    c = memory_convert(m, gpa, left_out.start - gpa, to_shared, emit_dirty, runs);
    rest = memory_convert(m, left_out.end, gpa + bytes - left_out.end, to_shared, emit_dirty, runs);
    c.lines += rest.lines;
    c.dirty += rest.dirty;
    c.flushed += rest.flushed;
    c.flushed_again += rest.flushed_again;
    return c;
}

uint64_t convert_range(Call *call, uint64_t gpa, uint64_t bytes, bool to_shared)
{
    EventRecord runs[1 + MOST_RUNS] = {0};
    EventRecord record = {
        .kind = EV_CONVERT,
        .vcpu = call->vcpu->index,
        .flags = to_shared ? EF_TO_SHARED : 0,
        .pc = call->pc,
        .arg = {gpa, bytes},
    };
    FaultRange left_out = {0};
    Conversion c;
    uint64_t seq;

    if (stub.faults) {
        left_out = inject_map_gpa(call->vcpu, gpa, bytes, to_shared, call->pc);
    }
    if (to_shared) {
        track_commit_to_shared(call->vcpu, gpa, bytes, call->pc);
    }
    c = change_owner(gpa, bytes, to_shared, left_out, runs);
    record.arg[3] = c.dirty;
    record.arg[4] = c.flushed << 32 | (uint32_t)c.flushed_again;
    seq = stub_emit_with_stack(call->vcpu, &record);
    track_void_all();
    for (uint64_t i = 1; i <= runs[0].arg[0]; i++) {
        runs[i].vcpu = call->vcpu->index;
        runs[i].arg[4] = seq;
        stream_put(&stub.stream, &runs[i]);
    }
    if (stub.faults) {
        inject_converted(gpa, bytes, seq);
    }
    return seq;
}

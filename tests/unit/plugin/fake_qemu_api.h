/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine of registers and memory behind the functions of qemu_api.h, to run the whole plugin
 * without QEMU. It executes nothing: a test says which instruction ran and what it accessed. What
 * QEMU forbids (registers in a callback that asked for none, handles after translation) aborts.
 */
#ifndef TDH_FAKE_QEMU_API_H
#define TDH_FAKE_QEMU_API_H

#include <setjmp.h>

#include "qemu_api.h"
#include "vcpu.h"

#define FAKE_INSN_BYTES 15
#define FAKE_TB_INSNS 64

typedef struct FakeExec {
    VcpuCallback callback;
    int flags;
    void *data;
} FakeExec;

typedef struct FakeMem {
    MemCallback callback;
    int flags, rw;
    void *data;
} FakeMem;

typedef struct qemu_plugin_insn {
    uint64_t pc;
    size_t length;
    uint8_t bytes[FAKE_INSN_BYTES];
    unsigned exec_count, mem_count;
    FakeExec exec[2];
    FakeMem mem[2];
} FakeInsn;

typedef struct qemu_plugin_tb {
    size_t count;
    FakeInsn insn[FAKE_TB_INSNS];
} FakeTb;

enum { FAKE_RIP = REG_COUNT };

typedef struct Fake {
    uint8_t *ram;
    uint64_t below_4g, above_4g;
    uint64_t reg[MAX_VCPUS][REG_COUNT + 1];
    VcpuCallback on_vcpu;
    void (*on_translate)(struct qemu_plugin_tb *, void *);
    void (*on_exit)(void *);
    GPtrArray *blocks;
    bool translating;
    /* One thread for all vCPUs: callbacks are told vCPU 0, which the code was compiled for. */
    bool told_zero;
} Fake;

/* Of the thread that stands for a vCPU: which one, and what its callback may do. */
typedef struct FakeThread {
    unsigned current;
    int allowed;
    sigjmp_buf away;
} FakeThread;

extern Fake fake;
/* QEMU's own, which it exports for its modules: the running vCPU, and the vCPU of a number. */
PLUGIN_EXPORT extern __thread void *current_cpu;
PLUGIN_EXPORT void *qemu_get_cpu(int number);
extern __thread FakeThread fake_thread;

/* RAM of [0, below_4g) and [4 GiB, 4 GiB + above_4g), zeroed. */
void fake_start(uint64_t below_4g, uint64_t above_4g);
/* What qemu_plugin_install() returned; `version` is the interface that QEMU has. */
int fake_install(int version, int argc, char **argv);
void fake_create_vcpu(unsigned vcpu);
/* The atexit callback. */
void fake_exit(void);

uint64_t fake_get(unsigned vcpu, Reg reg);
void fake_set(unsigned vcpu, Reg reg, uint64_t value);
uint64_t fake_rip(unsigned vcpu);

/* RAM at a physical address; NULL where there is none. */
void *fake_ram(uint64_t gpa, size_t bytes);
/* By the tables that CR3 points to, as they are now; false when not mapped. */
bool fake_virtual(unsigned vcpu, uint64_t va, uint64_t *gpa);

/* A block of `count` instructions, one behind the other; never freed. */
FakeTb *fake_translate(uint64_t pc, size_t count, const uint8_t (*bytes)[FAKE_INSN_BYTES],
                       const size_t *lengths);
/* What runs before the instruction; false when the plugin set the PC, so that it does not run. */
bool fake_exec(unsigned vcpu, FakeInsn *insn);
/* An access that the instruction made; `rw` of MEM_R and MEM_W. */
void fake_access(unsigned vcpu, FakeInsn *insn, uint64_t va, unsigned bytes, int rw);

#endif

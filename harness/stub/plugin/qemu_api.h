/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The part of QEMU's TCG plugin interface that the stub uses, version 7 (QEMU 11.1), declared by
 * hand because distributions ship no header for it. QEMU resolves the symbols when it loads the
 * plugin. Differences between versions of the interface belong here and nowhere else.
 */
#ifndef TDH_QEMU_API_H
#define TDH_QEMU_API_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLUGIN_API 7
#define PLUGIN_EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;

typedef struct qemu_info_t {
    const char *target_name;
    struct {
        int min, cur;
    } version;
    bool system_emulation;
    struct {
        int smp_vcpus, max_vcpus;
    } system;
} qemu_info_t;

typedef struct qemu_plugin_reg_descriptor {
    void *handle;
    const char *name, *feature;
    bool is_readonly;
} qemu_plugin_reg_descriptor;

struct qemu_plugin_tb;
struct qemu_plugin_insn;

/* How much of the registers a callback may use. */
enum { CB_NO_REGS, CB_R_REGS, CB_RW_REGS, CB_RW_REGS_PC };
/* Which accesses a memory callback is called for. */
enum { MEM_R = 1, MEM_W = 2 };

typedef void (*VcpuCallback)(unsigned vcpu, void *data);
typedef void (*MemCallback)(unsigned vcpu, qemu_plugin_meminfo_t info, uint64_t va, void *data);

void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, VcpuCallback, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t,
                                           void (*)(struct qemu_plugin_tb *, void *), void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, VcpuCallback, int flags,
                                            void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, MemCallback, int flags, int rw,
                                      void *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
GArray *qemu_plugin_get_registers(void);
bool qemu_plugin_read_register(void *handle, GByteArray *);
bool qemu_plugin_write_register(void *handle, GByteArray *);
void qemu_plugin_set_pc(uint64_t) __attribute__((noreturn));
bool qemu_plugin_read_memory_vaddr(uint64_t va, GByteArray *, size_t);
/* The two below return 0 on success. */
int qemu_plugin_read_memory_hwaddr(uint64_t gpa, GByteArray *, size_t);
int qemu_plugin_write_memory_hwaddr(uint64_t gpa, GByteArray *);

#endif

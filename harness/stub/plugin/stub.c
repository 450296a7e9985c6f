/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The software TDX module: a QEMU TCG plugin under which an unmodified Linux kernel boots as a TD.
 * It answers CPUID leaf 0x21 and TDCALL, keeps the model of memory and translations, and records
 * what happened; which rule that breaks is decided elsewhere.
 *
 *   -plugin tdstub.so,out=FILE,vcpus=N,below4g=BYTES,above4g=BYTES[,track=on|off][,single=on|off]
 *   [,fault=FAULT[+FAULT...]], see fault.h
 *   [,vmm=RULE[+RULE...]], see vmm.h
 */
#include "stub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "access.h"
#include "inject.h"
#include "odd.h"
#include "single.h"
#include "track.h"

PLUGIN_EXPORT int qemu_plugin_version = PLUGIN_API;

Stub stub = {.track = true};

static void on_cpuid(unsigned vcpu, void *next)
{
    Vcpu *v = &stub.vcpus[vcpu];

    if ((uint32_t)vcpu_get(v, RAX) != 0x21 || (uint32_t)vcpu_get(v, RCX) != 0) {
        return;
    }
    vcpu_put(v, RAX, 0);
    vcpu_put(v, RBX, 0x65746e49); /* "IntelTDX    " in EBX, EDX, ECX */
    vcpu_put(v, RDX, 0x5844546c);
    vcpu_put(v, RCX, 0x20202020);
    qemu_plugin_set_pc((uintptr_t)next);
}

static void on_tdcall(unsigned vcpu, void *data)
{
    Vcpu *v = &stub.vcpus[vcpu];
    uint64_t pc = (uintptr_t)data;

    /* In user mode TDCALL is #UD, which QEMU raises when the instruction is left to it. */
    if (vcpu_get(v, REG_CS) & 3) {
        return;
    }
    tdcall_emulate(v, pc);
    qemu_plugin_set_pc(pc + 4);
}

static void watch_exec(struct qemu_plugin_insn *insn, VcpuCallback callback, int flags, void *data)
{
    callback = single_exec(callback, &data);
    qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, flags, data);
}

static void watch_memory(struct qemu_plugin_insn *insn, unsigned access, uint64_t pc)
{
    void *data = (void *)(uintptr_t)pc;
    bool wide = access & ACCESS_WIDE;

    /* Registers, for stacks: QEMU has them in memory at each access anyway, for it may fault. */
    if (access & ACCESS_LOAD) {
        qemu_plugin_register_vcpu_mem_cb(insn, single_mem(wide ? track_load_wide : track_load),
                                         CB_R_REGS, MEM_R, data);
    }
    if (access & ACCESS_STORE) {
        qemu_plugin_register_vcpu_mem_cb(insn, single_mem(wide ? track_store_wide : track_store),
                                         CB_R_REGS, MEM_W, data);
    }
}

static void watch_kind(struct qemu_plugin_insn *insn, const Insn *decoded, uint64_t pc,
                       size_t length)
{
    Site *site;

    if (decoded->kind == INSN_CPUID) {
        watch_exec(insn, on_cpuid, CB_RW_REGS_PC, (void *)(uintptr_t)(pc + length));
    } else if (decoded->kind == INSN_TDCALL) {
        watch_exec(insn, on_tdcall, CB_RW_REGS_PC, (void *)(uintptr_t)pc);
    } else if (decoded->kind != INSN_OTHER && stub.track) {
        /* Never freed: QEMU does not say when it drops a translation, and a kernel holds only
           dozens of these instructions. */
        site = g_new(Site, 1);
        *site = (Site){*decoded, pc};
        watch_exec(insn, flush_callback(decoded->kind), CB_R_REGS, site);
    }
}

/* Whether a push lies inside a run whose neighbours are watched for it. */
static bool is_covered_push(const unsigned *access, size_t i, size_t count, unsigned run)
{
    return i > 0 && i + 1 < count && access[i - 1] & access[i] & access[i + 1] & ACCESS_PUSH &&
           run % (PUSHES_PER_LINE - 1);
}

static void on_translate(struct qemu_plugin_tb *tb, void *unused)
{
    enum { MOST_INSNS = 1024, REAL_MODE_END = 1 << 20 };
    size_t count = MIN(qemu_plugin_tb_n_insns(tb), MOST_INSNS);
    unsigned access[MOST_INSNS], run = 0;

    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t pc = qemu_plugin_insn_vaddr(insn);
        uint8_t bytes[16];
        size_t length = qemu_plugin_insn_data(insn, bytes, sizeof(bytes));
        Insn decoded = insn_decode(bytes, length, pc);

        access[i] = insn_access(bytes, length);
        if (pc < REAL_MODE_END && pc % PAGE_BYTES == 0 && stub.track) {
            watch_exec(insn, flush_restart, CB_R_REGS, NULL);
        }
        watch_kind(insn, &decoded, pc, length);
    }
    for (size_t i = 0; i < count && stub.track; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);

        run = access[i] & ACCESS_PUSH ? run + 1 : 0;
        if (!is_covered_push(access, i, count, run)) {
            watch_memory(insn, access[i], qemu_plugin_insn_vaddr(insn));
        }
    }
}

static void on_vcpu_init(unsigned vcpu, void *unused)
{
    Vcpu *v;

    if (vcpu >= stub.vcpu_count) {
        g_error("tdstub: vCPU %u, but vcpus=%u was given", vcpu, stub.vcpu_count);
    }
    v = &stub.vcpus[vcpu];
    /* This thread sleeps for the vCPU's HLT: the default slack of 50 us would double that. */
    prctl(PR_SET_TIMERSLACK, 1000);
    single_enter();
    vcpu_init(v, vcpu);
    v->cr0 = vcpu_get(v, REG_CR0);
    v->cr3 = vcpu_get(v, REG_CR3);
    v->cr4 = vcpu_get(v, REG_CR4);
}

static void on_exit_of_qemu(void *unused)
{
    g_mutex_lock(&stub.lock);
    stub.stream.muted = false;
    for (unsigned counter = CNT_CLFLUSH; counter <= CNT_PT_STORE; counter++) {
        EventRecord record = {.kind = EV_COUNTER, .arg = {counter}};

        for (unsigned i = 0; i < stub.vcpu_count; i++) {
            record.arg[1] += stub.vcpus[i].counter[counter];
        }
        stream_put(&stub.stream, &record);
    }
    stream_close(&stub.stream);
    g_mutex_unlock(&stub.lock);
}

typedef struct Options {
    const char *out, *fault;
    uint64_t vcpus, below_4g, above_4g;
} Options;

static bool parse_switch(const char *value, bool *result)
{
    *result = !strcmp(value, "on");
    return *result || !strcmp(value, "off");
}

static bool parse_number(const char *value, uint64_t *result)
{
    char *end;

    errno = 0;
    *result = strtoull(value, &end, 10);
    return !errno && end != value && !*end;
}

static bool parse_option(Options *o, const char *name, const char *value)
{
    if (!strcmp(name, "out")) {
        o->out = value;
        return true;
    }
    if (!strcmp(name, "fault")) {
        o->fault = value;
        return true;
    }
    if (!strcmp(name, "vmm")) {
        return !stub.odd && odd_setup(value);
    }
    if (!strcmp(name, "track")) {
        return parse_switch(value, &stub.track);
    }
    if (!strcmp(name, "single")) {
        return parse_switch(value, &stub.single);
    }
    if (!strcmp(name, "vcpus")) {
        return parse_number(value, &o->vcpus) && o->vcpus > 0 && o->vcpus <= MAX_VCPUS;
    }
    if (!strcmp(name, "below4g")) {
        return parse_number(value, &o->below_4g) && o->below_4g % MIB2 == 0;
    }
    return !strcmp(name, "above4g") && parse_number(value, &o->above_4g);
}

static bool parse_options(Options *o, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        g_auto(GStrv) pair = g_strsplit(argv[i], "=", 2);

        if (!pair[0] || !pair[1] || !parse_option(o, pair[0], strchr(argv[i], '=') + 1)) {
            fprintf(stderr, "tdstub: bad option: %s\n", argv[i]);
            return false;
        }
    }
    if (!o->out || !o->vcpus || !o->below_4g) {
        fprintf(stderr, "tdstub: out=, vcpus= and below4g= are needed\n");
        return false;
    }
    return true;
}

PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                      char **argv)
{
    Options o = {0};
    EventHeader header = {
        .magic = EVENT_MAGIC,
        .version = EVENT_VERSION,
        .record_size = sizeof(EventRecord),
        .gpaw = GPAW,
    };

    if (info->version.cur < PLUGIN_API) {
        fprintf(stderr, "tdstub: plugin API %d is needed, this QEMU has %d\n", PLUGIN_API,
                info->version.cur);
        return -1;
    }
    if (!parse_options(&o, argc, argv)) {
        return -1;
    }
    if (stub.single && o.vcpus > 1 && !single_init()) {
        fprintf(stderr, "tdstub: single=on needs a QEMU that exports its running vCPU\n");
        return -1;
    }
    header.vcpus = o.vcpus;
    header.ram_below_4g = o.below_4g;
    header.ram_above_4g = o.above_4g;
    if (!stream_open(&stub.stream, o.out, &header)) {
        fprintf(stderr, "tdstub: cannot write %s: %s\n", o.out, strerror(errno));
        return -1;
    }
    stub.vcpu_count = o.vcpus;
    stub.vcpus = g_new0(Vcpu, o.vcpus);
    if (!memory_init(&stub.memory, o.below_4g, o.above_4g)) {
        fprintf(stderr, "tdstub: no address space for the model of memory\n");
        return -1;
    }
    if (o.fault && !inject_setup(o.fault)) {
        fprintf(stderr, "tdstub: bad option: fault=%s\n", o.fault);
        return -1;
    }
    conflict_init();
    qemu_plugin_register_vcpu_init_cb(id, on_vcpu_init, NULL);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate, NULL);
    qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
    return 0;
}

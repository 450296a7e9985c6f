/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "single.h"

#include <dlfcn.h>

#include "track.h"

/*
 * Names of QEMU's own, no part of its plugin interface: `current_cpu` is the running vCPU's object,
 * in a variable of each thread. A QEMU with loadable modules, as Debian's, exports them.
 */
#define RUNNING "current_cpu"
#define VCPU_OF_NUMBER "qemu_get_cpu"

static struct {
    void **running; /* of the thread of all vCPUs */
    void *(*of_number)(int number);
    void *known; /* what *running was when it was last looked up, and whose object that is */
    unsigned vcpu;
} single;

bool single_init(void)
{
    *(void **)&single.of_number = dlsym(RTLD_DEFAULT, VCPU_OF_NUMBER);
    return single.of_number && dlsym(RTLD_DEFAULT, RUNNING);
}

void single_enter(void)
{
    if (single.of_number) {
        single.running = dlsym(RTLD_DEFAULT, RUNNING);
    }
}

static unsigned running_vcpu(void)
{
    if (*single.running == single.known) {
        return single.vcpu;
    }
    for (unsigned i = 0; i < stub.vcpu_count; i++) {
        if (single.of_number(i) == *single.running) {
            single.known = *single.running;
            single.vcpu = i;
            return i;
        }
    }
    g_error("tdstub: QEMU runs a vCPU that has no number");
}

typedef struct Told {
    VcpuCallback callback;
    void *data;
} Told;

static void exec_told(unsigned unused, void *data)
{
    const Told *told = data;

    told->callback(running_vcpu(), told->data);
}

VcpuCallback single_exec(VcpuCallback callback, void **data)
{
    Told *told;

    if (!single.of_number) {
        return callback;
    }
    /* Never freed, as the sites of instructions are not. */
    told = g_new(Told, 1);
    *told = (Told){callback, *data};
    *data = told;
    return exec_told;
}

#define TOLD(name)                                                                                 \
    static void name##_told(unsigned unused, qemu_plugin_meminfo_t info, uint64_t va, void *pc)    \
    {                                                                                              \
        name(running_vcpu(), info, va, pc);                                                        \
    }
TOLD(track_load)
TOLD(track_store)
TOLD(track_load_wide)
TOLD(track_store_wide)

MemCallback single_mem(MemCallback callback)
{
    static const struct {
        MemCallback callback, told;
    } pairs[] = {
        {track_load, track_load_told},
        {track_store, track_store_told},
        {track_load_wide, track_load_wide_told},
        {track_store_wide, track_store_wide_told},
    };

    for (size_t i = 0; single.of_number && i < G_N_ELEMENTS(pairs); i++) {
        if (pairs[i].callback == callback) {
            return pairs[i].told;
        }
    }
    return callback;
}

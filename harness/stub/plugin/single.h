/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which vCPU runs a callback, where all vCPUs share one thread (-accel tcg,thread=single).
 *
 * QEMU 11.1 compiles the number of the vCPU into the code that calls a plugin when vCPUs do not run
 * in parallel (gen_cpu_index() in accel/tcg/plugin-gen.c, made for machines of one vCPU), but all
 * vCPUs run the same compiled blocks. A callback is then told the vCPU that a block was compiled
 * for, and not the one that runs it: an INVLPG of vCPU 1 counted for vCPU 0.
 */
#ifndef TDH_SINGLE_H
#define TDH_SINGLE_H

#include <stdbool.h>

#include "qemu_api.h"

/* Take the look-ups below into use; false when this QEMU does not tell which vCPU runs. */
bool single_init(void);
/* By the thread that runs the vCPUs, before any callback. */
void single_enter(void);
/* What to register in place of a callback, so that it gets the number of the vCPU that runs. */
VcpuCallback single_exec(VcpuCallback callback, void **data);
MemCallback single_mem(MemCallback callback);

#endif

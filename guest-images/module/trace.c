// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel does in a conversion, in the order in which it does it: kprobes at places in its
 * own code, which the host has looked up. Nothing here changes what it does, unless it is asked to
 * leave something out.
 *
 * All are probes by breakpoint, behind the call that begins a function: its handler runs with
 * interrupts off. One at the call would be ftrace's, and one of a function's return would be a
 * kretprobe's: an interrupt that comes in between hits no probe, so invalidations would be missed.
 */
#include <linux/cpumask.h>
#include <linux/io.h>
#include <linux/kprobes.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>

#include "tdharness.h"
#include "trace.h"

#define PROBES_MAX 32
#define LENGTH_MAX 15
#define SYMBOL_MAX 64

/* A place in the kernel; for a CLFLUSH, its line is at a register and a displacement. */
struct place {
	struct kprobe probe;
	char symbol[SYMBOL_MAX];
	unsigned int base;
	s32 displacement;
	unsigned int length;
};

static DEFINE_MUTEX(putting);
static struct place places[PROBES_MAX];
static unsigned int place_count;
/* Planted: one of so many lines is not flushed; no task but the converting one invalidates. */
static unsigned int skip_lines;
static bool skip_others;
static atomic_t line_number = ATOMIC_INIT(0);
static pid_t converting;

/* In the order in which an instruction counts them. */
static const unsigned int register_at[] = {
	offsetof(struct pt_regs, ax),  offsetof(struct pt_regs, cx),  offsetof(struct pt_regs, dx),
	offsetof(struct pt_regs, bx),  offsetof(struct pt_regs, sp),  offsetof(struct pt_regs, bp),
	offsetof(struct pt_regs, si),  offsetof(struct pt_regs, di),  offsetof(struct pt_regs, r8),
	offsetof(struct pt_regs, r9),  offsetof(struct pt_regs, r10), offsetof(struct pt_regs, r11),
	offsetof(struct pt_regs, r12), offsetof(struct pt_regs, r13), offsetof(struct pt_regs, r14),
	offsetof(struct pt_regs, r15),
};

static u64 gpa_of(unsigned long address)
{
	void *pointer = (void *)address;

	if (is_vmalloc_addr(pointer))
		return (u64)vmalloc_to_pfn(pointer) << PAGE_SHIFT;
	return virt_addr_valid(pointer) ? virt_to_phys(pointer) : 0;
}

/* __set_memory_enc_pgtable(address, pages, private) */
static int on_convert(struct kprobe *probe, struct pt_regs *regs)
{
	WRITE_ONCE(converting, current->pid);
	tdh_log_stack(TRACE_CONVERT, regs->di, (u32)regs->si, !(regs->dx & 0xff), gpa_of(regs->di),
		      regs->sp);
	return 0;
}

static int on_converted(struct kprobe *probe, struct pt_regs *regs)
{
	tdh_log(TRACE_CONVERTED, (u32)regs->ax, 0, 0, 0);
	return 0;
}

/* __change_page_attr_set_clr(), which calls itself: the page table entries change from here on. */
static int on_change(struct kprobe *probe, struct pt_regs *regs)
{
	tdh_log(TRACE_CHANGE, 0, 0, 0, 0);
	return 0;
}

/* Behind it they have changed. */
static int on_changed(struct kprobe *probe, struct pt_regs *regs)
{
	tdh_log(TRACE_CHANGED, (u32)regs->ax, 0, 0, 0);
	return 0;
}

/* tdx_map_gpa(start, end, private) */
static int on_map(struct kprobe *probe, struct pt_regs *regs)
{
	tdh_log_stack(TRACE_MAP, regs->di, regs->si, !(regs->dx & 0xff), 0, regs->sp);
	return 0;
}

static int on_mapped(struct kprobe *probe, struct pt_regs *regs)
{
	tdh_log(TRACE_MAPPED, regs->ax & 0xff, 0, 0, 0);
	return 0;
}

/* try_accept_one(start, bytes, level): bytes that were accepted */
static int on_accept(struct kprobe *probe, struct pt_regs *regs)
{
	tdh_log(TRACE_ACCEPT, regs->di, regs->si, (u32)regs->dx, 0);
	return 0;
}

static int on_accepted(struct kprobe *probe, struct pt_regs *regs)
{
	tdh_log(TRACE_ACCEPTED, regs->ax, 0, 0, 0);
	return 0;
}

/* Where an invalidation returns at once. */
static notrace noinline void leave_out(void)
{
	barrier();
}

/* True for an invalidation that is to be left out: another CPU asked for it. */
static bool skipped(struct pt_regs *regs)
{
	if (!READ_ONCE(skip_others) || current->pid == READ_ONCE(converting))
		return false;
	regs->ip = (unsigned long)leave_out;
	return true;
}

static int on_invalidate(struct kprobe *probe, struct pt_regs *regs)
{
	if (skipped(regs))
		return 1;
	tdh_log(TRACE_INVALIDATE, regs->di, 0, 0, 0);
	return 0;
}

static int on_invalidate_all(struct kprobe *probe, struct pt_regs *regs)
{
	if (skipped(regs))
		return 1;
	tdh_log(TRACE_INVALIDATE_ALL, 0, 0, 0, 0);
	return 0;
}

static int on_lines(struct kprobe *probe, struct pt_regs *regs)
{
	struct place *place = container_of(probe, struct place, probe);
	unsigned int every = READ_ONCE(skip_lines);

	if (every && atomic_inc_return(&line_number) % every == 0) {
		regs->ip = (unsigned long)probe->addr + place->length;
		return 1;
	}
	tdh_log_line(*(unsigned long *)((void *)regs + register_at[place->base]) +
		     place->displacement);
	return 0;
}

static const struct {
	const char *kind;
	kprobe_pre_handler_t handler;
} kinds[] = {
	{ "convert", on_convert },
	{ "converted", on_converted },
	{ "change", on_change },
	{ "changed", on_changed },
	{ "map", on_map },
	{ "mapped", on_mapped },
	{ "accept", on_accept },
	{ "accepted", on_accepted },
	{ "invalidate", on_invalidate },
	{ "invalidate-all", on_invalidate_all },
	{ "lines", on_lines },
};

static kprobe_pre_handler_t handler_of(const char *kind)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].kind, kind))
			return kinds[i].handler;
	return NULL;
}

static int place_arguments(struct tdh_request *req, const char *kind, struct place *place)
{
	u64 offset, base, displacement, length;

	if (tdh_number(req, "offset", 0, U32_MAX, &offset) ||
	    tdh_number(req, "base", 0, ARRAY_SIZE(register_at) - 1, &base) ||
	    tdh_number(req, "displacement", 0, U32_MAX, &displacement) ||
	    tdh_number(req, "length", 0, LENGTH_MAX, &length))
		return -EINVAL;
	strscpy(place->symbol, tdh_word(req, "symbol", ""), sizeof(place->symbol));
	place->base = base;
	place->displacement = displacement;
	place->length = length;
	place->probe = (struct kprobe){ .symbol_name = place->symbol,
					.offset = offset,
					.pre_handler = handler_of(kind) };
	return place->probe.pre_handler ? 0 : tdh_fail(req, -EINVAL, "no probe %s", kind);
}

/* probe: puts one; a place that the kernel refuses is reported, and is no failure. */
int tdh_probe(struct tdh_request *req)
{
	const char *kind = tdh_word(req, "kind", "");
	struct place *place;
	int error;

	mutex_lock(&putting);
	place = &places[place_count];
	if (place_count == PROBES_MAX)
		error = tdh_fail(req, -ENOSPC, "more than %d places", PROBES_MAX);
	else
		error = place_arguments(req, kind, place);
	if (!error) {
		int refused = register_kprobe(&place->probe);

		place_count += !refused;
		tdh_report(req, "probe=%s at=%s+%u error=%d\n", kind, place->symbol,
			   place->probe.offset, refused);
	}
	mutex_unlock(&putting);
	return error;
}

/* trace: from now on there is one to be read. */
int tdh_trace(struct tdh_request *req)
{
	int error = tdh_log_open();

	tdh_report(req, "cpus=%*pbl\n", cpumask_pr_args(cpu_online_mask));
	return error;
}

/* skip: plants what the trace has to find, in the kernel's own conversions. */
int tdh_skip(struct tdh_request *req)
{
	u64 lines, others;

	if (tdh_number(req, "lines", 0, U32_MAX, &lines) ||
	    tdh_number(req, "others", 0, 1, &others))
		return -EINVAL;
	if (!READ_ONCE(place_count))
		return tdh_fail(req, -EINVAL, "there is no probe");
	atomic_set(&line_number, 0);
	WRITE_ONCE(skip_lines, lines);
	WRITE_ONCE(skip_others, others);
	return 0;
}

unsigned long tdh_trace_missed(void)
{
	unsigned long count = 0;

	for (unsigned int i = 0; i < READ_ONCE(place_count); i++)
		count += places[i].probe.nmissed;
	return count;
}

void tdh_trace_exit(void)
{
	for (unsigned int i = 0; i < place_count; i++)
		unregister_kprobe(&places[i].probe);
}

/* SPDX-License-Identifier: GPL-2.0 */
/* The trace of conversions: records in one order over all CPUs, read as lines of text. */
#ifndef TDHARNESS_TRACE_H
#define TDHARNESS_TRACE_H

#include <linux/types.h>

/*
 * A line is "<number> <cpu> <task> <word> <argument>...", numbers in hexadecimal but for the CPU.
 * harness/guesttrace/record.py reads it and says what each argument is.
 */
enum trace_kind {
	TRACE_MARK,
	TRACE_CONVERT,
	TRACE_CONVERTED,
	TRACE_CHANGE,
	TRACE_CHANGED,
	TRACE_MAP,
	TRACE_MAPPED,
	TRACE_ACCEPT,
	TRACE_ACCEPTED,
	TRACE_INVALIDATE,
	TRACE_INVALIDATE_ALL,
	TRACE_LINES,
	TRACE_STACK,
};

/* tracelog.c */
void tdh_log_init(void);
void tdh_log_exit(void);
/* Nothing is kept before; -ENOMEM. */
int tdh_log_open(void);
/* These may be called anywhere that a kprobe may be. */
void tdh_log(enum trace_kind kind, u64 a, u64 b, u64 c, u64 d);
/* The flush of one line; lines in a row become one record. */
void tdh_log_line(u64 address);
/* With the addresses of code that stand on the stack above `sp`. */
void tdh_log_stack(enum trace_kind kind, u64 a, u64 b, u64 c, u64 d, unsigned long sp);

/* trace.c */
void tdh_trace_exit(void);
/* How often a probe was hit that could not be handled. */
unsigned long tdh_trace_missed(void);

#endif

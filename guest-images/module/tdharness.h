/* SPDX-License-Identifier: GPL-2.0 */
/*
 * tdharness: drives the kernel's conversion and DMA interfaces on command.
 *
 * One command is one line, "verb key=value ...", written to /dev/tdharness.  Its result is read
 * from the same open file: lines "key=value", then "ok" or "failed: <reason>".
 */
#ifndef TDHARNESS_H
#define TDHARNESS_H

#include <linux/cpumask.h>
#include <linux/types.h>

#define TDH_COMMAND_MAX 256
#define TDH_RESULT_MAX 4096
#define TDH_ARGS_MAX 8

struct device;

struct tdh_arg {
	const char *key;
	const char *value;
	bool used;
};

/* One command and its result. */
struct tdh_request {
	char command[TDH_COMMAND_MAX];
	struct tdh_arg arg[TDH_ARGS_MAX];
	unsigned int args;
	char result[TDH_RESULT_MAX];
	size_t length;
	char reason[128];
};

/* main.c: arguments and results.  A getter returns the default when the key was not given. */
const char *tdh_word(struct tdh_request *req, const char *key, const char *otherwise);
int tdh_number(struct tdh_request *req, const char *key, u64 otherwise, u64 max, u64 *value);
__printf(2, 3) void tdh_report(struct tdh_request *req, const char *format, ...);
__printf(3, 4) int tdh_fail(struct tdh_request *req, int error, const char *format, ...);

/* touch.c: loads and stores from chosen CPUs, one word per line and CPU. */
struct tdh_touch {
	void *buffer;
	size_t bytes;
	/* who touches; set by tdh_touch_cpus() */
	struct cpumask cpus;
	/* patterns of another round or phase never look alike */
	u64 round;
	/* results of tdh_check() */
	atomic64_t mismatches;
	atomic64_t first;
	/* words that still held a pattern, results of tdh_survey() */
	atomic64_t kept;
};

int tdh_touch_cpus(struct tdh_request *req, struct cpumask *cpus);
void tdh_write(struct tdh_touch *touch);
void tdh_check(struct tdh_touch *touch);
void tdh_survey(struct tdh_touch *touch);
u8 tdh_byte(size_t offset, u8 seed);
void tdh_fill(void *buffer, size_t bytes, u8 seed);
size_t tdh_compare(const void *buffer, size_t bytes, u8 seed, size_t *first);

/* One "dma" line of the result; returns -EIO when there are mismatches. */
int tdh_report_dma(struct tdh_request *req, const char *device, const char *direction,
		   const char *method, size_t bytes, size_t mismatches, size_t first);

/* Verbs: 0 or -errno, with the reason given by tdh_fail(). */
int tdh_convert(struct tdh_request *req);
int tdh_parallel(struct tdh_request *req);
int tdh_coherent(struct tdh_request *req);
int tdh_stream(struct tdh_request *req);
int tdh_atomic(struct tdh_request *req);
int tdh_edu(struct tdh_request *req);
int tdh_edu_mismatch(struct tdh_request *req);
int tdh_mark(struct tdh_request *req);
int tdh_info(struct tdh_request *req);
int tdh_fault(struct tdh_request *req);
int tdh_probe(struct tdh_request *req);
int tdh_trace(struct tdh_request *req);
int tdh_skip(struct tdh_request *req);

int tdh_dma_init(void);
void tdh_dma_exit(void);
int tdh_edu_init(void);
void tdh_edu_exit(void);

#endif

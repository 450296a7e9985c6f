// SPDX-License-Identifier: GPL-2.0
/* Loads and stores from chosen CPUs, and the patterns that tell whether they arrived. */
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/smp.h>

#include "tdharness.h"

#define LINE 64
#define WORDS_PER_LINE (LINE / sizeof(u64))

/*
 * Each CPU has its own word in a line, so that all can write at once.  With more than eight CPUs
 * there are groups, and every group has lines of its own.
 */
static u64 *own_word(const struct tdh_touch *touch, size_t line, unsigned int cpu)
{
	size_t groups = DIV_ROUND_UP(nr_cpu_ids, WORDS_PER_LINE);

	if (line % groups != cpu / WORDS_PER_LINE)
		return NULL;
	return (u64 *)touch->buffer + line * WORDS_PER_LINE + cpu % WORDS_PER_LINE;
}

static u64 pattern(const struct tdh_touch *touch, const u64 *word)
{
	u64 offset = (void *)word - touch->buffer;

	/* Never zero: that is what a page holds after it was accepted. */
	return (offset + touch->round * SZ_1G) * GOLDEN_RATIO_64 | 1;
}

static void write_one(void *info)
{
	struct tdh_touch *touch = info;
	unsigned int cpu = smp_processor_id();

	for (size_t line = 0; line < touch->bytes / LINE; line++) {
		u64 *word = own_word(touch, line, cpu);

		if (word)
			WRITE_ONCE(*word, pattern(touch, word));
	}
}

static void read_one(void *info)
{
	struct tdh_touch *touch = info;
	unsigned int cpu;

	for (size_t line = 0; line < touch->bytes / LINE; line++) {
		for_each_cpu(cpu, &touch->cpus) {
			u64 *word = own_word(touch, line, cpu);

			if (!word)
				continue;
			if (READ_ONCE(*word) == pattern(touch, word)) {
				atomic64_inc(&touch->kept);
				continue;
			}
			if (atomic64_inc_return(&touch->mismatches) == 1)
				atomic64_set(&touch->first, (void *)word - touch->buffer);
		}
	}
}

int tdh_touch_cpus(struct tdh_request *req, struct cpumask *cpus)
{
	const char *word = tdh_word(req, "cpus", "all");
	u64 count, taken = 0;
	unsigned int cpu;
	int error;

	cpumask_copy(cpus, cpu_online_mask);
	if (!strcmp(word, "all"))
		return 0;
	error = tdh_number(req, "cpus", 0, num_online_cpus(), &count);
	if (error)
		return error;
	if (!count)
		return tdh_fail(req, -EINVAL, "cpus must be all or at least 1");
	for_each_cpu(cpu, cpu_online_mask)
		if (taken++ >= count)
			cpumask_clear_cpu(cpu, cpus);
	return 0;
}

/* Every chosen CPU stores its pattern into every line. */
void tdh_write(struct tdh_touch *touch)
{
	touch->round++;
	on_each_cpu_mask(&touch->cpus, write_one, touch, true);
}

/* Every chosen CPU loads what all of them stored; what differs is counted. */
void tdh_check(struct tdh_touch *touch)
{
	on_each_cpu_mask(&touch->cpus, read_one, touch, true);
}

/* Like tdh_check(), but a difference is no mismatch: only what was kept is counted. */
void tdh_survey(struct tdh_touch *touch)
{
	s64 mismatches = atomic64_read(&touch->mismatches);
	s64 first = atomic64_read(&touch->first);

	atomic64_set(&touch->kept, 0);
	tdh_check(touch);
	/* Every CPU read every word. */
	atomic64_set(&touch->kept, atomic64_read(&touch->kept) / cpumask_weight(&touch->cpus));
	atomic64_set(&touch->mismatches, mismatches);
	atomic64_set(&touch->first, first);
}

/* Byte patterns, for what a device copies. */
u8 tdh_byte(size_t offset, u8 seed)
{
	return hash_32(offset * 256 + seed, 8);
}

void tdh_fill(void *buffer, size_t bytes, u8 seed)
{
	for (size_t i = 0; i < bytes; i++)
		((u8 *)buffer)[i] = tdh_byte(i, seed);
}

size_t tdh_compare(const void *buffer, size_t bytes, u8 seed, size_t *first)
{
	size_t mismatches = 0;

	for (size_t i = 0; i < bytes; i++)
		if (((const u8 *)buffer)[i] != tdh_byte(i, seed) && !mismatches++)
			*first = i;
	return mismatches;
}

int tdh_report_dma(struct tdh_request *req, const char *device, const char *direction,
		   const char *method, size_t bytes, size_t mismatches, size_t first)
{
	tdh_report(req,
		   "dma device=%s direction=%s method=%s bytes=%zu mismatches=%zu first=", device,
		   direction, method, bytes, mismatches);
	if (!mismatches) {
		tdh_report(req, "none\n");
		return 0;
	}
	tdh_report(req, "%zu\n", first);
	return tdh_fail(req, -EIO, "%s %s (%s): %zu of %zu bytes differ", device, direction, method,
			mismatches, bytes);
}

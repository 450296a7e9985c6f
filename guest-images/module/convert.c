// SPDX-License-Identifier: GPL-2.0
/* Conversions through the kernel's own interface, from one CPU or from all at once. */
#include <linux/completion.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/set_memory.h>
#include <linux/slab.h>

#include "tdharness.h"

#define CYCLES_MAX 1000

#ifndef MAX_PAGE_ORDER /* in v6.8 and newer */
#define MAX_PAGE_ORDER MAX_ORDER
#endif

/* A block of memory, a part of which is converted to and fro. */
struct job {
	struct tdh_touch touch;
	unsigned long block;
	unsigned int order;
	u64 cycles;
	u64 conversions;
	u64 to_shared_ns;
	u64 to_private_ns;
	u64 kept;
	/* the failing conversion; the pages must never be used again */
	const char *failed;
};

static int job_arguments(struct tdh_request *req, struct job *job, u64 *offset)
{
	u64 limit = PAGE_SIZE << MAX_PAGE_ORDER;
	u64 size, block;

	if (tdh_number(req, "size", SZ_4K, limit, &size) ||
	    tdh_number(req, "offset", 0, limit, offset) ||
	    tdh_number(req, "block", 0, limit, &block) ||
	    tdh_number(req, "cycles", 1, CYCLES_MAX, &job->cycles) ||
	    tdh_touch_cpus(req, &job->touch.cpus))
		return -EINVAL;
	if (!size || !PAGE_ALIGNED(size) || !PAGE_ALIGNED(*offset))
		return tdh_fail(req, -EINVAL, "size and offset must be whole pages");
	block = roundup_pow_of_two(max3(block, *offset + size, (u64)PAGE_SIZE));
	if (block > limit)
		return tdh_fail(req, -EINVAL, "offset + size is more than %llu", limit);
	job->order = get_order(block);
	job->touch.bytes = size;
	return 0;
}

static int job_allocate(struct tdh_request *req, struct job *job, u64 offset)
{
	job->block = __get_free_pages(GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL, job->order);
	if (!job->block)
		return tdh_fail(req, -ENOMEM, "no block of %lu bytes", PAGE_SIZE << job->order);
	job->touch.buffer = (void *)job->block + offset;
	return 0;
}

/* Pages whose state is not known are leaked on purpose: they may be shared with the host. */
static void job_free(struct job *job)
{
	if (!job->failed)
		free_pages(job->block, job->order);
}

static int job_convert(struct job *job, bool shared)
{
	unsigned long address = (unsigned long)job->touch.buffer;
	int pages = job->touch.bytes >> PAGE_SHIFT;
	u64 start = ktime_get_ns();
	int error = shared ? set_memory_decrypted(address, pages) :
			     set_memory_encrypted(address, pages);

	*(shared ? &job->to_shared_ns : &job->to_private_ns) += ktime_get_ns() - start;
	job->conversions++;
	if (error)
		job->failed = shared ? "set_memory_decrypted" : "set_memory_encrypted";
	return error;
}

/* Each cycle: store as private, convert, store and check as shared, convert, load as private. */
static int job_run(struct job *job)
{
	int error = 0;

	for (u64 cycle = 0; cycle < job->cycles && !error; cycle++) {
		tdh_write(&job->touch);
		tdh_check(&job->touch);
		error = job_convert(job, true);
		if (error)
			break;
		tdh_write(&job->touch);
		tdh_check(&job->touch);
		error = job_convert(job, false);
		if (error)
			break;
		/* The contents are gone by contract: what was kept is counted, not judged. */
		tdh_survey(&job->touch);
		job->kept += atomic64_read(&job->touch.kept);
		tdh_write(&job->touch);
		tdh_check(&job->touch);
	}
	return error;
}

static int job_report(struct tdh_request *req, struct job *job, int error)
{
	u64 mismatches = atomic64_read(&job->touch.mismatches);

	tdh_report(req, "buffer=%px\nbytes=%zu\ncycles=%llu\nconversions=%llu\nmismatches=%llu\n",
		   job->touch.buffer, job->touch.bytes, job->cycles, job->conversions, mismatches);
	tdh_report(req, "kept_words=%llu\nto_shared_us=%llu\nto_private_us=%llu\n", job->kept,
		   job->to_shared_ns / NSEC_PER_USEC, job->to_private_ns / NSEC_PER_USEC);
	if (job->failed)
		return tdh_fail(req, error, "%s of %zu bytes at %px: pages leaked", job->failed,
				job->touch.bytes, job->touch.buffer);
	if (mismatches)
		return tdh_fail(req, -EIO, "%llu words differ, first at offset %lld", mismatches,
				atomic64_read(&job->touch.first));
	return 0;
}

int tdh_convert(struct tdh_request *req)
{
	struct job *job = kzalloc(sizeof(*job), GFP_KERNEL);
	u64 offset;
	int error;

	if (!job)
		return -ENOMEM;
	error = job_arguments(req, job, &offset) ?: job_allocate(req, job, offset);
	if (!error) {
		error = job_run(job);
		error = job_report(req, job, error);
		job_free(job);
	}
	kfree(job);
	return error;
}

struct worker {
	struct job job;
	struct task_struct *task;
	struct completion *start;
	struct completion done;
	int error;
};

static int worker_main(void *data)
{
	struct worker *worker = data;

	wait_for_completion(worker->start);
	worker->error = job_run(&worker->job);
	complete(&worker->done);
	return 0;
}

static int worker_create(struct tdh_request *req, struct worker *worker, unsigned int cpu)
{
	struct task_struct *task;
	u64 offset;
	int error = job_arguments(req, &worker->job, &offset) ?:
			    job_allocate(req, &worker->job, offset);

	if (error)
		return error;
	init_completion(&worker->done);
	task = kthread_create_on_cpu(worker_main, worker, cpu, "tdharness/%u");
	if (IS_ERR(task)) {
		job_free(&worker->job);
		return tdh_fail(req, PTR_ERR(task), "no thread for CPU %u", cpu);
	}
	worker->task = get_task_struct(task);
	return 0;
}

static int worker_finish(struct tdh_request *req, struct worker *worker, bool started)
{
	int error = 0;

	if (started) {
		wait_for_completion(&worker->done);
		error = job_report(req, &worker->job, worker->error);
	}
	/* A thread that never ran returns at once; one that did has left this module's code. */
	kthread_stop(worker->task);
	put_task_struct(worker->task);
	job_free(&worker->job);
	return error;
}

/* The same job on every CPU at the same time, each with memory of its own. */
int tdh_parallel(struct tdh_request *req)
{
	struct worker *workers = kvcalloc(nr_cpu_ids, sizeof(*workers), GFP_KERNEL);
	DECLARE_COMPLETION_ONSTACK(start);
	int error = 0, result = 0;
	unsigned int cpu;

	if (!workers)
		return -ENOMEM;
	for_each_online_cpu(cpu) {
		workers[cpu].start = &start;
		error = worker_create(req, &workers[cpu], cpu);
		if (error)
			break;
	}
	for (cpu = 0; !error && cpu < nr_cpu_ids; cpu++)
		if (workers[cpu].task)
			wake_up_process(workers[cpu].task);
	complete_all(&start);
	for (cpu = 0; cpu < nr_cpu_ids; cpu++)
		if (workers[cpu].task)
			result = worker_finish(req, &workers[cpu], !error) ?: result;
	kvfree(workers);
	return error ?: result;
}

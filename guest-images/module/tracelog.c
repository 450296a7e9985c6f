// SPDX-License-Identifier: GPL-2.0
/* A ring of records: written from kprobes on all CPUs, read once from debugfs. */
#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/sched/task_stack.h>
#include <linux/smp.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "trace.h"

/* 7 MiB. A conversion takes 20 records and, up to 33 pages, three for each page and CPU. */
#define RECORDS (1UL << 17)
#define LINE_BYTES 64
#define TEXT_MAX 128
#define STACK_WORDS 48
#define WORDS_PER_RECORD 4
/* Where code is: the kernel's image and modules. */
#define CODE_START 0xffffffff80000000UL
#define CODE_END 0xffffffffff000000UL

struct record {
	/* its number plus one, once the rest is there */
	u64 done;
	u64 arg[4];
	u64 task;
	u32 cpu;
	u32 kind;
};

static const char *const words[] = {
	[TRACE_MARK] = "mark",
	[TRACE_CONVERT] = "convert",
	[TRACE_CONVERTED] = "converted",
	[TRACE_CHANGE] = "change",
	[TRACE_CHANGED] = "changed",
	[TRACE_MAP] = "map",
	[TRACE_MAPPED] = "mapped",
	[TRACE_ACCEPT] = "accept",
	[TRACE_ACCEPTED] = "accepted",
	[TRACE_INVALIDATE] = "invalidate",
	[TRACE_INVALIDATE_ALL] = "invalidate-all",
	[TRACE_LINES] = "lines",
	[TRACE_STACK] = "stack",
};

static struct record *records;
static struct dentry *directory;
static DEFINE_MUTEX(reading);
/* Numbers, never folded; tail is the first that was not read. */
static atomic64_t head = ATOMIC64_INIT(0);
static atomic64_t lost = ATOMIC64_INIT(0);
static u64 tail;
static u64 missed_before;
/* The record of a CPU that its next line may become a part of, and when the task was switched. */
static DEFINE_PER_CPU(struct record *, growing);
static DEFINE_PER_CPU(unsigned long, switches);

static struct record *slot(u64 number)
{
	return &records[number % RECORDS];
}

/* The number of the first of `count` records in a row, or ~0: there is no room. */
static u64 reserve(unsigned int count)
{
	s64 at = atomic64_read(&head);

	/* Not before tdh_log_open(). */
	if (!smp_load_acquire(&records))
		return ~0ULL;
	do {
		if (at + count - READ_ONCE(tail) > RECORDS) {
			atomic64_inc(&lost);
			return ~0ULL;
		}
	} while (!atomic64_try_cmpxchg(&head, &at, at + count));
	return at;
}

static void fill(u64 number, enum trace_kind kind, const u64 *arg)
{
	struct record *record = slot(number);

	memcpy(record->arg, arg, sizeof(record->arg));
	record->task = current->pid;
	record->cpu = raw_smp_processor_id();
	record->kind = kind;
	smp_store_release(&record->done, number + 1);
}

void tdh_log(enum trace_kind kind, u64 a, u64 b, u64 c, u64 d)
{
	u64 number = reserve(1);

	this_cpu_write(growing, NULL);
	if (number != ~0ULL)
		fill(number, kind, (u64[]){ a, b, c, d });
}

/*
 * Called with interrupts off, from an int3: nothing of this CPU comes between. A task that was
 * switched may have done something on another CPU in the meantime, so its lines begin anew.
 */
void tdh_log_line(u64 address)
{
	struct record *record = this_cpu_read(growing);
	unsigned long switched = current->nvcsw + current->nivcsw;
	u64 number;

	if (record && record->task == current->pid && this_cpu_read(switches) == switched &&
	    address == record->arg[0] + record->arg[1]) {
		record->arg[1] += LINE_BYTES;
		return;
	}
	number = reserve(1);
	/* Before it is there to be read, for who reads it asks whether it grows. */
	this_cpu_write(growing, number == ~0ULL ? NULL : slot(number));
	this_cpu_write(switches, switched);
	if (number != ~0ULL)
		fill(number, TRACE_LINES, (u64[]){ address, LINE_BYTES, 0, 0 });
}

static unsigned int code_above(unsigned long sp, u64 *found)
{
	unsigned long end = (unsigned long)task_stack_page(current) + THREAD_SIZE;
	unsigned int count = 0;

	if (!object_is_on_stack((void *)sp))
		return 0;
	for (; sp < end && count < STACK_WORDS; sp += sizeof(long)) {
		unsigned long word = READ_ONCE_NOCHECK(*(unsigned long *)sp);

		if (word >= CODE_START && word < CODE_END)
			found[count++] = word;
	}
	return count;
}

void tdh_log_stack(enum trace_kind kind, u64 a, u64 b, u64 c, u64 d, unsigned long sp)
{
	u64 found[STACK_WORDS + WORDS_PER_RECORD] = {};
	unsigned int count = code_above(sp, found);
	unsigned int more = DIV_ROUND_UP(count, WORDS_PER_RECORD);
	u64 number = reserve(1 + more);

	this_cpu_write(growing, NULL);
	if (number == ~0ULL)
		return;
	fill(number, kind, (u64[]){ a, b, c, d });
	for (unsigned int i = 0; i < more; i++)
		fill(number + 1 + i, TRACE_STACK, found + i * WORDS_PER_RECORD);
}

static void stop_growing(void *unused)
{
	this_cpu_write(growing, NULL);
}

int tdh_log_open(void)
{
	if (!records) {
		struct record *ring = vzalloc(RECORDS * sizeof(*ring));

		if (!ring)
			return -ENOMEM;
		smp_store_release(&records, ring);
	}
	return 0;
}

/* What is there no longer grows; what comes while it is read may. */
static int log_file_open(struct inode *inode, struct file *file)
{
	on_each_cpu(stop_growing, NULL, 1);
	return stream_open(inode, file);
}

static size_t print(char *text, const struct record *record)
{
	return scnprintf(text, TEXT_MAX, "%llx %u %llx %s %llx %llx %llx %llx\n", tail, record->cpu,
			 record->task, words[record->kind], record->arg[0], record->arg[1],
			 record->arg[2], record->arg[3]);
}

/* Of records that found no room, and of missed probes; told once, when all others were read. */
static size_t print_lost(char *text)
{
	u64 missed = tdh_trace_missed();
	u64 count = atomic64_xchg(&lost, 0) + missed - missed_before;

	missed_before = missed;
	return count ? scnprintf(text, TEXT_MAX, "%llx 0 0 lost %llx 0 0 0\n", tail, count) : 0;
}

static size_t next_line(char *text)
{
	const struct record *record = slot(tail);
	size_t length;

	if (tail == atomic64_read(&head))
		return print_lost(text);
	/* Its writer was interrupted, or goes on with it: it comes with the next read. */
	if (smp_load_acquire(&record->done) != tail + 1 ||
	    READ_ONCE(*per_cpu_ptr(&growing, record->cpu)) == record)
		return 0;
	length = print(text, record);
	WRITE_ONCE(tail, tail + 1);
	return length;
}

static ssize_t log_file_read(struct file *file, char __user *data, size_t size, loff_t *pos)
{
	char text[TEXT_MAX];
	size_t length, done = 0;

	if (mutex_lock_interruptible(&reading))
		return -EINTR;
	while (records && size - done >= sizeof(text) && (length = next_line(text))) {
		if (copy_to_user(data + done, text, length)) {
			mutex_unlock(&reading);
			return -EFAULT;
		}
		done += length;
	}
	mutex_unlock(&reading);
	return done;
}

static const struct file_operations log_file_ops = {
	.owner = THIS_MODULE,
	.open = log_file_open,
	.read = log_file_read,
};

void tdh_log_init(void)
{
	directory = debugfs_create_dir("tdharness", NULL);
	debugfs_create_file("trace", 0400, directory, NULL, &log_file_ops);
}

void tdh_log_exit(void)
{
	debugfs_remove(directory);
	vfree(records);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the kernel complain in a chosen way: echo NAME > /proc/trouble. The golden logs of
 * tests/data/kernellog were recorded with it; no workload loads it.
 */
#include <linux/delay.h>
#include <linux/irq_work.h>
#include <linux/kernel.h>
#include <linux/kfence.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/set_memory.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

static noinline void trouble_warn(void)
{
	WARN(1, "trouble: a planted warning\n");
}

static noinline void trouble_warn_on(void)
{
	WARN_ON(jiffies);
}

static noinline void trouble_bug(void)
{
	BUG_ON(jiffies);
}

static noinline void trouble_null(void)
{
	int *p = NULL;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(p[4], 1);
}

static noinline void trouble_jump(void)
{
	void (*f)(void) = NULL;

	OPTIMIZER_HIDE_VAR(f);
	f();
	barrier();
}

static noinline void trouble_page(void)
{
	char *p = vmalloc(PAGE_SIZE);

	READ_ONCE(p[PAGE_SIZE]);
	vfree(p);
}

static noinline void trouble_gpf(void)
{
	u64 *p = (void *)0xdead000000000122ul;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(*p, READ_ONCE(*p) + 1);
}

static noinline void trouble_divide(void)
{
	u64 x = 1000, y = 0;

	OPTIMIZER_HIDE_VAR(y);
	asm volatile("xor %%edx, %%edx; divq %1" : "+a"(x) : "r"(y) : "rdx");
}

static noinline void trouble_ud2(void)
{
	asm volatile(".byte 0x0f, 0xff, 0xc0");
}

static noinline void trouble_list_del(void)
{
	static LIST_HEAD(head);
	struct list_head *a = kzalloc(sizeof(*a), GFP_KERNEL);

	list_add(a, &head);
	list_del(a);
	list_del(a);
}

static noinline void trouble_list_add(void)
{
	static LIST_HEAD(head);
	static struct list_head a;

	list_add(&a, &head);
	list_add(&a, &head);
}

static noinline void trouble_refcount(void)
{
	refcount_t r = REFCOUNT_INIT(0);

	refcount_inc(&r);
	pr_info("trouble: refcount %d\n", refcount_sub_and_test(2, &r));
}

static noinline void trouble_atomic(void)
{
	preempt_disable();
	msleep(20);
	preempt_enable();
}

static noinline void trouble_soft(void)
{
	unsigned long end = jiffies + 9 * HZ;

	preempt_disable();
	while (time_before(jiffies, end))
		cpu_relax();
	preempt_enable();
}

static noinline void trouble_rcu(void)
{
	unsigned long end = jiffies + 9 * HZ;

	rcu_read_lock();
	preempt_disable();
	while (time_before(jiffies, end))
		cpu_relax();
	preempt_enable();
	rcu_read_unlock();
}

static noinline void trouble_rcu_irqoff(void)
{
	unsigned long flags;
	int i;

	local_irq_save(flags);
	for (i = 0; i < 9000; i++)
		udelay(1000);
	local_irq_restore(flags);
}

static DEFINE_MUTEX(held);

static int holder(void *data)
{
	mutex_lock(&held);
	ssleep(12);
	mutex_unlock(&held);
	return 0;
}

static noinline void trouble_hung(void)
{
	kthread_run(holder, NULL, "trouble/holder");
	ssleep(1);
	mutex_lock(&held);
	mutex_unlock(&held);
}

static noinline void trouble_bad_page(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	page->mapping = (void *)0x1000;
	__free_page(page);
}

static void spin_work(struct work_struct *work)
{
	trouble_soft();
}
static DECLARE_WORK(spin, spin_work);
static void other_work(struct work_struct *work)
{
	pr_info("trouble: the other work ran\n");
}
static DECLARE_WORK(other, other_work);

static noinline void trouble_workqueue(void)
{
	schedule_work_on(0, &spin);
	msleep(100);
	schedule_work_on(0, &other);
	ssleep(12);
}

static noinline void trouble_kfence(void)
{
	unsigned long end = jiffies + 15 * HZ;

	while (time_before(jiffies, end)) {
		char *p = kmalloc(100, GFP_KERNEL);

		OPTIMIZER_HIDE_VAR(p);
		if (is_kfence_address(p)) {
			kfree(p);
			OPTIMIZER_HIDE_VAR(p);
			READ_ONCE(p[5]);
			return;
		}
		kfree(p);
		usleep_range(500, 1000);
	}
	pr_info("trouble: no KFENCE object\n");
}

static noinline void trouble_slub(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
	p[64] = 0x77;
	kfree(p);
}

static noinline int trouble_deep(int n)
{
	volatile char fill[512];

	fill[n % 512] = n;
	return n ? trouble_deep(n + 1) + fill[3] : 0;
}

static noinline void trouble_stack(void)
{
	trouble_deep(1);
}

static noinline void trouble_smash(void)
{
	char small[16];
	char *p = small;

	OPTIMIZER_HIDE_VAR(p);
	memset(p, 0x41, 64);
}

static void irq_null(struct irq_work *work)
{
	trouble_null();
}
static DEFINE_IRQ_WORK(irq, irq_null);

static noinline void trouble_irq(void)
{
	irq_work_queue(&irq);
	msleep(1000);
}

static noinline void trouble_accept(void)
{
	unsigned long page = __get_free_page(GFP_KERNEL | __GFP_ZERO);

	pr_info("trouble: set_memory_encrypted of a private page: %d\n",
		set_memory_encrypted(page, 1));
}

static noinline void trouble_misaligned(void)
{
	unsigned long page = __get_free_page(GFP_KERNEL | __GFP_ZERO);

	pr_info("trouble: misaligned: %d\n", set_memory_decrypted(page + 64, 1));
	set_memory_encrypted(page, 1);
}

static noinline void trouble_vmalloc_free(void)
{
	vfree((void *)0xffffc90000001000ul);
}

static noinline void trouble_panic(void)
{
	panic("trouble: planted, code %#x at %d", 0x1234, 77);
}

/* Two CPUs complain at the same time. */
static int pair(void *data)
{
	bool *go = data;

	while (!READ_ONCE(*go))
		cpu_relax();
	if (smp_processor_id())
		trouble_warn();
	else
		trouble_null();
	return 0;
}

static noinline void trouble_pair(void)
{
	static bool go;
	int i;

	for (i = 0; i < 2; i++) {
		struct task_struct *task = kthread_create(pair, &go, "trouble/%d", i);

		kthread_bind(task, i);
		wake_up_process(task);
	}
	msleep(100);
	WRITE_ONCE(go, true);
	msleep(1500);
}

#define ENTRY(name) { #name, trouble_##name }
static const struct {
	const char *name;
	void (*run)(void);
} troubles[] = {
	ENTRY(warn),	   ENTRY(warn_on),	ENTRY(bug),	 ENTRY(null),	   ENTRY(jump),
	ENTRY(page),	   ENTRY(gpf),		ENTRY(divide),	 ENTRY(ud2),	   ENTRY(list_del),
	ENTRY(list_add),   ENTRY(refcount),	ENTRY(atomic),	 ENTRY(soft),	   ENTRY(rcu),
	ENTRY(rcu_irqoff), ENTRY(hung),		ENTRY(bad_page), ENTRY(workqueue), ENTRY(kfence),
	ENTRY(slub),	   ENTRY(stack),	ENTRY(smash),	 ENTRY(irq),	   ENTRY(accept),
	ENTRY(misaligned), ENTRY(vmalloc_free), ENTRY(panic),	 ENTRY(pair),
};

static ssize_t trouble_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	char name[32] = {};
	int i;

	if (copy_from_user(name, from, min(count, sizeof(name) - 1)))
		return -EFAULT;
	strim(name);
	for (i = 0; i < ARRAY_SIZE(troubles); i++)
		if (!strcmp(troubles[i].name, name)) {
			troubles[i].run();
			return count;
		}
	return -EINVAL;
}

static const struct proc_ops ops = { .proc_write = trouble_write };

static int __init trouble_init(void)
{
	return proc_create("trouble", 0200, NULL, &ops) ? 0 : -ENOMEM;
}
module_init(trouble_init);

MODULE_DESCRIPTION("kernel complaints by name");
MODULE_LICENSE("GPL");

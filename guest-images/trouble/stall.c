// SPDX-License-Identifier: GPL-2.0
/* Trouble with time and other CPUs: what waits, spins or runs where it must not. */
#include <linux/delay.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/workqueue.h>

#include "trouble.h"

noinline void trouble_atomic(void)
{
	preempt_disable();
	msleep(20);
	preempt_enable();
}

noinline void trouble_soft(void)
{
	unsigned long end = jiffies + 9 * HZ;

	preempt_disable();
	while (time_before(jiffies, end))
		cpu_relax();
	preempt_enable();
}

noinline void trouble_rcu(void)
{
	unsigned long end = jiffies + 9 * HZ;

	rcu_read_lock();
	preempt_disable();
	while (time_before(jiffies, end))
		cpu_relax();
	preempt_enable();
	rcu_read_unlock();
}

noinline void trouble_rcu_irqoff(void)
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

noinline void trouble_hung(void)
{
	kthread_run(holder, NULL, "trouble/holder");
	ssleep(1);
	mutex_lock(&held);
	mutex_unlock(&held);
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

noinline void trouble_workqueue(void)
{
	schedule_work_on(0, &spin);
	msleep(100);
	schedule_work_on(0, &other);
	ssleep(12);
}

static void irq_null(struct irq_work *work)
{
	trouble_null();
}
static DEFINE_IRQ_WORK(irq, irq_null);

noinline void trouble_irq(void)
{
	irq_work_queue(&irq);
	msleep(1000);
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

noinline void trouble_pair(void)
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

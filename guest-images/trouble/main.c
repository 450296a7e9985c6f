// SPDX-License-Identifier: GPL-2.0
/*
 * Makes the kernel complain in a chosen way: echo NAME > /proc/trouble. The golden logs of
 * tests/data/kernellog were recorded with it; no workload loads it.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "trouble.h"

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

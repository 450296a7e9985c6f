// SPDX-License-Identifier: GPL-2.0
/* Trouble with memory and instructions. */
#include <linux/bug.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/kfence.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/refcount.h>
#include <linux/set_memory.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "trouble.h"

noinline void trouble_warn(void)
{
	WARN(1, "trouble: a planted warning\n");
}

noinline void trouble_warn_on(void)
{
	WARN_ON(jiffies);
}

noinline void trouble_bug(void)
{
	BUG_ON(jiffies);
}

noinline void trouble_null(void)
{
	int *p = NULL;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(p[4], 1);
}

noinline void trouble_jump(void)
{
	void (*f)(void) = NULL;

	OPTIMIZER_HIDE_VAR(f);
	f();
	barrier();
}

noinline void trouble_page(void)
{
	char *p = vmalloc(PAGE_SIZE);

	READ_ONCE(p[PAGE_SIZE]);
	vfree(p);
}

noinline void trouble_gpf(void)
{
	u64 *p = (void *)0xdead000000000122ul;

	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(*p, READ_ONCE(*p) + 1);
}

noinline void trouble_divide(void)
{
	u64 x = 1000, y = 0;

	OPTIMIZER_HIDE_VAR(y);
	asm volatile("xor %%edx, %%edx; divq %1" : "+a"(x) : "r"(y) : "rdx");
}

noinline void trouble_ud2(void)
{
	asm volatile(".byte 0x0f, 0xff, 0xc0");
}

noinline void trouble_list_del(void)
{
	static LIST_HEAD(head);
	struct list_head *a = kzalloc(sizeof(*a), GFP_KERNEL);

	list_add(a, &head);
	list_del(a);
	list_del(a);
}

noinline void trouble_list_add(void)
{
	static LIST_HEAD(head);
	static struct list_head a;

	list_add(&a, &head);
	list_add(&a, &head);
}

noinline void trouble_refcount(void)
{
	refcount_t r = REFCOUNT_INIT(0);

	refcount_inc(&r);
	pr_info("trouble: refcount %d\n", refcount_sub_and_test(2, &r));
}

noinline void trouble_bad_page(void)
{
	struct page *page = alloc_page(GFP_KERNEL);

	page->mapping = (void *)0x1000;
	__free_page(page);
}

noinline void trouble_kfence(void)
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

noinline void trouble_slub(void)
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

noinline void trouble_stack(void)
{
	trouble_deep(1);
}

noinline void trouble_smash(void)
{
	char small[16];
	char *p = small;

	OPTIMIZER_HIDE_VAR(p);
	memset(p, 0x41, 64);
}

noinline void trouble_accept(void)
{
	unsigned long page = __get_free_page(GFP_KERNEL | __GFP_ZERO);

	pr_info("trouble: set_memory_encrypted of a private page: %d\n",
		set_memory_encrypted(page, 1));
}

noinline void trouble_misaligned(void)
{
	unsigned long page = __get_free_page(GFP_KERNEL | __GFP_ZERO);

	pr_info("trouble: misaligned: %d\n", set_memory_decrypted(page + 64, 1));
	set_memory_encrypted(page, 1);
}

noinline void trouble_vmalloc_free(void)
{
	vfree((void *)0xffffc90000001000ul);
}

noinline void trouble_panic(void)
{
	panic("trouble: planted, code %#x at %d", 0x1234, 77);
}

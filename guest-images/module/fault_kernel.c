// SPDX-License-Identifier: GPL-2.0
/* Faults that the kernel itself, or a comparison, has to notice. */
#include <linux/completion.h>
#include <linux/kthread.h>
#include <linux/mm.h>

#include "fault.h"
#include "tdharness.h"

int tdh_fault_warn(struct tdh_request *req, struct tdh_victim *victim)
{
	WARN(1, "tdharness: planted warning\n");
	return 0;
}

static int oops(void *data)
{
	int *nowhere = NULL;

	/* The compiler must not see that this is NULL. */
	OPTIMIZER_HIDE_VAR(nowhere);
	complete(data);
	WRITE_ONCE(*nowhere, 1);
	return 0;
}

int tdh_fault_oops(struct tdh_request *req, struct tdh_victim *victim)
{
	DECLARE_COMPLETION_ONSTACK(started);
	struct task_struct *task = kthread_create(oops, &started, "tdharness/oops");

	if (IS_ERR(task))
		return PTR_ERR(task);
	get_task_struct(task);
	wake_up_process(task);
	wait_for_completion(&started);
	/* Waits until the thread is dead. */
	kthread_stop(task);
	put_task_struct(task);
	return 0;
}

int tdh_fault_dma(struct tdh_request *req, struct tdh_victim *victim)
{
	return tdh_edu_mismatch(req);
}

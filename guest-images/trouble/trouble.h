/* SPDX-License-Identifier: GPL-2.0 */
#ifndef TROUBLE_H
#define TROUBLE_H

void trouble_warn(void);
void trouble_warn_on(void);
void trouble_bug(void);
void trouble_null(void);
void trouble_jump(void);
void trouble_page(void);
void trouble_gpf(void);
void trouble_divide(void);
void trouble_ud2(void);
void trouble_list_del(void);
void trouble_list_add(void);
void trouble_refcount(void);
void trouble_atomic(void);
void trouble_soft(void);
void trouble_rcu(void);
void trouble_rcu_irqoff(void);
void trouble_hung(void);
void trouble_bad_page(void);
void trouble_workqueue(void);
void trouble_kfence(void);
void trouble_slub(void);
void trouble_stack(void);
void trouble_smash(void);
void trouble_irq(void);
void trouble_accept(void);
void trouble_misaligned(void);
void trouble_vmalloc_free(void);
void trouble_panic(void);
void trouble_pair(void);

#endif

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux kernel's log says when something is wrong: one row per kind of message.

A row's expression must match at the start of a message. Free text that merely begins with
`WARNING:` or holds `BUG` is no row: boot logs are full of it.
"""

import re
from dataclasses import dataclass

from harness.verdict import Severity

KERNEL_LOG = "kernel-log"
GUEST_MCE = "guest-mce"


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of message. `title` may name groups of the expression; " in FUNCTION" is added
    when `located`."""

    pattern: re.Pattern[str]
    title: str
    located: bool = True
    # belongs to the report before it, as long as that has shown no trace yet
    follows: bool = False
    rule: str = KERNEL_LOG
    severity: Severity = Severity.FAIL
    # frames of waiting say nothing about who waits
    waiting: bool = False


_LOCKDEP = (
    r"possible circular locking dependency detected|possible recursive locking detected|"
    r"possible irq lock inversion dependency detected|inconsistent lock state|"
    r"bad unlock balance detected|suspicious RCU usage|Nested lock was not taken|"
    r"lock held when returning to user space|held lock freed|[A-Z-]+safe -> [A-Z-]+unsafe .*"
)

ROWS = (
    Row(re.compile(r"BUG: (?P<what>KASAN|KMSAN|KCSAN): (?P<kind>[\w-]+)"), "{what}: {kind}"),
    Row(re.compile(r"BUG: KFENCE: (?P<kind>[\w -]+?) in "), "KFENCE: {kind}"),
    Row(
        re.compile(r"BUG: (?:unable to handle )?kernel NULL pointer dereference"),
        "BUG: kernel NULL pointer dereference",
    ),
    Row(
        re.compile(r"BUG: unable to handle (?:page fault|kernel paging request)"),
        "BUG: unable to handle page fault",
    ),
    Row(re.compile(r"(?:watchdog: )?BUG: soft lockup"), "BUG: soft lockup"),
    Row(re.compile(r"BUG: workqueue lockup"), "BUG: workqueue lockup", located=False),
    Row(re.compile(r"BUG: scheduling while atomic"), "BUG: scheduling while atomic"),
    Row(
        re.compile(r"BUG: sleeping function called from invalid context"),
        "BUG: sleeping function called from invalid context",
    ),
    Row(
        re.compile(r"BUG: (?P<what>Bad page (?:state|map|cache)|Bad rss-counter state)"),
        "BUG: {what}",
    ),
    Row(re.compile(r"BUG: (?P<what>.{1,80})"), "BUG: {what}"),
    Row(re.compile(r"kernel BUG at "), "kernel BUG", follows=True),
    Row(
        re.compile(r"(?P<what>list_(?:add|del)) (?:double add|corruption)"),
        "{what} corruption",
    ),
    Row(re.compile(r"refcount_t: (?P<what>[\w; -]+)"), "refcount_t: {what}"),
    Row(
        re.compile(r"WARNING: (?:CPU: \d+ PID: \d+ (?:Comm: .+ )?at |\S+:\d+ at |at .*CPU#)"),
        "WARNING",
        follows=True,
    ),
    Row(re.compile(rf"WARNING: (?P<what>{_LOCKDEP})"), "WARNING: {what}"),
    Row(
        re.compile(r"(?:Oops: )?general protection fault\b.*(?:\[#\d+\]|probably for)"),
        "general protection fault",
        follows=True,
    ),
    Row(re.compile(r"Oops: (?!Oops)(?P<what>[a-z][a-z ]+):"), "Oops: {what}", follows=True),
    Row(re.compile(r"Oops: "), "Oops", follows=True),
    Row(
        re.compile(r"(?P<what>[a-z][a-z0-9 ]{2,30}): [0-9a-f]{4} \[#\d+\]"),
        "Oops: {what}",
        follows=True,
    ),
    Row(re.compile(r"(?:traps: )?PANIC: (?P<what>[\w ]+)"), "PANIC: {what}"),
    Row(
        re.compile(r"INFO: task .{1,40}:\d+ blocked\b.*for more than"),
        "INFO: task hung",
        waiting=True,
    ),
    Row(
        re.compile(r"(?:rcu: )?INFO: \S+ (?:self-detected stall|detected (?:expedited )?stalls)"),
        "INFO: RCU detected a stall",
    ),
    Row(
        re.compile(r"(?:watchdog: |NMI watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP"),
        "hard lockup",
    ),
    Row(re.compile(r"UBSAN: (?P<kind>[\w-]+) in "), "UBSAN: {kind}"),
    Row(re.compile(r"kmemleak: \d+ new suspected memory leaks"), "kmemleak: leaks", located=False),
    Row(
        re.compile(r"Out of memory: Killed process"),
        "out of memory",
        located=False,
        severity=Severity.REPORT,
    ),
    Row(
        re.compile(r"mce: \[Hardware Error\]: CPU \d+: Machine Check"),
        "machine check",
        located=False,
        rule=GUEST_MCE,
    ),
    Row(
        re.compile(r"mce: \[Hardware Error\]: Machine check events logged"),
        "machine check events logged",
        located=False,
        follows=True,
        rule=GUEST_MCE,
    ),
    Row(
        re.compile(r"mce: CPU#\d+: Unexpected int18"),
        "unexpected machine check",
        located=False,
        rule=GUEST_MCE,
    ),
    Row(
        re.compile(r"Memory failure: 0x[0-9a-f]+: "),
        "memory failure",
        located=False,
        follows=True,
        rule=GUEST_MCE,
    ),
    Row(
        re.compile(r"Kernel panic - not syncing: (?P<what>.{1,120})"),
        "kernel panic: {what}",
        located=False,
    ),
)

# The panic that ends a report which has named its cause already.
CONSEQUENCES = re.compile(
    r"Kernel panic - not syncing: (?:Fatal exception|Fatal (?:local )?machine check|"
    r"Local fatal machine check|panic_on_|kernel: panic_on|hung_task:|softlockup:|"
    r"RCU Stall|Hard LOCKUP|Attempted to kill (?:init|the idle task)!|KASAN|"
    r"Timeout: Not all CPUs entered broadcast|corrupted stack end|.*: panic_on_warn set)"
)

# One look decides whether a line can match a row at all: the first words of all of them.
FIRST_WORDS = (
    rb"BUG: |kernel BUG|list_|refcount_t|WARNING: |general protection|Oops: |"
    rb"[a-z][a-z0-9 ]{2,30}: [0-9a-f]{4} \[#|traps: PANIC|PANIC|INFO: |rcu: INFO|"
    rb"watchdog: |NMI watchdog: |CPU\d|Watchdog|UBSAN|kmemleak|Out of mem|mce: |"
    rb"Memory fail|Kernel panic"
)

# Functions that report trouble or wait: where they were called is what tells one bug from another.
REPORTERS = re.compile(
    r"(?:dump_stack|dump_stack_lvl|show_stack|panic|vpanic|__warn|__warn_printk|report_bug|"
    r"handle_bug|die|die_addr|page_fault_oops|do_error_trap|nmi_panic|watchdog_timer_fn|"
    r"(?:asm_)?(?:exc|sysvec|common)_\w+|error_entry|kasan_\w+|__asan_\w+|print_report|"
    r"print_address_description|ubsan_epilogue|__ubsan_\w+|lockdep_\w+|print_circular_bug|"
    r"__might_(?:resched|sleep)|__list_(?:add|del)\w*|refcount_warn_saturate|bad_page|"
    r"kmsan_\w+|__msan_\w+|kfence_\w+|oops_end|trap_\w+|rcu_sched_clock_irq|"
    r"nmi_trigger_cpumask_backtrace|nmi_cpu_backtrace|rcu_dump_cpu_stacks|native_halt|"
    r"__schedule_bug)"
)
WAITERS = re.compile(
    r"(?:__schedule|schedule\w*|io_schedule\w*|__?mutex_lock\w*|mutex_lock\w*|__down\w*|down_\w+|"
    r"rwsem_\w+|wait_for_\w+|__wait_for_\w+|do_wait_for_\w+|preempt_schedule\w*)"
)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux kernel's log says when something is wrong: one row per form of message.

A row's expression must match at the start of a message. Free text that merely begins with
`WARNING:` or holds `BUG` is no row: boot logs are full of it.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.verdict import Severity

KERNEL_LOG = "kernel-log"
GUEST_MCE = "guest-mce"


class Kind(StrEnum):
    """What sort of trouble a report is, as known-issue lists and reports for people name it."""

    OOPS = "oops"
    BUG = "bug"
    WARNING = "warning"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    WORKQUEUE_LOCKUP = "workqueue-lockup"
    HUNG_TASK = "hung-task"
    RCU_STALL = "rcu-stall"
    LOCKDEP = "lockdep"
    KASAN = "kasan"
    KMSAN = "kmsan"
    KCSAN = "kcsan"
    KFENCE = "kfence"
    UBSAN = "ubsan"
    MEMORY = "memory-corruption"
    LEAK = "leak"
    OOM = "oom"
    MCE = "mce"
    TDX = "tdx"
    PANIC = "panic"


@dataclass(frozen=True, slots=True)
class Row:
    """One form of message. `title` may name groups of the expression; " in FUNCTION" is added
    when `located`."""

    kind: Kind
    pattern: re.Pattern[str]
    title: str
    located: bool = True
    # belongs to the report before it, as long as that has shown no trace yet
    follows: bool = False
    rule: str = KERNEL_LOG
    severity: Severity = Severity.FAIL
    # frames of waiting say nothing about who waits
    waiting: bool = False


def _row(kind: Kind, pattern: str, title: str, **rest: Any) -> Row:
    return Row(kind, re.compile(pattern), title, **rest)


def _mce(pattern: str, title: str, *, follows: bool = False) -> Row:
    return _row(Kind.MCE, pattern, title, located=False, follows=follows, rule=GUEST_MCE)


_LOCKDEP = (
    r"possible circular locking dependency detected|possible recursive locking detected|"
    r"possible irq lock inversion dependency detected|inconsistent lock state|"
    r"bad unlock balance detected|suspicious RCU usage|Nested lock was not taken|"
    r"lock held when returning to user space|held lock freed|[A-Z-]+safe -> [A-Z-]+unsafe .*"
)
_NULL = r"BUG: (?:unable to handle )?kernel NULL pointer dereference"
_PAGE = r"BUG: unable to handle (?:page fault|kernel paging request)"
_ATOMIC = r"BUG: sleeping function called from invalid context"
_BAD = r"BUG: (?P<what>Bad page (?:state|map|cache)|Bad rss-counter state)"
_SLAB = r"BUG [\w.:-]{1,60} \([^)]{1,100}\): (?P<what>[A-Za-z][A-Za-z -]{2,60})"
_WARNING = r"WARNING: (?:CPU: \d+ PID: \d+ (?:Comm: .+ )?at |\S+:\d+ at |at .*CPU#)"
_STALL = r"(?:rcu: )?INFO: \S+ (?:self-detected stall|detected (?:expedited )?stalls)"
_HARD = r"(?:watchdog: |NMI watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP"
# panic() in arch/x86/coco/tdx/tdx.c
_TDX_PANIC = (
    r"TDVMCALL failed\. TDX module bug\?|TDCALL \d+ failed \(Buggy TDX module!\)|"
    r"Unexpected EPT-violation on private memory|TD misconfiguration: .{1,60}"
)

ROWS = (
    _row(Kind.KASAN, r"BUG: KASAN: (?P<kind>[\w-]+)", "KASAN: {kind}"),
    _row(Kind.KMSAN, r"BUG: KMSAN: (?P<kind>[\w-]+)", "KMSAN: {kind}"),
    _row(Kind.KCSAN, r"BUG: KCSAN: (?P<kind>[\w-]+)", "KCSAN: {kind}"),
    _row(Kind.KFENCE, r"BUG: KFENCE: (?P<kind>[\w -]+?) in ", "KFENCE: {kind}"),
    _row(Kind.OOPS, _NULL, "BUG: kernel NULL pointer dereference"),
    _row(Kind.OOPS, _PAGE, "BUG: unable to handle page fault"),
    _row(Kind.SOFT_LOCKUP, r"(?:watchdog: )?BUG: soft lockup", "BUG: soft lockup", waiting=True),
    _row(Kind.WORKQUEUE_LOCKUP, r"BUG: workqueue lockup", "BUG: workqueue lockup", located=False),
    _row(
        Kind.BUG,
        r"BUG: scheduling while atomic",
        "BUG: scheduling while atomic",
        waiting=True,
    ),
    _row(Kind.BUG, _ATOMIC, "BUG: sleeping function called from invalid context"),
    _row(Kind.MEMORY, _BAD, "BUG: {what}"),
    _row(Kind.MEMORY, _SLAB, "BUG: slab: {what}"),
    # `BUG: TASK stack guard page was hit` and the oops that says the same
    _row(Kind.OOPS, r"BUG: \w+ stack guard page was hit", "BUG: stack guard page was hit"),
    _row(Kind.BUG, r"BUG: (?P<what>.{1,80})", "BUG: {what}"),
    _row(Kind.BUG, r"kernel BUG at ", "kernel BUG", follows=True),
    _row(
        Kind.MEMORY,
        r"(?P<what>list_(?:add|del)) (?:double add|corruption)",
        "{what} corruption",
    ),
    _row(Kind.MEMORY, r"refcount_t: (?P<what>[\w; -]+)", "refcount_t: {what}"),
    _row(Kind.WARNING, _WARNING, "WARNING", follows=True),
    _row(Kind.LOCKDEP, rf"WARNING: (?P<what>{_LOCKDEP})", "WARNING: {what}"),
    _row(
        Kind.OOPS,
        r"(?:Oops: )?general protection fault\b.*(?:\[#\d+\]|probably for)",
        "general protection fault",
        follows=True,
    ),
    _row(Kind.TDX, r"Oops: VE fault\b", "Oops: VE fault", follows=True),
    _row(Kind.OOPS, r"Oops: (?!Oops)(?P<what>[A-Za-z][a-z ]+):", "Oops: {what}", follows=True),
    _row(Kind.OOPS, r"Oops: ", "Oops", follows=True),
    _row(
        Kind.OOPS,
        r"(?P<what>[a-z][a-z0-9 ]{2,30}): [0-9a-f]{4} \[#\d+\]",
        "Oops: {what}",
        follows=True,
    ),
    _row(Kind.OOPS, r"(?:traps: )?PANIC: (?P<what>[\w ]+)", "PANIC: {what}"),
    _row(
        Kind.HUNG_TASK,
        r"INFO: task .{1,40}:\d+ blocked\b.*for more than",
        "INFO: task hung",
        waiting=True,
    ),
    _row(Kind.RCU_STALL, _STALL, "INFO: RCU detected a stall", waiting=True),
    _row(Kind.HARD_LOCKUP, _HARD, "hard lockup", waiting=True),
    _row(Kind.UBSAN, r"UBSAN: (?P<kind>[\w-]+) in ", "UBSAN: {kind}"),
    _row(
        Kind.LEAK,
        r"kmemleak: \d+ new suspected memory leaks",
        "kmemleak: leaks",
        located=False,
    ),
    _row(
        Kind.OOM,
        r"Out of memory: Killed process",
        "out of memory",
        located=False,
        severity=Severity.REPORT,
    ),
    _mce(r"mce: \[Hardware Error\]: CPU \d+: Machine Check", "machine check"),
    _mce(
        r"mce: \[Hardware Error\]: Machine check events logged",
        "machine check events logged",
        follows=True,
    ),
    _mce(r"mce: CPU#\d+: Unexpected int18", "unexpected machine check"),
    _mce(r"Memory failure: 0x[0-9a-f]+: ", "memory failure", follows=True),
    _row(Kind.TDX, r"tdx: Unexpected #VE: \d+", "tdx: unexpected #VE", located=False),
    _row(
        Kind.TDX,
        r"tdx: (?P<what>Failed to stop shared<->private conversions|Failed to unshare range|"
        r"shared page accounting is off)",
        "tdx: {what}",
        located=False,
    ),
    _row(
        Kind.TDX,
        rf"Kernel panic - not syncing: (?P<what>{_TDX_PANIC})",
        "kernel panic: {what}",
        located=False,
    ),
    _row(
        Kind.PANIC,
        r"Kernel panic - not syncing: (?P<what>.{1,120})",
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

# A trace behind one of these is not of who is to blame.
OTHERS = re.compile(
    r"rcu: RCU grace-period kthread stack dump|rcu: Stack dump where RCU GP kthread"
)

# One look decides whether a line can match a row at all: the first words of all of them.
FIRST_WORDS = (
    rb"BUG[ :]|kernel BUG|list_|refcount_t|WARNING: |general protection|Oops: |"
    rb"[a-z][a-z0-9 ]{2,30}: [0-9a-f]{4} \[#|traps: PANIC|PANIC|INFO: |rcu: INFO|"
    rb"watchdog: |NMI watchdog: |CPU\d|Watchdog|UBSAN|kmemleak|Out of mem|mce: |"
    rb"Memory fail|Kernel panic|tdx: [UFs]"
)

# Functions that report trouble or wait: where they were called is what tells one bug from another.
REPORTERS = re.compile(
    r"(?:dump_stack\w*|show_stack|panic|vpanic|__warn|__warn_printk|warn_slowpath_\w+|report_bug|"
    r"handle_bug|die|die_addr|page_fault_oops|do_error_trap|nmi_panic|watchdog_timer_fn|"
    r"(?:asm_)?(?:exc|sysvec|common)_\w+|error_entry|kasan_\w+|__asan_\w+|print_report|"
    r"print_address_description|ubsan_epilogue|__ubsan_\w+|lockdep_\w+|print_circular_bug|"
    r"__might_(?:resched|sleep)|__list_(?:add|del)\w*|refcount_warn_saturate|bad_page|"
    r"kmsan_\w+|__msan_\w+|kfence_\w+|oops_end|trap_\w+|rcu_sched_clock_irq|"
    r"nmi_trigger_cpumask_backtrace|nmi_cpu_backtrace|rcu_dump_cpu_stacks|native_halt|"
    r"__schedule_bug|__stack_chk_fail|object_err|slab_err|check_bytes_and_report|check_object)"
)
WAITERS = re.compile(
    r"(?:native_queued_spin_lock_slowpath|queued_spin_lock_slowpath|_raw_\w+_lock\w*|do_raw_\w+|"
    r"__schedule|schedule\w*|msleep\w*|delay_\w+|__(?:const_)?[nu]delay|usleep_\w+|io_schedule\w*|__?mutex_lock\w*|mutex_lock\w*|__down\w*|down_\w+|"
    r"rwsem_\w+|wait_for_\w+|__wait_for_\w+|do_wait_for_\w+|preempt_schedule\w*)"
)

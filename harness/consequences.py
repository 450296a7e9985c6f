# SPDX-License-Identifier: GPL-2.0-or-later
"""What a misbehaving VMM brings about by itself: it is shown, and counts against no guest."""

import dataclasses
import re
from collections.abc import Callable, Sequence

from harness.conversions import by_step
from harness.events import Event, Kind, VmmBehaviour
from harness.steps import Step
from harness.verdict import Finding, Severity

# Rules that others than the guest have to keep.
_VMM_RULES = frozenset({"vmm-cache-flush", "vmm-ept-flush", "host-mce"})
# What a guest runs into where it was told of a success that was none.
_BELIEVED = frozenset(
    {"accept-shared", "double-accept", "shared-access-to-private", "unaccepted-access"}
)
# The kernel's WARN when set_memory_encrypted() or set_memory_decrypted() fails, by where it is.
_KERNEL_SAYS = re.compile(r"WARNING in __set_memory_enc_(pgtable|dec)\b")
_MACHINE_CHECK_WORDS = ("machine check", "Machine check", "Memory failure")


def settle(
    findings: Sequence[Finding], events: Sequence[Event], steps: Sequence[Step]
) -> list[Finding]:
    """The findings, with those that follow from the VMM's misbehaviour alone turned into reports.

    Such a finding carries `extra["expected"]`. How the guest handles the failure is its own.
    """
    misbehaved = [event for event in events if event.kind is Kind.VMM]
    if not misbehaved:
        return list(findings)
    tests = (_of_vmm, _of_failure(events, steps), _of_lie(misbehaved), _of_poison(events))
    return [
        _as_expected(found) if any(test(found) for test in tests) else found for found in findings
    ]


def _as_expected(found: Finding) -> Finding:
    return dataclasses.replace(
        found, severity=Severity.REPORT, extra={**found.extra, "expected": True}
    )


def _of_vmm(found: Finding) -> bool:
    return found.rule in _VMM_RULES


def failed(event: Event) -> bool:
    """Whether a VMM event made the conversion fail for the guest, or will."""
    return bool(event.args[3]) or event.args[0] & 0xFFFFFFFF == VmmBehaviour.SHORT


def _of_failure(events: Sequence[Event], steps: Sequence[Step]) -> Callable[[Finding], bool]:
    hit = {
        name
        for name, part in by_step(events, steps)
        if any(event.kind is Kind.VMM and failed(event) for event in part)
    }

    def test(found: Finding) -> bool:
        if found.rule == "kernel-log":
            return bool(hit and _KERNEL_SAYS.search(found.summary))
        return found.rule == "workload" and bool(
            found.extra.get("step") in hit and found.extra.get("rc")
        )

    return test


def _of_lie(misbehaved: Sequence[Event]) -> Callable[[Finding], bool]:
    lies = [
        (event.args[1], event.args[1] + event.args[2])
        for event in misbehaved
        if event.args[0] & 0xFFFFFFFF == VmmBehaviour.SHORT
    ]

    def test(found: Finding) -> bool:
        place = found.extra.get("range")
        return (
            found.rule in _BELIEVED
            and place is not None
            and any(start <= place[0] and place[1] <= end for start, end in lies)
        )

    return test


def _of_poison(events: Sequence[Event]) -> Callable[[Finding], bool]:
    read = any(event.kind is Kind.POISON_READ for event in events)

    def test(found: Finding) -> bool:
        if found.rule == "kernel-log":
            return read and any(word in found.summary for word in _MACHINE_CHECK_WORDS)
        if found.rule == "workload":
            return read and found.extra.get("rc") is None
        return found.rule == "guest-mce" and read

    return test

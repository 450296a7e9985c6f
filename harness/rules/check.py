# SPDX-License-Identifier: GPL-2.0-or-later
"""All rules that judge events."""

import dataclasses
from collections.abc import Sequence

from harness.conversions import by_step
from harness.events import Event
from harness.rules.accept import accept_shared, double_accept
from harness.rules.alias import (
    private_access_to_shared,
    shared_access_to_private,
    unaccepted_access,
)
from harness.rules.cache import guest_cache_flush, redundant_flush
from harness.rules.context import Context
from harness.rules.contract import tdcall_contract
from harness.rules.mapgpa import mapgpa_failure_handling
from harness.rules.tlb import guest_tlb_flush
from harness.rules.vmm import vmm_cache_flush, vmm_ept_flush
from harness.steps import Step
from harness.verdict import Finding

CHECKS = (
    guest_cache_flush,
    guest_tlb_flush,
    private_access_to_shared,
    shared_access_to_private,
    unaccepted_access,
    double_accept,
    accept_shared,
    redundant_flush,
    tdcall_contract,
    mapgpa_failure_handling,
    vmm_cache_flush,
    vmm_ept_flush,
)


def check_events(
    events: Sequence[Event], context: Context, steps: Sequence[Step] = ()
) -> list[Finding]:
    """The findings of every rule, step by step: none is folded across steps.

    `extra["step"]` names the step, "" outside all.
    """
    return [
        dataclasses.replace(found, extra={**found.extra, "step": step})
        for step, part in by_step(events, steps)
        for check in CHECKS
        for found in check(part, context)
    ]

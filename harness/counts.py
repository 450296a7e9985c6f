# SPDX-License-Identifier: GPL-2.0-or-later
"""How much there was to judge; pure."""

from collections.abc import Sequence

from harness.conversions import TO_SHARED, Conversion
from harness.events import Counter, Event, Kind
from harness.steps import Step


def nothing(td_mode: str, events: Sequence[Event], steps: Sequence[Step]) -> str:
    """Why there was nothing to judge; "" if there was.

    On hardware nobody sees conversions but the guest: its word is what there is.
    """
    seen = any(event.kind in (Kind.CONVERT, Kind.ACCEPT) for event in events)
    told = td_mode == "tdx" and any(step.conversions_told for step in steps)
    if seen or told or any(step.dma for step in steps):
        return ""
    return "no memory was converted or accepted, and no DMA compared: there is nothing to judge"


def counts_of(
    td_mode: str, events: Sequence[Event], steps: Sequence[Step], converted: Sequence[Conversion]
) -> dict[str, int]:
    """By the names of verdict.json."""
    counts = {
        "conversions": len(converted),
        "conversions_to_shared": sum(c.direction == TO_SHARED for c in converted),
        "bytes_converted": sum(c.bytes for c in converted),
        "lines_flushed": sum(c.flushed for c in converted),
        "lines_flushed_again": sum(c.flushed_again for c in converted),
        "lines_dirty": sum(c.dirty for c in converted if c.direction == TO_SHARED),
        "accepts": sum(e.kind is Kind.ACCEPT and e.args[2] == 0 for e in events),
        "faults_applied": len({e.args[0] for e in events if e.kind is Kind.FAULT}),
        "pte_changes": sum(e.kind is Kind.PTE_CHANGE for e in events),
        "steps": len(steps),
        "steps_failed": sum(not step.ok for step in steps),
        "steps_unended": sum(step.rc is None for step in steps),
        "dma_transfers": sum(len(step.dma) for step in steps),
        "dma_bytes": sum(dma.bytes for step in steps for dma in step.dma),
    }
    if td_mode == "tdx":
        counts["conversions_told"] = sum(step.conversions_told for step in steps)
    names = {counter.value: counter.name.lower() for counter in Counter}
    for event in events:
        if event.kind is Kind.COUNTER and event.args[0] in names:
            counts[f"stub_{names[event.args[0]]}"] = event.args[1]
    return counts

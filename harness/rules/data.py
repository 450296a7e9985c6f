# SPDX-License-Identifier: GPL-2.0-or-later
"""dma-data and workload: what the steps themselves found out."""

from collections.abc import Sequence

from harness.rules.context import counted, finding
from harness.steps import Dma, Step
from harness.verdict import Finding


def dma_data(steps: Sequence[Step]) -> list[Finding]:
    """One finding per transfer whose bytes differ at its two ends."""
    return [_mismatch(step, dma) for step in steps for dma in step.dma if dma.mismatches > 0]


def _mismatch(step: Step, dma: Dma) -> Finding:
    first = f", first at offset {dma.first_mismatch:#x}" if dma.first_mismatch is not None else ""
    return finding(
        "dma-data",
        f"{dma.device}: {dma.mismatches} of {counted(dma.bytes, 'byte')} differ after a transfer "
        f"{dma.direction}{first} (step {step.name})",
        extra={
            "step": step.name,
            "device": dma.device,
            "transfer": dma.direction,
            "bytes": dma.bytes,
            "mismatches": dma.mismatches,
        },
    )


def failed_steps(steps: Sequence[Step], explained: frozenset[str]) -> list[Finding]:
    """One finding per step that failed, except those whose name is in `explained`."""
    return [_failed(step) for step in steps if not step.ok and step.name not in explained]


def _failed(step: Step) -> Finding:
    said = f": {step.last_line}" if step.last_line else ""
    if step.rc is None:
        summary = f"the step {step.name} never ended{said}"
    else:
        summary = f"the guest's own check failed in {step.name} with status {step.rc}{said}"
    return finding("workload", summary, extra={"step": step.name, "rc": step.rc})


def guest_failures(sentences: Sequence[str], steps: Sequence[Step]) -> list[Finding]:
    """One finding per failure that the session saw, except those that a step's record tells."""
    lost = tuple(f"{step.name}: " for step in steps if step.rc is None)
    return [
        finding("workload", f"the guest failed: {sentence}", extra={"step": "", "rc": None})
        for sentence in sentences
        if not (lost and sentence.startswith(lost))
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""DMA through the kernel's interfaces and by real drivers and devices; data compared."""

import pytest

from harness.suite import TestGuest
from harness.workload import WORKLOADS, Step

pytestmark = pytest.mark.integration


def _steps(workload: str) -> list[object]:
    return [
        pytest.param(step, id=step.name, marks=pytest.mark.min_cpus(step.min_cpus))
        for step in WORKLOADS[workload]
    ]


# Some convert nothing by themselves: their own comparison is the evidence then.
@pytest.mark.plants()
@pytest.mark.parametrize("step", [*_steps("dma"), *_steps("devices")])
def test_dma(step: Step, guest: TestGuest) -> None:
    record = guest.step(step)
    assert record.ok, record.output


def test_edu_compares_both_directions(guest: TestGuest) -> None:
    step = next(step for step in WORKLOADS["dma"] if step.name == "edu-stream")
    record = guest.step(step)
    assert {entry["direction"] for entry in record.dma} == {"to-device", "from-device"}
    assert all(entry["bytes"] and not entry["mismatches"] for entry in record.dma)

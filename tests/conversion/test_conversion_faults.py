# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that the test module makes by hand: each must be caught, by the right rule."""

import pytest

from harness.suite import TestGuest
from harness.workload import WORKLOADS, Step

pytestmark = pytest.mark.integration


def _faults() -> list[object]:
    return [
        pytest.param(
            step,
            id=step.name,
            marks=[
                pytest.mark.plants(*step.expected_rules),
                pytest.mark.min_cpus(step.min_cpus),
                *([pytest.mark.needs_stub] if step.needs_stub else []),
            ],
        )
        for step in WORKLOADS["faults"]
    ]


@pytest.mark.parametrize("step", _faults())
def test_planted_fault(step: Step, guest: TestGuest) -> None:
    record = guest.step(step)
    assert record.ok, record.output

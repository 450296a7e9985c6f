# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversions through the kernel's own interfaces: each must leave no line and no translation."""

import pytest

from harness.suite import TestGuest
from harness.workload import WORKLOADS, Step

pytestmark = [pytest.mark.integration, pytest.mark.needs_td]


def _steps() -> list[object]:
    return [
        pytest.param(step, id=step.name, marks=pytest.mark.min_cpus(step.min_cpus))
        for step in WORKLOADS["conversion"]
    ]


@pytest.mark.parametrize("step", _steps())
def test_conversion(step: Step, guest: TestGuest) -> None:
    record = guest.step(step)
    assert record.ok, record.output

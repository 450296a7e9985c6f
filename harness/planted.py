# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that a workload step makes on purpose: they must be caught, and count against no one."""

import dataclasses
from collections.abc import Sequence

from harness.steps import Step
from harness.verdict import Finding, Severity


def settle(findings: Sequence[Finding], steps: Sequence[Step]) -> tuple[list[Finding], list[str]]:
    """The findings with the planted ones turned into reports, and what was planted in vain.

    A planted finding carries `extra["expected"]`. Each sentence names a step and a rule that did
    not find its fault: then the judge cannot be trusted.
    """
    expected = {(step.name, rule) for step in steps for rule in step.expected_rules}
    settled = [
        _as_expected(f) if (f.extra.get("step"), f.rule) in expected else f for f in findings
    ]
    caught = {(f.extra.get("step"), f.rule) for f in findings}
    missed = [
        f"the fault that step {step.name} plants was not caught by {rule}"
        for step in steps
        for rule in step.expected_rules
        if (step.name, rule) not in caught
    ]
    return settled, missed


def _as_expected(finding: Finding) -> Finding:
    return dataclasses.replace(
        finding, severity=Severity.REPORT, extra={**finding.extra, "expected": True}
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""Same seed, same kernel, same workload: same findings, bit for bit."""

from pathlib import Path

import pytest

from harness.compare import differences, set_differences
from harness.job import carry_out
from harness.judge import judge
from harness.prepare import Request, prepare
from harness.verdict import Finding, Outcome
from harness.workload import steps_for

pytestmark = [pytest.mark.integration, pytest.mark.nightly]
FAULTS = steps_for(["faults"], cpus=2, devices=False)


def findings(runs: Path, seed: int | None) -> tuple[Finding, ...]:
    plan = prepare(Request(seed=seed), lambda _: None, steps=FAULTS)
    verdict = judge(carry_out(plan, FAULTS, runs, lambda _: None))
    assert verdict.outcome is Outcome.PASS, verdict.reason
    expected = {rule for step in FAULTS for rule in step.expected_rules}
    assert {finding.rule for finding in verdict.findings} >= expected
    return verdict.findings


def test_the_same_seed_gives_the_same_findings(tmp_path: Path) -> None:
    first, second = findings(tmp_path, 7), findings(tmp_path, 7)
    assert differences(first, second) == []


def test_vcpus_in_parallel_find_the_same_set(tmp_path: Path) -> None:
    assert set_differences(findings(tmp_path, 7), findings(tmp_path, None)) == []

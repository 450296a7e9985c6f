# SPDX-License-Identifier: GPL-2.0-or-later
"""A VMM that flushes no cache line from shared to private: poison, and the machine check of it."""

import pytest

from harness.events import Kind, PoisonAction
from harness.evidence import Evidence, load
from harness.hostlog import KEY_ID
from harness.job import carry_out
from harness.judge import judge
from harness.prepare import Request, prepare
from harness.rundir import RunDir
from harness.verdict import Finding, Outcome, Verdict
from harness.workload import Step

pytestmark = pytest.mark.integration
# The boot converts 8 MiB in place of 64: as much as the devices of the guest need.
SMALL_POOL = "swiotlb=4096"
STEP = Step(name="read-poison", command="tdh convert size=4K")


def _say_nothing(words: str) -> None:
    """Progress is pytest's to show."""


def poisoned(request: pytest.FixtureRequest, name: str) -> tuple[RunDir, Evidence, Verdict]:
    """One guest that reads poison in its only step."""
    option = request.config.getoption
    if option("--td-mode") != "stub":
        pytest.skip("the VMM that misbehaves is the stub's")
    asked = Request(
        kernel=option("--kernel"),
        smp=option("--smp"),
        memory_mib=option("--memory"),
        extra_cmdline=SMALL_POOL,
        vmm=name,
    )
    plan = prepare(asked, _say_nothing, scenario="poison")
    run = carry_out(plan, [STEP], option("--runs"), _say_nothing)
    evidence = load(run)
    return run, evidence, judge(run, evidence=evidence)


def finding(verdict: Verdict, rule: str) -> Finding:
    (found,) = [f for f in verdict.findings if f.rule == rule]
    assert found.extra["expected"]
    return found


def test_the_td_dies_and_the_host_takes_the_machine_check(request: pytest.FixtureRequest) -> None:
    run, evidence, verdict = poisoned(request, "cache-flush")
    assert verdict.outcome is Outcome.PASS, verdict
    read = [event for event in evidence.events if event.kind is Kind.POISON_READ]
    assert [event.args[2] for event in read] == [PoisonAction.TD_DEAD]
    # The TD never ran again, and the stream is whole.
    assert evidence.stream is not None and evidence.stream.complete
    assert all(e.kind is Kind.COUNTER for e in evidence.events if e.seq > read[0].seq)
    assert b"Kernel panic" not in evidence.log
    assert "in SEAM non-root mode" in finding(verdict, "host-mce").summary
    assert finding(verdict, "host-mce").gpa == read[0].args[1] // 4096 * 4096
    assert finding(verdict, "host-mce").extra["key_id"] == KEY_ID
    assert finding(verdict, "vmm-cache-flush").evidence == "used"
    assert run.host_log.read_text().count("Machine Check Exception") == 1


def test_the_guest_takes_the_machine_check(request: pytest.FixtureRequest) -> None:
    run, evidence, verdict = poisoned(request, "cache-flush-mce")
    assert verdict.outcome is Outcome.PASS, verdict
    read = [event for event in evidence.events if event.kind is Kind.POISON_READ]
    check = finding(verdict, "guest-mce")
    (bank,) = [b for b in check.extra["banks"] if b["cpu"] == read[0].vcpu]
    assert bank["addr"] == read[0].args[1] // 64 * 64
    assert "data load" in bank["meaning"]
    assert not run.host_log.exists()

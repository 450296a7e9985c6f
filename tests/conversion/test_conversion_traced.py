# SPDX-License-Identifier: GPL-2.0-or-later
"""What a TD traces of its own conversions, held against the stub's exact record of them.

On hardware the trace is all there is; here each of its claims can be checked, and what the guest is
made to leave out has to be found by both.
"""

import json

import pytest

from harness.conversions import TO_PRIVATE, TO_SHARED, changed_owner
from harness.evidence import Evidence, load
from harness.guesttrace import agreement
from harness.injected import verdict_of_slice
from harness.judge import judge
from harness.prepare import Request, prepare
from harness.rundir import RunDir
from harness.session import Guest
from harness.verdict import Finding, Outcome
from harness.workload import WORKLOADS, Step

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("traced")]

Both = tuple[Evidence, Evidence]
STEPS = (*WORKLOADS["conversion"], *WORKLOADS["dma"])
LINES, OTHERS = "without-every-second-line", "without-the-other-cpus"
SMALL, LARGE = "tdh convert size=64K", "tdh convert size=2M"
FAULTS = (
    Step(name=LINES, command=f"tdh skip lines=2 && {SMALL}; rc=$?; tdh skip; exit $rc"),
    # invalidated page by page, and all at once
    Step(
        name=OTHERS,
        command=f"tdh skip others=1 && {SMALL} && {LARGE}; rc=$?; tdh skip; exit $rc",
    ),
)
PAGES = (64 << 10) // 4096


def say_nothing(words: str) -> None:
    """Progress is pytest's to show."""


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> RunDir:
    option = request.config.getoption
    asked = Request(
        kernel=option("--kernel"),
        smp=max(2, option("--smp")),
        memory_mib=option("--memory"),
        trace=True,
    )
    guest = Guest(prepare(asked, say_nothing), option("--runs"), say_nothing)
    try:
        guest.boot()
        guest.run_steps((*STEPS, *FAULTS))
    finally:
        guest.stop()
    return guest.run


@pytest.fixture(scope="module")
def both(run: RunDir) -> Both:
    return load(run), load(run, by_trace=True)


def slices(both: Both, name: str) -> list[list[Finding]]:
    """What the stub's record and the guest's trace have found in one step."""
    (mark,) = [step.mark for step in both[0].steps if step.name == name]
    assert mark is not None
    return [list(verdict_of_slice(evidence, mark).findings) for evidence in both]


def test_the_trace_and_the_stub_tell_of_the_same_conversions(run: RunDir, both: Both) -> None:
    evidence = both[0]
    assert evidence.trace and not evidence.broken
    agreed = agreement(evidence.trace.events, evidence.events)
    assert agreed.contradictions == ()
    # all that the module asked for, and what its DMA needed besides
    told = sum(step.conversions_told for step in evidence.steps)
    assert agreed.conversions >= told > 100
    assert judge(run, write=False).counts["conversions_traced"] == agreed.conversions
    flushed = sum(e.args[4] >> 32 for e in evidence.trace.events if changed_owner(e))
    assert flushed > 200_000


@pytest.mark.parametrize("step", STEPS, ids=[step.name for step in STEPS])
def test_a_clean_kernel_trips_no_rule_by_either(both: Both, step: Step) -> None:
    assert slices(both, step.name) == [[], []]


def test_a_line_that_was_not_flushed_is_found_by_both(both: Both) -> None:
    for findings in slices(both, LINES):
        assert [finding.rule for finding in findings] == ["guest-cache-flush"]
        assert findings[0].extra["dirty_lines"] == PAGES * 32
        assert findings[0].lines == tuple(range(1, 64, 2))
        assert "job_convert" in str(findings[0].conversion_site)


def test_a_cpu_that_did_not_invalidate_is_found_by_both(run: RunDir, both: Both) -> None:
    by_stub, by_trace = slices(both, OTHERS)
    for findings in (by_stub, by_trace):
        assert {finding.rule for finding in findings} == {"guest-tlb-flush"}
        assert {finding.direction for finding in findings} == {TO_SHARED, TO_PRIVATE}
        assert all("job_convert" in str(finding.conversion_site) for finding in findings)
    # 64 KiB and 2 MiB, to and fro, each missed by all CPUs but the one that converted
    cpus = json.loads(run.run_json.read_text())["smp"]
    assert len(by_trace) == 4 * (cpus - 1)


def test_the_run_fails_by_the_trace_alone(run: RunDir, both: Both) -> None:
    verdict = judge(run, evidence=both[1], write=False)
    assert verdict.outcome is Outcome.FAIL
    assert {finding.rule for finding in verdict.findings} == {
        "guest-cache-flush",
        "guest-tlb-flush",
    }
    assert "guest-trace" in verdict.evidence and "events" not in verdict.evidence

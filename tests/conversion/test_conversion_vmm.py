# SPDX-License-Identifier: GPL-2.0-or-later
"""Every misbehaviour of the VMM that leaves the guest alive, in one boot: how the guest copes."""

from dataclasses import dataclass
from itertools import pairwise

import pytest

from harness import kernellog, vmm
from harness.events import Event, Kind, slice_between
from harness.evidence import Evidence, load
from harness.job import carry_out
from harness.judge import judge_slice
from harness.prepare import Request, prepare
from harness.steps import Step
from harness.verdict import Outcome, Verdict
from harness.workload import misbehaviour_steps

pytestmark = pytest.mark.integration
SHOWN = {one.behaviour.name: one for one in vmm.parse(vmm.EVERY)}


@dataclass(frozen=True, slots=True)
class Part:
    """What one step of the boot left."""

    step: Step
    events: tuple[Event, ...]
    verdict: Verdict


def _say_nothing(words: str) -> None:
    """Progress is pytest's to show."""


@pytest.fixture(scope="module")
def evidence(request: pytest.FixtureRequest) -> Evidence:
    option = request.config.getoption
    if option("--td-mode") != "stub":
        pytest.skip("the VMM that misbehaves is the stub's")
    asked = Request(
        kernel=option("--kernel"), smp=option("--smp"), memory_mib=option("--memory"), vmm=vmm.EVERY
    )
    plan = prepare(asked, _say_nothing, scenario="vmm")
    steps = misbehaviour_steps(tuple(SHOWN.values()))
    return load(carry_out(plan, steps, option("--runs"), _say_nothing))


def part_of(evidence: Evidence, name: str) -> Part:
    mark = SHOWN[name].mark
    assert evidence.stream is not None and mark is not None
    events = slice_between(evidence.stream, mark)
    log = kernellog.slice_between(evidence.log, mark)
    (step,) = [step for step in evidence.steps if step.mark == mark]
    return Part(step, events, judge_slice(events, log, [step], evidence.symbols))


@pytest.mark.parametrize("name", SHOWN)
def test_the_guest_copes(name: str, evidence: Evidence) -> None:
    part, behaviour = part_of(evidence, name), SHOWN[name].behaviour
    met = {vmm.number_of(event) for event in part.events if event.kind is Kind.VMM}
    assert met == {behaviour.number}
    assert part.step.ok, part.step.last_line
    assert part.verdict.outcome in (Outcome.PASS, Outcome.EMPTY), part.verdict.findings
    assert {f.rule for f in part.verdict.findings} >= set(behaviour.rules)


def converted(part: Part) -> list[tuple[int, int]]:
    return [event.args[:2] for event in part.events if event.kind is Kind.CONVERT]


@pytest.mark.parametrize(("name", "count"), [("retry-2m", 2), ("retry-4k", 16)])
def test_retry_goes_through_the_range_in_order(name: str, count: int, evidence: Evidence) -> None:
    ranges = converted(part_of(evidence, name))
    # There and back.
    assert len(ranges) == 2 * count
    for one, after in pairwise(ranges[:count]):
        assert sum(one) == after[0]


def test_the_kernel_asks_three_times_at_one_address(evidence: Evidence) -> None:
    part = part_of(evidence, "retry-forever")
    assert len([event for event in part.events if event.kind is Kind.VMM]) == 3
    assert converted(part) == []


def test_failed_pages_are_never_used_again(evidence: Evidence) -> None:
    assert not any(event.kind is Kind.DISOWNED for event in evidence.events)

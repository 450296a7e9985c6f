# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fault that the stub can make, in one boot: caught by the right rule at the right place."""

from dataclasses import dataclass, replace

import pytest

from harness.conversions import conversions
from harness.evidence import load
from harness.faults import EVERY, FAULTS, parse
from harness.injected import scores_of
from harness.job import carry_out
from harness.judge import judge
from harness.prepare import Request, prepare
from harness.rundir import RunDir
from harness.score import Score
from harness.verdict import Severity
from harness.workload import injected_steps

# One boot serves them all, so one worker of pytest-xdist gets them all.
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("injected")]


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one boot, by name of the fault."""

    smp: int
    scores: dict[str, Score]


def _say_nothing(words: str) -> None:
    """Progress is pytest's to show."""


@pytest.fixture(scope="module")
def scored(request: pytest.FixtureRequest) -> Scored:
    option = request.config.getoption
    if option("--td-mode") != "stub":
        pytest.skip("faults are made by the stub")
    asked = Request(
        kernel=option("--kernel"), smp=option("--smp"), memory_mib=option("--memory"), fault=EVERY
    )
    injections = parse(EVERY)
    plan = prepare(asked, _say_nothing, scenario="injected")
    run = carry_out(
        plan, injected_steps(injections, cpus=asked.smp), option("--runs"), _say_nothing
    )
    found = scores_of(load(run), injections)
    return Scored(asked.smp, {one.fault.name: score for one, score in found})


def test_an_address_picks_its_conversion(request: pytest.FixtureRequest) -> None:
    """Of the pool for bounce buffers, which a kernel without KASLR has at the same place again."""
    option = request.config.getoption
    if option("--td-mode") != "stub":
        pytest.skip("faults are made by the stub")
    asked = Request(kernel=option("--kernel"), smp=1, extra_cmdline="nokaslr")

    def boot(fault: str) -> RunDir:
        plan = prepare(replace(asked, fault=fault), _say_nothing, scenario="injected")
        return carry_out(plan, (), option("--runs"), _say_nothing)

    clean = load(boot(""))
    pool = max(conversions(clean.events, clean.symbols), key=lambda each: each.bytes)
    end = pool.gpa + pool.bytes
    fault = f"cache-all:at={pool.gpa:#x}-{end:#x}+tlb-shared-all:at=0x0-{pool.gpa:#x}"
    places: dict[str, list[int]] = {}
    for finding in judge(boot(fault)).findings:
        if finding.severity is Severity.FAIL:
            places.setdefault(finding.rule, []).append(finding.gpa or 0)
    assert set(places) == {"guest-cache-flush", "guest-tlb-flush"}
    assert all(pool.gpa <= gpa < end for gpa in places["guest-cache-flush"])
    assert all(0 < gpa < pool.gpa for gpa in places["guest-tlb-flush"])


@pytest.mark.parametrize("name", FAULTS)
def test_injected_fault(name: str, scored: Scored) -> None:
    if scored.smp < FAULTS[name].min_cpus:
        pytest.skip(f"needs {FAULTS[name].min_cpus} vCPUs, the guest has {scored.smp}")
    score = scored.scores[name]
    assert score.caught, f"found {score.found} at {score.place}; elsewhere: {score.stray}"

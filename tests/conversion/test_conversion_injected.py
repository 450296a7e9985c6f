# SPDX-License-Identifier: GPL-2.0-or-later
"""Every fault that the stub can make, in one boot: caught by the right rule at the right place."""

from dataclasses import dataclass

import pytest

from harness.faults import EVERY, FAULTS, parse
from harness.injected import scores_of
from harness.job import carry_out
from harness.judge import load
from harness.prepare import Request, prepare
from harness.score import Score
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
    if option("--td-mode") == "none":
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


@pytest.mark.parametrize("name", FAULTS)
def test_injected_fault(name: str, scored: Scored) -> None:
    if scored.smp < FAULTS[name].min_cpus:
        pytest.skip(f"needs {FAULTS[name].min_cpus} vCPUs, the guest has {scored.smp}")
    score = scored.scores[name]
    assert score.caught, f"found {score.found} at {score.place}; elsewhere: {score.stray}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs under which a real host takes machine checks, hangs and dies; the guest is a fake."""

import time
from pathlib import Path

import pytest

from harness.hostmce.watch import FOUND_OUT_S
from harness.job import carry_out
from harness.judge import judge
from harness.labhost import checks
from harness.labhost.host import LabHost
from harness.session import Guest
from harness.testing.guests import fake_plan
from harness.verdict import Outcome
from harness.workload import Step

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("labhost")]

CONVERT = Step(name="convert", command="tdh convert size=4K")
_SETTLE_S = 4.0


def test_a_hosts_machine_check_and_its_end_are_told_of_the_run(
    own_lab_host: LabHost, tmp_path: Path
) -> None:
    plan, host = fake_plan(tmp_path / "fake", ""), own_lab_host.entry

    def recoverable(_: Guest) -> None:
        own_lab_host.inject(checks.recoverable(0x12347000))
        time.sleep(_SETTLE_S)

    took_s = 0.0

    def dies(guest: Guest) -> None:
        nonlocal took_s
        began_s = time.monotonic()
        own_lab_host.inject(checks.fatal(0x1234B000))
        try:
            guest.run_step(Step(name="hang", command="fake hang", timeout_s=3 * FOUND_OUT_S))
        finally:
            took_s = time.monotonic() - began_s

    runs = tmp_path / "runs"
    quiet = judge(carry_out(plan, [CONVERT], runs, lambda _: None, host=host))
    assert (quiet.outcome, quiet.findings) == (Outcome.PASS, ())

    struck = judge(
        carry_out(plan, [CONVERT], runs, lambda _: None, before_stop=recoverable, host=host)
    )
    assert "host-mce" in {finding.rule for finding in struck.findings}

    run = carry_out(plan, [CONVERT], runs, lambda _: None, before_stop=dies, host=host)
    # behind it, the harness gives a machine that did not end some seconds
    assert took_s < FOUND_OUT_S + 10.0
    dead = judge(run)
    assert dead.outcome in (Outcome.ERROR, Outcome.FAIL)
    assert "the host failed, not the guest: " in dead.reason
    assert b"Kernel panic - not syncing: Fatal" in run.host_console.read_bytes()

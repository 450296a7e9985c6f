# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs with a host that is listened to; guest and host are fake."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import hostguard, session, suite
from harness.errors import HarnessError, HostError
from harness.hostmce import collect, watch
from harness.hosts.config import Host
from harness.job import carry_out
from harness.judge import judge
from harness.prepare import Request
from harness.rundir import RunDir
from harness.suite import GuestPool
from harness.testing.fakehost import FakeHost, printed
from harness.testing.guests import fake_plan
from harness.verdict import Outcome
from harness.workload import Step

HOST = Host(name="tdx1")
CONVERT = Step(name="convert", command="tdh convert size=4K")
HANG = Step(name="hang", command="fake hang", timeout_s=60.0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """What is reached as any host."""
    fake = FakeHost()

    @contextlib.contextmanager
    def reached(_: Host) -> Iterator[FakeHost]:
        yield fake

    monkeypatch.setattr(hostguard, "reached", reached)
    monkeypatch.setattr(collect, "_SETTLE_S", 0.0)
    monkeypatch.setattr(session, "_DEATH_TIMEOUT_S", 0.1)
    monkeypatch.setattr(collect, "Watch", functools.partial(watch.Watch, every_s=0.05))
    return fake


def carried(tmp_path: Path, *steps: Step, host: Host | None = HOST) -> RunDir:
    plan = fake_plan(tmp_path / "fake", "")
    return carry_out(plan, steps, tmp_path / "runs", lambda _: None, host=host)


def test_a_machine_check_meanwhile_is_the_runs(tmp_path: Path, host: FakeHost) -> None:
    def check(_: object) -> None:
        host.say(*printed())

    plan = fake_plan(tmp_path / "fake", "")
    for act, outcome in ((lambda _: None, Outcome.PASS), (check, Outcome.FAIL)):
        run = carry_out(
            plan, [CONVERT], tmp_path / "runs", lambda _: None, before_stop=act, host=HOST
        )
        verdict = judge(run)
        assert verdict.outcome is outcome
        rules = {finding.rule for finding in verdict.findings}
        assert ("host-mce" in rules) == (outcome is Outcome.FAIL)


def test_without_a_host_nobody_is_asked(tmp_path: Path, host: FakeHost) -> None:
    run = carried(tmp_path, CONVERT, host=None)
    assert host.asked == []
    assert not run.host_json.exists()


@pytest.mark.parametrize("seed", [None, 7], ids=["by its agent", "by a script"])
def test_a_host_that_reboots_ends_the_run_and_is_blamed(
    tmp_path: Path, host: FakeHost, seed: int | None
) -> None:
    began_s = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        real = watch.ask_boot_id
        asked: list[int] = []

        def rebooting(remote: FakeHost, timeout_s: float = 10.0) -> str:
            asked.append(1)
            if len(asked) > 3:
                host.reboot()
            return real(remote, timeout_s)

        patch.setattr(watch, "ask_boot_id", rebooting)
        plan = fake_plan(tmp_path / "fake", "")
        plan = dataclasses.replace(plan, spec=dataclasses.replace(plan.spec, seed=seed))
        run = carry_out(plan, [HANG], tmp_path / "runs", lambda _: None, host=HOST)
    assert time.monotonic() - began_s < 30.0
    verdict = judge(run)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason.startswith("the host failed, not the guest: it rebooted")


def test_what_its_console_says_is_kept_with_the_run(tmp_path: Path, host: FakeHost) -> None:
    says = ("sh", "-c", "echo the host says; exec sleep 60")
    run = carried(tmp_path, CONVERT, host=dataclasses.replace(HOST, console=says))
    assert run.host_console.read_text() == "the host says\n"


def test_a_host_that_does_not_answer_leaves_no_guest(tmp_path: Path, host: FakeHost) -> None:
    host.gone = True
    with pytest.raises(HarnessError, match="no answer from the host"):
        carried(tmp_path, CONVERT)
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "console.log").exists()


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuestPool]:
    monkeypatch.setattr(suite, "prepare", lambda *_, **__: fake_plan(tmp_path / "fake", ""))
    found = GuestPool(Request(), runs=tmp_path / "runs", host=HOST)
    yield found
    found.close()


def test_each_test_has_its_own_hosts_records(pool: GuestPool, host: FakeHost) -> None:
    complaints = []
    for number in range(3):
        guest = pool.guest()
        with pool.judged(f"test_{number}", None) as outcome:
            guest.step(CONVERT)
            if number == 1:
                host.say(*printed())
        complaints.append(outcome.complaint)
    assert complaints[0] == complaints[2] == ""
    assert "host-mce" in complaints[1]
    assert pool.boots == 3


def test_a_test_whose_host_went_down_says_so(pool: GuestPool, host: FakeHost) -> None:
    guest = pool.guest()
    blamed = pytest.raises(HostError, match="the host failed, not the guest: it rebooted")
    with blamed, pool.judged("test", None):
        host.reboot()
        guest.sh("fake hang", 60.0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness ended from outside, at several moments: nothing may run on, no evidence may lie."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import proc
from harness.judge import judge
from harness.rundir import RunDir
from harness.verdict import Outcome

PATIENCE_S = 60.0
# When to strike: a line of the progress, and what the guest does then.
MOMENTS = [
    pytest.param("starting QEMU", "start=hang", id="start"),
    pytest.param("booting", "boot=hang", id="boot"),
    pytest.param("convert-4k", "convert=hang", id="step"),
    pytest.param("stopping the guest", "quit=hang", id="stop"),
]


@dataclass
class Child:
    """`tdharness run` with a fake guest, in a process of its own."""

    base: Path
    process: subprocess.Popen[bytes]
    output: Path

    def wait_for(self, words: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while words not in self.output.read_text():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < end_s, self.output.read_text()
            time.sleep(0.01)

    def end(self, number: int) -> int:
        os.kill(self.process.pid, number)
        return self.process.wait(PATIENCE_S)

    @property
    def run(self) -> RunDir:
        return RunDir(max((self.base / "runs").iterdir()))

    def privates(self) -> list[Path]:
        return list(self.base.glob("tdharness-*"))

    def qemus(self) -> list[int]:
        """Processes that name this child's directory, other than itself."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            if os.fsencode(self.base) in words and b"fake_qemu" in words:
                found.append(int(path.parent.name))
        return found


class Starter:
    """Starts children whose runs and private directories are in `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.children: list[Child] = []

    def __call__(self, faults: str) -> Child:
        output = self.base / f"output{len(self.children)}"
        argv = [sys.executable, "-m", "harness.testing.guests", "run", "--workload", "conversion"]
        env = {**os.environ, "FAKE_QEMU": faults, "TMPDIR": str(self.base)}
        with output.open("wb") as file:
            process = proc.spawn([*argv, "--runs", str(self.base / "runs")], stdout=file, env=env)
        self.children.append(Child(self.base, process, output))
        return self.children[-1]


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    starter = Starter(tmp_path_factory.mktemp("k"))
    yield starter
    for child in starter.children:
        proc.kill_group(child.process)


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell starts what runs in the background with SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def gone(child: Child) -> bool:
    """Whether no QEMU is left; one that is killed takes a moment to go."""
    end_s = time.monotonic() + PATIENCE_S
    while child.qemus():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True


def facts(run: RunDir) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(run.run_json.read_text())
    return data


@pytest.mark.parametrize(("line", "faults"), MOMENTS)
def test_sigkill_leaves_nothing_running_and_no_pass(line: str, faults: str, start: Starter) -> None:
    child = start(faults)
    child.wait_for(line)
    end_s = time.monotonic() + PATIENCE_S
    while not child.qemus() and time.monotonic() < end_s:
        time.sleep(0.01)
    # The positive control: there is something to be left.
    assert child.qemus()
    assert child.privates()
    assert child.end(signal.SIGKILL) == -signal.SIGKILL
    assert gone(child)
    assert judge(child.run).outcome is Outcome.ERROR
    assert facts(child.run)["planned_stop"] is False


def test_the_run_after_a_killed_one_works_and_tidies_up(start: Starter) -> None:
    good = start("")
    assert good.process.wait(PATIENCE_S) == 0
    earlier = good.run
    verdict = earlier.verdict_json.read_bytes()
    killed = start("boot=hang")
    killed.wait_for("booting")
    killed.end(signal.SIGKILL)
    assert gone(killed)
    (left,) = killed.privates()
    again = start("")
    assert again.process.wait(PATIENCE_S) == 0
    assert not left.exists()
    assert again.privates() == []
    assert judge(earlier).outcome is Outcome.PASS
    assert earlier.verdict_json.read_bytes() == verdict


def test_sigkill_while_judging_loses_the_verdict_only(start: Starter) -> None:
    child = start("")
    child.wait_for("stopping the guest")
    end_s = time.monotonic() + PATIENCE_S
    while not facts(child.run)["planned_stop"] and time.monotonic() < end_s:
        time.sleep(0.001)
    child.end(signal.SIGKILL)
    assert child.qemus() == []
    # The evidence was settled before, so the run can be judged.
    assert judge(child.run).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("number", "line", "faults"),
    [
        pytest.param(signal.SIGINT, *MOMENTS[1].values, id="int-boot"),
        pytest.param(signal.SIGTERM, *MOMENTS[2].values, id="term-step"),
    ],
)
def test_an_interrupt_cleans_up_and_says_so(
    number: int, line: str, faults: str, start: Starter
) -> None:
    child = start(faults)
    child.wait_for(line)
    assert child.end(number) == 130
    assert child.output.read_text().endswith("tdharness: interrupted\n")
    assert child.qemus() == []
    assert child.privates() == []
    assert facts(child.run)["harness_errors"] == ["the harness was interrupted"]
    verdict = judge(child.run)
    assert (verdict.outcome, verdict.reason) == (Outcome.ERROR, "the harness was interrupted")


def test_a_second_interrupt_still_leaves_nothing_running(start: Starter) -> None:
    child = start("boot=hang,quit=hang")
    child.wait_for("booting")
    os.kill(child.process.pid, signal.SIGINT)
    child.wait_for("stopping the guest")
    assert child.end(signal.SIGINT) == 130
    assert gone(child)
    assert child.privates() == []
    assert judge(child.run).outcome is Outcome.ERROR


def test_two_runs_at_once_leave_each_other_alone(start: Starter) -> None:
    first = start("boot=hang")
    first.wait_for("booting")
    second = start("")
    assert second.process.wait(PATIENCE_S) == 0
    assert len(first.privates()) == 1
    assert len(first.qemus()) == 1
    assert first.end(signal.SIGINT) == 130

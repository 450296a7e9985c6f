# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes end: at their deadline, with their parent, with their group."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import proc
from harness.errors import BuildError, HostError

PROMPT_S = 5.0


def alive(pid: int) -> bool:
    """Whether the process runs; one that was not yet waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def wait_until_dead(pid: int) -> bool:
    end_s = time.monotonic() + PROMPT_S
    while alive(pid) and time.monotonic() < end_s:
        time.sleep(0.01)
    return not alive(pid)


def test_run() -> None:
    result = proc.run(
        ["sh", "-c", "echo $0; echo err >&2; exit 3", "a b"], timeout_s=PROMPT_S, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "a b\n", "err\n")


def test_run_that_fails_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(BuildError, match=r"sh failed with 3 .*: bad thing") as caught:
        proc.run(["sh", "-c", "echo bad thing >&2; exit 3"], timeout_s=PROMPT_S, log_path=log)
    assert caught.value.log == log
    assert log.read_text() == "$ sh -c 'echo bad thing >&2; exit 3'\nbad thing\nexit 3\n"


def test_run_that_overruns_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    words = ["sh", "-c", f"sleep 60 & echo $$ $! > {pids}; wait"]
    with pytest.raises(HostError, match="sh was still running after 0 s"):
        proc.run(words, timeout_s=0.3)
    assert all(wait_until_dead(int(pid)) for pid in pids.read_text().split())


def test_a_command_is_asked_to_end_before_it_is_killed(tmp_path: Path) -> None:
    pids, last = tmp_path / "pids", tmp_path / "last"
    asked = f"trap 'echo words > {last}; exit' TERM; sleep 60 & echo $! > {pids}; wait"
    with pytest.raises(HostError, match="was still running"):
        proc.run(["sh", "-c", asked], timeout_s=0.5, grace_s=PROMPT_S)
    assert last.read_text() == "words\n"
    deaf = f"trap '' TERM; echo $$ > {pids}; while :; do sleep 1; done"
    with pytest.raises(HostError, match="was still running"):
        proc.run(["sh", "-c", deaf], timeout_s=0.5, grace_s=0.5)
    assert wait_until_dead(int(pids.read_text()))


def test_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot start /nonexistent: No such file"):
        proc.run(["/nonexistent"], timeout_s=PROMPT_S)
    with (tmp_path / "log").open("wb") as log:
        with pytest.raises(HostError, match="cannot start /nonexistent: No such file"):
            proc.spawn(["/nonexistent"], stdout=log)
        with pytest.raises(HostError, match="Permission denied"):
            proc.spawn([tmp_path / "log"], stdout=log)


def spawn(log: Path, *words: str) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return proc.spawn(words, stdout=output)


def test_spawned_output_and_group(tmp_path: Path) -> None:
    child = spawn(tmp_path / "log", "sh", "-c", "echo out; echo err >&2; sleep 60 & echo $!; wait")
    end_s = time.monotonic() + PROMPT_S
    while (tmp_path / "log").read_text().count("\n") < 3 and time.monotonic() < end_s:
        time.sleep(0.01)
    out, err, grandchild = (tmp_path / "log").read_text().split()
    assert (out, err) == ("out", "err")
    proc.kill_group(child)
    proc.kill_group(child)
    assert child.returncode == -signal.SIGKILL
    assert wait_until_dead(int(grandchild))


@pytest.mark.parametrize("thread", [False, True])
def test_spawned_child_dies_with_a_killed_parent(tmp_path: Path, thread: bool) -> None:
    code = f"""
import pathlib, sys, threading
from harness import proc
def work():
    with open("/dev/null", "wb") as output:
        print(proc.spawn(["sleep", "60"], stdout=output).pid, flush=True)
threading.Thread(target=work).start() if {thread} else work()
threading.Event().wait()
"""
    log = tmp_path / "log"
    parent = spawn(log, sys.executable, "-c", code)
    end_s = time.monotonic() + PROMPT_S
    while not log.read_text().endswith("\n") and time.monotonic() < end_s:
        time.sleep(0.01)
    child = int(log.read_text())
    assert alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert wait_until_dead(child)


def test_spawned_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    children: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(
        target=lambda: children.append(spawn(tmp_path / "log", "sleep", "60"))
    )
    thread.start()
    thread.join()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            children[0].wait(0.2)
    finally:
        proc.kill_group(children[0])


def test_failure_to_spawn_reaches_a_thread(tmp_path: Path) -> None:
    errors: list[HostError] = []

    def work() -> None:
        try:
            spawn(tmp_path / "log", "/nonexistent")
        except HostError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PROMPT_S)
    assert "cannot start /nonexistent" in errors[0].message


def test_pasteable() -> None:
    assert proc.pasteable(["a b", Path("/x"), "'", "$y"]) == "'a b' /x ''\"'\"'' '$y'"

# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong with a run, made to go wrong in a fake QEMU: `tdharness run` from outside."""

import errno
import functools
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import agent, cli, prepare, session, workload
from harness.errors import ExitCode, GuestError, MachineError
from harness.judge import judge
from harness.machine import qemu, watchdog
from harness.plan import Plan
from harness.rundir import RunDir
from harness.session import Guest
from harness.testing.fake_qemu import FLOOD_LINE, LAST_WORDS, PANIC
from harness.testing.guests import fake_plan
from harness.verdict import Outcome
from harness.workload import Step

# The bound of each: far below what a person would call hanging.
MOST_S = 60.0
STEPS = (Step(name="convert-4k", command="tdh convert size=4K"),)
# Short where a guest never answers; long where a busy machine might keep a good one from it.
SHORT_S, LONG_S = 0.6, 60.0
UNANSWERED = re.compile("=hang|=agent-garbage")
Cli = Callable[..., tuple[int, str, str]]


def children() -> set[str]:
    """Process ids of this process's children."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


@pytest.fixture
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Holds that no process and no private directory outlives the test."""
    before, place = children(), tmp_path_factory.mktemp("t")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(place))
        yield place
    assert children() <= before
    assert [path.name for path in place.iterdir()] == []


@pytest.fixture
def tdharness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    nothing_left: Path,
) -> Iterator[Cli]:  # fmt: skip
    """`tdharness run` whose guest fails as told: exit code, output, errors."""
    monkeypatch.setattr(qemu, "_DEATH_TIMEOUT_S", 0.2)
    monkeypatch.setattr(agent, "_WATCH_S", 0.1)

    def run(faults: str, *words: str, **timeouts: float) -> tuple[int, str, str]:
        def planned(*_: object, **__: object) -> Plan:
            plan = fake_plan(tmp_path / "fake", faults, boot_timeout_s=LONG_S)
            return replace(plan, **timeouts)  # type: ignore[arg-type]

        patience = qemu.Patience(
            start_s=0.7 if faults == "qmp=hang" else LONG_S,
            quit_s=SHORT_S if faults == "quit=hang" else LONG_S,
        )
        monkeypatch.setattr(
            session, "QemuMachine", functools.partial(qemu.QemuMachine, patience=patience)
        )
        short = faults.startswith("convert") and UNANSWERED.search(faults)
        steps = [replace(step, timeout_s=SHORT_S if short else LONG_S) for step in STEPS]
        monkeypatch.setattr(workload, "steps_for", lambda *_, **__: steps)
        monkeypatch.setattr(prepare, "prepare", planned)
        before_s = time.monotonic()
        code = cli.main(["run", "--runs", str(tmp_path / "runs"), *words])
        assert time.monotonic() - before_s < MOST_S
        said = capfd.readouterr()
        return code, said.out, said.err

    handler = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that passed."""
    guest = booted(tmp_path_factory.mktemp("passed"))
    guest.run_steps(STEPS)
    guest.stop()
    assert judge(guest.run).outcome is Outcome.PASS
    return guest.run.path


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def runs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def facts(run: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((run / "run.json").read_text())
    return data


def complaint(errors: str) -> list[str]:
    """The lines about what went wrong, without those of the progress."""
    lines = errors.splitlines()
    start = next((n for n, line in enumerate(lines) if line.startswith("tdharness: ")), len(lines))
    return [line for line in lines[start:] if not line.endswith(("judging", "the guest"))]


def test_a_guest_that_does_as_told_passes(tdharness: Cli, tmp_path: Path) -> None:
    code, output, errors = tdharness("")
    assert code == ExitCode.PASS
    assert "PASS" in output
    assert complaint(errors) == []
    assert facts(runs(tmp_path)[0])["planned_stop"] is True


# What goes wrong, the exit code, the sentence, the log that is named
FAILURES = [
    ("start=die", 4, f"the guest did not start: QEMU ended with status 1: {LAST_WORDS}",
     "qemu.log"),
    ("qmp=hang", 4, "the guest did not start: QEMU gave no answer to QMP connection within 0.7 s",
     "qemu.log"),
    ("qmp=qmp-garbage", 4, "the guest did not start: QMP connection failed after", "qemu.log"),
    ("boot=lose", 4, "QEMU was ended by signal 9 (Killed)", "qemu.log"),
    ("boot=panic", 1, "boot: the guest ended by itself (guest-panic)", "console.log"),
    ("boot=reboot", 1, "boot: the guest ended by itself (guest-reset)", "console.log"),
    ("boot=hang", 1, "boot: no answer from the guest's agent within ", "console.log"),
    ("boot=agent-garbage", 1, "boot: no answer from the guest's agent within ", "console.log"),
    ("boot=flood", 1, "boot: the guest flooded its console: ", "console.log"),
    ("convert=lose", 4, "convert-4k: QEMU was ended by signal 9 (Killed)", "qemu.log"),
    ("convert=panic", 1, "convert-4k: the guest ended by itself (guest-panic)", "console.log"),
    ("convert=reboot", 1, "convert-4k: the guest ended by itself (guest-reset)", "console.log"),
    ("convert=hang", 1, "convert-4k: no answer from the guest's agent within ", "console.log"),
    ("convert=agent-garbage", 1, "convert-4k: ", "console.log"),
]  # fmt: skip


@pytest.mark.parametrize(("faults", "code", "sentence", "log"), FAILURES)
def test_a_failure_is_one_clear_sentence(
    faults: str, code: int, sentence: str, log: str,
    tdharness: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed: Path,
) -> None:  # fmt: skip
    earlier = tmp_path / "runs" / "earlier"
    shutil.copytree(passed, earlier)
    before = contents(earlier)
    monkeypatch.setattr(watchdog, "MOST_CONSOLE_BYTES", 1 << 20)
    timeouts = (
        {"boot_timeout_s": 1.0} if faults.startswith("boot") and UNANSWERED.search(faults) else {}
    )
    found, output, errors = tdharness(faults, **timeouts)
    assert found == code
    said = complaint(errors)
    assert sentence in said[0]
    failed = runs(tmp_path)[-1]
    assert said[-1] == f"log: {failed / log}"
    assert ("flood" in faults) == (FLOOD_LINE in said[0]) == ("hint: what it repeats" in said[1])
    assert (failed / log).is_file()
    assert len(said) <= 3
    assert "Traceback" not in output + errors
    assert ("FAIL" if code == ExitCode.FINDINGS else "ERROR") in output
    noted = facts(failed)["guest_failures" if code == ExitCode.FINDINGS else "harness_errors"]
    assert len(noted) == 1
    assert noted[0] in said[0]
    assert contents(earlier) == before


def test_the_panic_itself_is_the_finding(tdharness: Cli, tmp_path: Path) -> None:
    _, output, errors = tdharness("boot=panic", "--json")
    verdict = json.loads(output)
    (panic,) = [f for f in verdict["findings"] if f["rule"] == "kernel-log"]
    assert "Attempted to kill init!" in panic["summary"]
    assert PANIC in errors


def test_a_silent_console_is_a_hang_and_diagnosed(tdharness: Cli, tmp_path: Path) -> None:
    code, _, errors = tdharness("boot=hang", silence_timeout_s=0.5)
    assert code == ExitCode.FINDINGS
    assert "boot: the guest hangs: its console has been silent for" in errors
    diagnosis = RunDir(runs(tmp_path)[0]).diagnosis.read_text()
    assert "'status': 'running'" in diagnosis
    assert "RIP=ffffffff81000010" in diagnosis
    assert "Intel TDX" in diagnosis


@pytest.mark.parametrize("faults", ["quit=cut", "quit=hang", "quit=lose"])
def test_a_stream_that_was_cut_is_never_a_pass(faults: str, tdharness: Cli) -> None:
    code, output, _ = tdharness(faults)
    assert code == ExitCode.CANNOT_JUDGE
    assert "the event stream is cut short: it has no trailer" in output


def test_a_port_that_someone_takes_is_replaced(tdharness: Cli, tmp_path: Path) -> None:
    code, _, errors = tdharness("start=port-taken-once")
    assert code == ExitCode.PASS
    assert complaint(errors) == []


def test_a_finding_is_exit_code_1(tdharness: Cli) -> None:
    code, output, _ = tdharness("convert=warn")
    assert code == ExitCode.FINDINGS
    assert "kernel-log" in output


def test_too_little_space_is_told_before_anything_starts(
    tdharness: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=7 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    code, output, errors = tdharness("")
    assert code == ExitCode.HOST
    assert output == ""
    assert f"tdharness: {tmp_path} has 7 MiB left and a run needs 256 MiB\nhint: " in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("method", ["append_step", "write_json", "write_text", "open_log"])
def test_a_disk_that_fills_up_is_no_traceback(
    method: str, tdharness: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(RunDir, method, full)
    code, _, errors = tdharness("")
    assert code == ExitCode.HOST
    assert "tdharness: somewhere: No space left on device" in errors


def test_a_place_for_runs_that_is_a_file_is_told(tdharness: Cli, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    code, _, errors = tdharness("")
    assert code == ExitCode.HOST
    assert str(tmp_path / "runs") in complaint(errors)[0]


def booted(tmp_path: Path, faults: str = "", timeout_s: float = 20.0) -> Guest:
    guest = Guest(
        fake_plan(tmp_path / "f", faults, boot_timeout_s=timeout_s), tmp_path / "r", print
    )
    guest.boot()
    return guest


def kill_when_started(guest: Guest, number: int) -> threading.Thread:
    """Kill the guest's QEMU from outside once its console says something."""

    def work() -> None:
        while not guest.machine.console.size():
            time.sleep(0.01)
        assert isinstance(guest.machine, qemu.QemuMachine)
        os.kill(guest.machine.pid, number)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "signal 9 (Killed)"), (signal.SIGSEGV, "signal 11")]
)
def test_a_qemu_killed_from_outside_is_no_guests_fault(
    number: int, words: str, tmp_path: Path, nothing_left: Path
) -> None:
    guest = Guest(fake_plan(tmp_path / "f", "boot=hang"), tmp_path / "r", print)
    killer = kill_when_started(guest, number)
    with pytest.raises(MachineError, match=words.replace("(", r"\(").replace(")", r"\)")):
        guest.boot()
    killer.join()
    guest.stop()
    verdict = judge(guest.run)
    assert verdict.outcome is Outcome.ERROR
    assert words in verdict.reason
    assert facts(guest.run.path)["planned_stop"] is False


def test_a_qemu_killed_between_two_steps_is_noted(tmp_path: Path, nothing_left: Path) -> None:
    guest = booted(tmp_path)
    kill_when_started(guest, signal.SIGKILL).join()
    assert guest.machine.wait(5.0)
    guest.stop()
    assert judge(guest.run).outcome is Outcome.ERROR


def test_a_guest_that_reboots_between_two_steps_is_noted(
    tmp_path: Path, nothing_left: Path
) -> None:
    guest = booted(tmp_path)
    guest.run_step(STEPS[0])
    with pytest.raises(GuestError, match="the guest ended"):
        guest.sh("fake reboot", 5.0)
    guest.stop()
    assert judge(guest.run).outcome is Outcome.FAIL


def test_a_guest_that_never_booted_can_be_stopped_twice(tmp_path: Path, nothing_left: Path) -> None:
    guest = Guest(fake_plan(tmp_path / "f", "start=die"), tmp_path / "r", print)
    with pytest.raises(MachineError):
        guest.boot()
    guest.stop()
    guest.stop()
    never = Guest(fake_plan(tmp_path / "f"), tmp_path / "r", print)
    never.stop(planned=False)
    never.stop()
    assert facts(never.run.path)["planned_stop"] is False
    assert judge(never.run).outcome is Outcome.ERROR


def test_a_slice_of_a_huge_log_reads_its_own_part(
    tmp_path: Path, nothing_left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = booted(tmp_path)
    try:
        with guest.run.console_log.open("ab") as file:
            file.truncate(300 << 20)
        monkeypatch.setattr(Path, "read_bytes", lambda path: read_small(path))
        with guest.slice() as part:
            assert guest.run_step(STEPS[0]).ok
            guest.sh("fake warn", 5.0)
        assert b"WARNING: CPU: 0" in part.log
        assert len(part.log) < 1000
        assert len(part.events) == 7
    finally:
        guest.stop()


def read_small(path: Path) -> bytes:
    assert path.stat().st_size < 1 << 20
    with path.open("rb") as file:
        return file.read()

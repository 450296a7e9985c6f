# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input with the real QEMU and kernel: one clear sentence, and nothing left running."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import proc
from harness.errors import ExitCode, MachineError
from harness.judge import judge
from harness.machine import qemu, tries
from harness.plan import Plan
from harness.prepare import Request, prepare
from harness.session import Guest
from harness.verdict import Outcome

pytestmark = pytest.mark.integration
# Far above what a boot takes on a slow machine, far below a person's patience with a hang.
MOST_S = 240.0


@pytest.fixture(scope="module")
def plan() -> Plan:
    return prepare(Request(smp=1), lambda _: None)


@pytest.fixture
def guest(plan: Plan, tmp_path: Path) -> Iterator[Guest]:
    started = Guest(plan, tmp_path / "runs", lambda _: None)
    yield started
    started.stop()
    assert not started.machine.private.exists()
    assert not started.machine.alive()


def tdharness(*words: str | Path) -> proc.Result:
    argv = [sys.executable, "-m", "harness.cli", "run", *words]
    return proc.run(argv, timeout_s=MOST_S, check=False)


def test_a_guest_that_panics_at_once(tmp_path: Path) -> None:
    result = tdharness(
        *("--smp", "1", "--cmdline", "rdinit=/nonexistent", "--json"), "--runs", tmp_path
    )
    assert result.returncode == ExitCode.FINDINGS
    verdict: dict[str, Any] = json.loads(result.stdout)
    assert verdict["outcome"] == "FAIL"
    panics = [f for f in verdict["findings"] if f["rule"] == "kernel-log"]
    assert any("panic" in finding["summary"] for finding in panics)
    assert "tdharness: boot: the guest ended" in result.stderr
    assert f"\nlog: {verdict['run']}/console.log\n" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_qemu_that_is_killed_in_mid_boot(guest: Guest) -> None:
    def kill() -> None:
        while guest.machine.console.size() < 2000:
            time.sleep(0.05)
        assert isinstance(guest.machine, qemu.QemuMachine)
        os.kill(guest.machine.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(MachineError, match=r"boot: QEMU was ended by signal 9 \(Killed\)"):
        guest.boot()
    killer.join()
    guest.stop()
    verdict = judge(guest.run)
    assert verdict.outcome is Outcome.ERROR
    assert re.fullmatch(r"boot: QEMU was ended by signal 9 \(Killed\).*", verdict.reason)


def test_a_port_that_someone_took(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        ports = iter([taken, tries.free_port()])
        monkeypatch.setattr(tries, "free_port", lambda: next(ports))
        guest.machine.start()
    assert guest.machine.alive()
    assert guest.machine.ssh_port != taken
    assert next(ports, None) is None


def test_a_kernel_that_is_no_bzimage(plan: Plan, tmp_path: Path) -> None:
    result = tdharness("--kernel", plan.spec.initrd, "--runs", tmp_path / "runs")
    assert result.returncode == ExitCode.USAGE
    assert result.stdout == ""
    said = result.stderr.splitlines()
    assert said[0] == f"tdharness: {plan.spec.initrd} is not a bzImage: it has no Linux boot header"
    assert said[1].startswith("hint: ")
    assert not (tmp_path / "runs").exists()


def test_a_qemu_that_is_too_old(tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 10.0.2 (Debian 1:10.0.2)'\n")
    program.chmod(0o755)
    result = tdharness("--qemu", program, "--runs", tmp_path / "runs")
    assert result.returncode == ExitCode.USAGE
    assert f"tdharness: {program} is QEMU 10.0.2: too old, the stub's plugin" in result.stderr
    assert "\nhint: " in result.stderr
    assert not (tmp_path / "runs").exists()

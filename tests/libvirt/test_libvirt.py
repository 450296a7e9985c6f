# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests started by a real libvirtd: the verdicts of the direct launcher, and mishaps.

The daemon is Debian's, in mounts and processes of its own.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import proc
from harness.console import expect
from harness.errors import ExitCode
from harness.judge import judge
from harness.machine import domain
from harness.machine.libvirtlink import Link
from harness.machine.place import emulator_of
from harness.prepare import Request, prepare
from harness.provision.cache import cache_dir
from harness.provision.qemu import find_or_make
from harness.session import Guest
from harness.testing.libvirtd import Libvirtd, idle_domain, wait_for_socket
from harness.verdict import Outcome, Severity
from harness.workload import WORKLOADS

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("libvirt")]
MOST_S = 240.0
# of this machine, with guests by libvirt, which no hosts.toml says of it
QUALIFY = """
import signal, sys
from pathlib import Path
from harness.hosts.config import Host
from harness.qualify.run import Order, qualify
from harness.remote import LocalRemote

signal.signal(signal.SIGTERM, signal.default_int_handler)
host, runs = Host(name="local", libvirt=sys.argv[1]), Path(sys.argv[2])
order = Order(host=host, remote=LocalRemote(), profile="quick", kernel="stock", runs=runs)
qualify(order, print)
"""


def tdharness(*words: str | Path) -> proc.Result:
    argv = [sys.executable, "-m", "harness.cli", *words]
    return proc.run(argv, timeout_s=MOST_S, check=False)


def verdict_of(runs: Path, *words: str) -> dict[str, Any]:
    result = tdharness("run", "--json", "--runs", runs, *words)
    assert result.returncode in (ExitCode.PASS, ExitCode.FINDINGS), result.stderr
    verdict: dict[str, Any] = json.loads(result.stdout)
    return verdict


def domains(daemon: Libvirtd) -> list[str]:
    link = Link(daemon.uri)
    with contextlib.closing(link):
        return link.call(lambda c: [each.name() for each in c.listAllDomains()], "a list")


def wait_for_a_domain(daemon: Libvirtd, child: "subprocess.Popen[bytes]") -> None:
    end_s = time.monotonic() + 60.0
    while not domains(daemon):
        assert time.monotonic() < end_s
        assert child.poll() is None
        time.sleep(0.2)


def test_the_verdict_is_the_direct_launchers(daemon: Libvirtd, tmp_path: Path) -> None:
    one, other = (
        verdict_of(tmp_path, "--workload", "faults", *words)
        for words in ((), ("--libvirt", daemon.uri))
    )
    assert one["outcome"] == other["outcome"] == "PASS"
    broken = [{(f["rule"], f["extra"].get("step")) for f in v["findings"]} for v in (one, other)]
    assert broken[0] == broken[1]
    assert {rule for rule, _ in broken[1]} >= {"guest-cache-flush", "guest-tlb-flush", "dma-data"}
    assert other["counts"]["steps"] == one["counts"]["steps"] > 0
    run = Path(other["run"])
    assert "-plugin" in (run / "argv").read_text()
    assert domain.owner_of((run / "domain.xml").read_text())
    assert domains(daemon) == []


@pytest.fixture
def guest(daemon: Libvirtd, tmp_path: Path) -> Iterator[Guest]:
    asked = Request(smp=1, libvirt=daemon.uri, fault="cache-large")
    started = Guest(prepare(asked, lambda _: None), tmp_path / "runs", lambda _: None)
    yield started
    started.stop()
    assert not started.machine.private.exists()
    assert not started.machine.alive()
    assert domains(daemon) == []


def convert(guest: Guest, size: str) -> None:
    (step,) = [step for step in WORKLOADS["conversion"] if step.name == f"convert-{size}"]
    assert guest.run_step(step).ok


@pytest.mark.parametrize("how", ["TERM", "KILL"])
def test_a_daemon_that_restarts_costs_nothing(how: str, daemon: Libvirtd, guest: Guest) -> None:
    guest.boot()
    convert(guest, "4k")
    daemon.restart(how)
    convert(guest, "4m")
    wait_for_socket(daemon)
    assert guest.machine.alive()
    assert guest.machine.qmp.execute("query-status")["running"]
    # More than once: a stream is opened behind attach(), and shows nothing of what was said before.
    again = "for i in 1 2 3 4 5 6 7 8 9; do echo said over a stream >/dev/kmsg; sleep 1; done"
    with guest.machine.console.attach(timeout_s=30.0) as console:
        assert guest.machine.agent.run(f"({again}) >/dev/null 2>&1 &", 30.0).rc == 0
        expect(console, "said over a stream", "what the guest was told to say")
    guest.stop()
    verdict = judge(guest.run)
    assert verdict.outcome is Outcome.FAIL
    assert {f.rule for f in verdict.findings if f.severity is Severity.FAIL} == {
        "guest-cache-flush"
    }
    assert verdict.counts["faults_applied"] > 0


def test_a_panic_is_the_guests(daemon: Libvirtd, tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, "--cmdline", "rdinit=/nonexistent", "--libvirt", daemon.uri)
    assert verdict["outcome"] == "FAIL"
    panics = [f for f in verdict["findings"] if f["rule"] == "kernel-log"]
    assert any("panic" in finding["summary"] for finding in panics)


def qemu_of(run: Path) -> int:
    """The process id of the QEMU that writes the run's events."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"-plugin" in words and any(f"out={run}/".encode() in word for word in words):
                return int(path.parent.name)
    raise AssertionError(f"no QEMU writes to {run}")


def test_a_qemu_that_is_killed_is_no_verdict(guest: Guest) -> None:
    guest.machine.start()
    assert guest.machine.alive()
    assert guest.machine.ending() is None
    os.kill(qemu_of(guest.run.path), signal.SIGKILL)
    assert guest.machine.wait(30.0)
    ending = guest.machine.ending()
    assert ending
    assert not ending.orderly
    assert "QEMU failed under libvirt" in ending.words


def test_what_a_dead_harness_left_is_removed_and_nothing_else(
    daemon: Libvirtd, guest: Guest, tmp_path: Path
) -> None:
    runs = tmp_path / "left"
    argv = [sys.executable, "-m", "harness.cli", "run", "--runs", str(runs)]
    with (tmp_path / "output").open("wb") as output:
        child = proc.spawn([*argv, "--libvirt", daemon.uri], stdout=output)
    wait_for_a_domain(daemon, child)
    child.kill()
    child.wait(10.0)
    (left,) = domains(daemon)
    guest.machine.start()
    # Someone else's, which has no metadata of ours.
    foreign, emulator = "someone-elses", emulator_of(find_or_make(), cache_dir() / "builds")
    link = Link(daemon.uri)
    with contextlib.closing(link):
        idle_domain(link, foreign, emulator, None)

    result = tdharness("hosts", "clean", "local", "--libvirt", daemon.uri)

    assert result.returncode == ExitCode.PASS, result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "its harness has ended: removed" in lines[left]
    assert len(lines) == 3
    assert sorted("its harness runs" in line for line in lines.values()) == [False, False, True]
    assert left not in domains(daemon)
    assert foreign in domains(daemon)
    assert guest.machine.alive()
    link = Link(daemon.uri)
    with contextlib.closing(link):
        link.call(lambda c: c.lookupByName(foreign).destroy(), "the end")


def test_a_qualification_that_is_interrupted_leaves_no_guest(
    daemon: Libvirtd, tmp_path: Path
) -> None:
    argv = [sys.executable, "-c", QUALIFY, daemon.uri, str(tmp_path / "runs")]
    with (tmp_path / "output").open("wb") as output:
        child = proc.spawn(argv, stdout=output)
    wait_for_a_domain(daemon, child)
    child.terminate()
    assert child.wait(60.0), "it ended as if nothing had happened"
    assert domains(daemon) == []
    # Each was stopped in order, by its own harness.
    runs = list(tmp_path.glob("runs/qualify/local/0001/runs/*/run.json"))
    assert runs
    for run in runs:
        assert json.loads(run.read_text())["harness_errors"] == ["the harness was interrupted"]

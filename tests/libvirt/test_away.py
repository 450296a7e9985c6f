# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has nothing of its files here: taken there, started, judged, and taken away.

The other machine is this one: its libvirtd and QEMU are real, commands reach it without ssh. A
guest over ssh is in tests/labhost.
"""

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from harness import proc
from harness.errors import HostError
from harness.hosts.there import __file__ as program
from harness.judge import judge
from harness.machine.away import HOME, Away, remove_home
from harness.machine.libvirt import LibvirtMachine
from harness.machine.libvirtlink import Link
from harness.machine.place import emulator_of
from harness.prepare import Request, prepare
from harness.provision.cache import cache_dir
from harness.provision.qemu import find_or_make
from harness.remote import MOST_BYTES, Answer, LocalRemote
from harness.rundir import RunDir
from harness.session import Guest
from harness.testing.libvirtd import Libvirtd
from harness.verdict import Outcome, Severity
from harness.workload import WORKLOADS

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("libvirt")]


class ThisMachine(LocalRemote):
    """As a host that is reached over a connection, which may be lost."""

    lost = False

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:
        if self.lost:
            raise HostError("the connection was lost")
        return super().run(argv, timeout_s=timeout_s, stdin=stdin, max_bytes=max_bytes)

    def stream(self, argv: Sequence[str]) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs, os.fdopen(os.dup(theirs.fileno()), "r+b", 0) as end:
            proc.spawn(argv, stdout=end, stdin=end)
        return ours


def place(run: RunDir, parent: Path, remote: ThisMachine | None = None) -> Away:
    emulator = emulator_of(find_or_make(), cache_dir() / "builds")
    return Away(remote or ThisMachine(), run, parent=parent, emulator=emulator)


@pytest.fixture
def remote() -> ThisMachine:
    return ThisMachine()


@pytest.fixture
def guest(daemon: Libvirtd, remote: ThisMachine, tmp_path: Path) -> Iterator[Guest]:
    (tmp_path / "host").mkdir()
    asked = Request(smp=1, libvirt=daemon.uri, fault="cache-large")
    plan = prepare(asked, lambda _: None)
    made = Guest(plan, tmp_path / "runs", lambda _: None)
    made.machine.stop()
    home = place(made.run, tmp_path / "host", remote)
    made.machine = LibvirtMachine(plan.spec, plan.qemu, made.run, daemon.uri, home)
    yield made
    made.stop()


def test_a_guest_of_another_machine_is_judged_here(guest: Guest, tmp_path: Path) -> None:
    guest.boot()
    with guest.slice() as part:
        for step in WORKLOADS["conversion"]:
            assert guest.run_step(step).ok
    assert part.events
    assert b"tdharness" in part.log
    # Over the forwarded port.
    shell = guest.shell()
    with contextlib.closing(shell):
        assert shell.run(["echo", "by ssh"], timeout_s=30.0).stdout.strip() == "by ssh"
    (home,) = (tmp_path / "host").iterdir()
    assert home.name.startswith(HOME)
    xml = guest.run.domain_xml.read_text()
    assert f"{home}/events" in xml
    assert str(guest.plan.spec.kernel) not in xml
    guest.stop()

    assert not list((tmp_path / "host").iterdir())
    verdict = judge(guest.run)
    assert verdict.outcome is Outcome.FAIL
    failing = {f.rule for f in verdict.findings if f.severity is Severity.FAIL}
    assert failing == {"guest-cache-flush"}
    assert verdict.counts["faults_applied"] > 0


def test_a_host_that_is_lost_is_noted_in_the_run(guest: Guest, remote: ThisMachine) -> None:
    guest.boot()
    remote.lost = True
    guest.stop()
    assert not guest.machine.alive()
    facts = json.loads(guest.run.run_json.read_text())
    assert facts["harness_errors"] == ["the connection was lost"]
    # What came here before stands; without it there is no verdict.
    assert judge(guest.run).outcome is Outcome.FAIL
    guest.run.events.write_bytes(b"")
    assert judge(guest.run).outcome is Outcome.ERROR


def test_a_host_without_room_is_told(daemon: Libvirtd, tmp_path: Path) -> None:
    away = place(RunDir.create(tmp_path, "test"), tmp_path / "nowhere")
    spec = prepare(Request(), lambda _: None).spec
    with (
        contextlib.closing(Link(daemon.uri)) as link,
        pytest.raises(HostError, match=r"mktemp failed on the host with 1: .*nowhere"),
    ):
        away.lay(spec, link)
    away.close()


def test_only_a_directory_of_ours_is_removed(tmp_path: Path) -> None:
    ours, other = tmp_path / f"{HOME}1", tmp_path / "boot"
    for directory in (ours, other):
        directory.mkdir()
        remove_home(LocalRemote(), directory / "vmlinuz")
    assert not ours.exists()
    assert other.exists()


def test_a_file_is_followed_until_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "log"
    argv = [sys.executable, program, "follow", str(path)]
    ours = ThisMachine().stream(argv)
    ours.settimeout(20.0)
    path.write_bytes(b"one\n")
    assert ours.recv(64) == b"one\n"
    with path.open("ab") as file:
        file.write(b"two\n")
    assert ours.recv(64) == b"two\n"
    # Its input ends, so it does.
    ours.shutdown(socket.SHUT_WR)
    assert ours.recv(64) == b""
    ours.close()


def test_a_free_port_is_named() -> None:
    said = proc.run([sys.executable, program, "port"], timeout_s=20.0).stdout
    assert 0 < int(said) < 1 << 16

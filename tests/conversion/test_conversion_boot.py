# SPDX-License-Identifier: GPL-2.0-or-later
"""What the boot itself converted, and the ways to reach the guest."""

import os
import re
import socket
from pathlib import Path

import pytest

from harness.console import expect
from harness.conversions import conversions
from harness.events import decode
from harness.evidence import load
from harness.machine.qemu import QemuMachine
from harness.rundir import RunDir
from harness.suite import TestGuest
from harness.testing.sockets import listeners, listening

pytestmark = [pytest.mark.integration, pytest.mark.needs_td]

SWIOTLB_BYTES = 64 << 20


@pytest.mark.needs_stub
@pytest.mark.plants()
def test_the_boot_converted_the_bounce_buffers(guest: TestGuest) -> None:
    evidence = load(RunDir(guest.session.run.path))
    found = conversions(evidence.events, evidence.symbols)
    pool = [c for c in found if c.bytes == SWIOTLB_BYTES]
    assert len(pool) == 1
    assert pool[0].flushed == pool[0].lines
    assert pool[0].dirty == 0
    assert "mem_encrypt_init" in pool[0].caller


@pytest.mark.needs_stub
def test_every_conversion_has_a_caller(guest: TestGuest) -> None:
    evidence = load(RunDir(guest.session.run.path))
    found = conversions(evidence.events, evidence.symbols)
    assert [c.seq for c in found if not c.caller] == []
    assert guest.sh("tdh convert size=4K").rc == 0


def test_the_console_is_a_shell_for_a_person(guest: TestGuest) -> None:
    with guest.session.machine.console.attach(timeout_s=30) as console:
        console.sendline("")
        expect(console, r"# ", "prompt")
        console.sendline("echo $((6 * 7)) is the answer")
        expect(console, r"42 is the answer", "answer")
    assert guest.sh("tdh convert size=4K").rc == 0


def test_ssh_runs_commands_as_they_are(guest: TestGuest) -> None:
    shell = guest.ssh()
    try:
        words = ["printf", "%s|", "a b", "$(id)", "'", '"', "*", ";", "ä"]
        result = shell.run(words, timeout_s=30)
        assert result.stdout == "a b|$(id)|'|\"|*|;|ä|"
        assert shell.run(["sh", "-c", "exit 7"], timeout_s=30).rc == 7
    finally:
        shell.close()
    assert guest.sh("tdh convert size=4K").rc == 0


def test_qmp_answers(guest: TestGuest) -> None:
    assert guest.session.machine.qmp.execute("query-status")["status"] == "running"
    assert len(guest.session.machine.qmp.execute("query-cpus-fast")) == guest.session.plan.spec.smp
    assert guest.sh("tdh convert size=4K").rc == 0


@pytest.mark.needs_stub
def test_the_stream_grows_without_a_trailer(guest: TestGuest) -> None:
    stream = decode(guest.session.run.events.read_bytes())
    assert not stream.complete
    assert guest.sh("tdh convert size=4K").rc == 0
    assert len(decode(guest.session.run.events.read_bytes()).events) > len(stream.events)


# As the kernel prints them: every address, one of another machine, IPv6's every address and ::1.
TABLES = f"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 11 1 0 0
   1: 0702000A:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 12 1 0 0
   2: 0100007F:0017 00000000:0000 01 00000000:00000000 00:00000000 00000000  0 0 13 1 0 0
   3: {"0" * 32}:0050 {"0" * 32}:0000 0A 0:0 0:0 0 0 0 14 1
   4: {"0" * 24}01000000:0051 {"0" * 32}:0000 0A 0:0 0:0 0 0 0 15 1
   5: 00000000:0052 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 16 1 0 0
"""


def test_nothing_listens_beyond_this_machine(guest: TestGuest) -> None:
    assert listeners(TABLES, {"11", "12", "13", "14", "15"}) == {
        ("0.0.0.0", 8080), ("10.0.2.7", 22), ("::", 80), ("::1", 81),
    }  # fmt: skip
    machine = guest.session.machine
    assert isinstance(machine, QemuMachine)
    assert listening(machine.pid) == {("127.0.0.1", machine.ssh_port)}
    with socket.create_server(("127.0.0.1", 0)) as ours:
        assert ("127.0.0.1", ours.getsockname()[1]) in listening(os.getpid())
    assert guest.sh("tdh convert size=4K").rc == 0


def test_qemu_may_start_no_process_and_gain_no_right(guest: TestGuest) -> None:
    assert isinstance(guest.session.machine, QemuMachine)
    status = Path(f"/proc/{guest.session.machine.pid}/status").read_text()
    # a seccomp filter is in force
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert guest.sh("tdh convert size=4K").rc == 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the boot itself converted, and the ways to reach the guest."""

import pytest

from harness.console import expect
from harness.conversions import conversions
from harness.events import decode
from harness.judge import load
from harness.rundir import RunDir
from harness.suite import TestGuest

pytestmark = [pytest.mark.integration, pytest.mark.needs_td]

SWIOTLB_BYTES = 64 << 20


@pytest.mark.plants()
def test_the_boot_converted_the_bounce_buffers(guest: TestGuest) -> None:
    evidence = load(RunDir(guest.session.run.path))
    found = conversions(evidence.events, evidence.symbols)
    pool = [c for c in found if c.bytes == SWIOTLB_BYTES]
    assert len(pool) == 1
    assert pool[0].flushed == pool[0].lines
    assert pool[0].dirty == 0
    assert "mem_encrypt_init" in pool[0].caller


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


def test_the_stream_grows_without_a_trailer(guest: TestGuest) -> None:
    stream = decode(guest.session.run.events.read_bytes())
    assert not stream.complete
    assert guest.sh("tdh convert size=4K").rc == 0
    assert len(decode(guest.session.run.events.read_bytes()).events) > len(stream.events)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes wrong on hosts of a lab, on a real one: each is told, bounded, and over when it is."""

import re
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.hostmce.collect import Collector
from harness.hostmce.record import Source
from harness.hostmce.told import HostTold
from harness.hostmce.watch import FOUND_OUT_S
from harness.hosts.lease import PLACE, Lease
from harness.hosts.ssh import SshRemote
from harness.job import carry_out
from harness.judge import judge
from harness.labhost import checks
from harness.labhost.host import LabHost
from harness.labhost.launch import lab_host as launched
from harness.session import Guest
from harness.testing.guests import fake_plan
from harness.verdict import Outcome
from harness.workload import Step

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("labhost")]

DATABASE = "/var/lib/rasdaemon"
# The kernel's log has few of the corrected errors, and the collector has a trace of its own.
SEEN = "/sys/kernel/tracing/instances/seen"
COMMAND_TIMEOUT_S = 120.0
FOUND_TIMEOUT_S = 60.0
HOURS_S = 3600
# Some per record and source that is kept, and none per line that is read.
MOST_GROWN_KIB = 96 << 10
LINE_BYTES, FILL_TRIES = 900, 5
FILL = """
import os, sys, time
log = os.open("/dev/kmsg", os.O_WRONLY)
for number in range(int(sys.argv[1])):
    os.write(log, b"<6>filling: %d " % number + 900 * b"x" + b"\\n")
    # or the journal loses most of it
    if number % 60 == 59:
        time.sleep(0.04)
"""
# By the kernel's own injector, into its log of machine checks: faster than its polling of banks.
STORM = """
import sys, time
def word(name):
    return open("/sys/kernel/debug/mce-inject/" + name, "wb", 0)
word("flags").write(b"sw\\n")
parts = {name: word(name) for name in ("status", "misc", "addr", "cpu", "bank")}
for number in range(int(sys.argv[1])):
    page = 0x12345000 + number % 50 * 4096
    values = (0x8c00004000000090, 0x8c, page, number % 2, 3 + number // 2 % 4)
    for part, value in zip(parts.values(), values):
        part.write(b"%#x" % value)
    # the kernel keeps a few dozen that it has not told yet, and drops what is more
    if number % 16 == 15:
        time.sleep(0.005)
"""


@pytest.fixture(scope="module")
def host(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabHost]:
    """One for all of them: each undoes what it did."""
    with launched(tmp_path_factory.mktemp("faulty-host")) as made:
        made.run("sh", "-c", f"mkdir {SEEN} && echo 1 >{SEEN}/events/mce/mce_record/enable")
        yield made


@pytest.fixture
def remote(host: LabHost) -> Iterator[SshRemote]:
    with SshRemote(host.entry) as made:
        yield made


def sh(remote: SshRemote, command: str) -> str:
    answer = remote.run(["sh", "-c", command], timeout_s=COMMAND_TIMEOUT_S)
    assert not answer.exit_code, answer
    return answer.stdout.decode().strip()


def python(remote: SshRemote, program: str, count: int, timeout_s: float) -> None:
    argv = ["python3", "-", str(count)]
    answer = remote.run(argv, timeout_s=timeout_s, stdin=program.encode())
    assert not answer.exit_code, answer


def struck(host: LabHost, remote: SshRemote, page: int) -> None:
    """Have it take a corrected error, and wait until its kernel found it."""
    host.inject(checks.corrected(page))
    end_s = time.monotonic() + FOUND_TIMEOUT_S
    while sh(remote, f"grep -c {page:016x} {SEEN}/trace || true") == "0":
        assert time.monotonic() < end_s, sh(remote, f"tail {SEEN}/trace")
        time.sleep(0.2)


def pages(told: HostTold) -> list[int]:
    return [record.addr or 0 for record in told.merged.records]


@contextmanager
def undone(remote: SshRemote, command: str) -> Iterator[None]:
    try:
        yield
    finally:
        sh(remote, command)


@pytest.mark.parametrize(
    ("page", "jumps"),
    [
        pytest.param(0x12320000, (5, -9), id="on, then back"),
        pytest.param(0x12330000, (-9, 14), id="back, then on", marks=pytest.mark.nightly),
    ],
)
def test_a_clock_that_is_hours_off_and_set_meanwhile(
    host: LabHost, remote: SshRemote, page: int, jumps: tuple[int, int]
) -> None:
    def set_clock(by_hours: int) -> None:
        sh(remote, f"date -s @$(($(date +%s) + {by_hours * HOURS_S}))")

    lease = Lease(remote, "me")
    back = f"date -s @{sh(remote, 'date +%s')}; rm -r {PLACE}"
    with undone(remote, back):
        # before the window, and by the wall clock then within it
        struck(host, remote, page)
        assert lease.ask("take").held
        set_clock(jumps[0])
        before = Collector(remote).before()
        struck(host, remote, page + 0x1000)
        set_clock(jumps[1])
        struck(host, remote, page + 0x2000)
        told = Collector(remote).after(before)
        assert lease.ask("keep").held
        left_s = lease.ask("show").left_s
    assert (pages(told), told.gaps) == ([page + 0x1000, page + 0x2000], ())
    assert told.merged.disagreements == ()
    assert left_s <= lease.lease_s
    # The virtual lab host's clock was hours off to begin with.
    assert any(sentence.startswith("The host's clock is ") for sentence in told.sentences)


def test_a_full_disk_costs_no_evidence_and_no_lease(host: LabHost, remote: SshRemote) -> None:
    mine, theirs = Lease(remote, "mine"), Lease(remote, "theirs")
    assert mine.ask("take").held
    fill = "fallocate -l $(df --output=avail -B1 / | tail -1) /filled || true; cat /dev/zero >/rest"
    with undone(remote, f"rm -rf /filled /rest {PLACE}"):
        sh(remote, f"({fill}) 2>/dev/null; test $(df --output=avail / | tail -1) -lt 8")
        with pytest.raises(HostError, match="could not be written") as error:
            theirs.ask("take")
        assert "whether its disk is full" in str(error.value.hint)
        assert mine.ask("show").owner == "mine"
        before = Collector(remote).before()
        struck(host, remote, 0x12344000)
        told = Collector(remote).after(before)
        sh(remote, "rm -f /filled /rest")
        assert mine.ask("keep").held
        assert theirs.ask("take").position == 1
        mine.ask("drop")
        assert theirs.ask("take").held
    assert pages(told) == [0x12344000]
    assert told.gaps == ()
    # rasdaemon could not store it, and that is told.
    assert told.merged.disagreements == ("rasdaemon has none of 1 of 1 machine checks",)


def measured(what: str, work: Callable[[], HostTold]) -> tuple[HostTold, float]:
    """What it gives, and how long it took; its memory is held to a bound."""
    began_s, began_kib = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = work()
    took_s = time.monotonic() - began_s
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began_kib
    print(f"{what}: {took_s:.1f} s, {grown_kib / 1024:.1f} MiB more")
    assert grown_kib < MOST_GROWN_KIB
    return told, took_s


def filled(remote: SshRemote, lines: int) -> int:
    """Have the journal keep so many long lines of the kernel's; bytes of all that it has."""
    wanted, kept = LINE_BYTES * lines, 0
    for _ in range(FILL_TRIES):
        # What came faster than the journal reads is lost: written again.
        python(remote, FILL, (wanted - kept) // LINE_BYTES + 1, timeout_s=600.0)
        kept = int(sh(remote, "journalctl --sync; journalctl --dmesg --boot --output=cat | wc -c"))
        if kept >= wanted:
            return kept
    raise AssertionError(f"the journal kept {kept} of {wanted} bytes")


@pytest.mark.parametrize("lines", [3_000, pytest.param(250_000, marks=pytest.mark.nightly)])
def test_a_long_kernel_log_is_not_read_but_for_what_matters(
    host: LabHost, remote: SshRemote, lines: int
) -> None:
    keep = "mkdir -p /var/log/journal && journalctl --flush"
    # Its serial console takes 7 ms of an emulated processor for each line.
    sh(remote, f"{keep}; dmesg --console-level 1")
    put_back = "dmesg --console-level 7; journalctl --relinquish-var; rm -rf /var/log/journal"
    with undone(remote, put_back):
        before = Collector(remote).before()
        struck(host, remote, 0x12346000)
        kept = filled(remote, lines)
        struck(host, remote, 0x12347000)
        told, _ = measured(f"{kept >> 20} MiB", lambda: Collector(remote).after(before))
    assert (pages(told), told.gaps) == ([0x12346000, 0x12347000], ())
    assert told.merged.disagreements == ()


def test_without_rasdaemon_the_others_tell(host: LabHost, remote: SshRemote) -> None:
    away = f"systemctl stop rasdaemon; mv {DATABASE} {DATABASE}.away"
    back = f"rm -rf {DATABASE}; mv {DATABASE}.away {DATABASE}; systemctl start rasdaemon"
    sh(remote, away)
    with undone(remote, back):
        before = Collector(remote).before()
        struck(host, remote, 0x12340000)
        told = Collector(remote).after(before)
    assert told.gaps == ("rasdaemon: it has no database: not installed, or never started",)
    assert told.heard == (Source.KERNEL_LOG.value, Source.TRACE.value)
    assert (pages(told), told.merged.disagreements) == ([0x12340000], ())


def test_a_storm_is_counted_once_and_bounded(host: LabHost, remote: SshRemote) -> None:
    sh(remote, "modprobe mce-inject && dmesg --console-level 1")
    count = 2000
    with undone(remote, "rmmod mce-inject; dmesg --console-level 7"):
        before = Collector(remote).before()
        # so small that it runs over
        sh(remote, "echo 100 >/sys/kernel/tracing/instances/tdharness/buffer_size_kb")
        python(remote, STORM, count, timeout_s=120.0)
        told, took_s = measured("storm", lambda: Collector(remote).after(before))
    merged = told.merged
    print(merged.total, len(merged.records), merged.disagreements, told.gaps)
    assert took_s < FOUND_TIMEOUT_S
    # What the kernel itself dropped nobody knows of; nothing is told twice.
    assert count // 2 < merged.total <= count
    assert merged.by_grade == {"corrected": sum(merged.by_grade.values())}
    # 50 pages and 4 banks, either even or odd by the processor
    assert len(merged.records) <= 100
    assert len(merged.disagreements) < 5


def test_a_host_that_reboots_under_a_test(host: LabHost, tmp_path: Path) -> None:
    took_s = 0.0

    def reset(guest: Guest) -> None:
        nonlocal took_s
        began_s = time.monotonic()
        host.qmp.execute("system_reset")
        try:
            guest.run_step(Step(name="hang", command="fake hang", timeout_s=3 * FOUND_OUT_S))
        finally:
            took_s = time.monotonic() - began_s

    plan = fake_plan(tmp_path / "fake", "")
    steps = [Step(name="convert", command="tdh convert size=4K")]
    run = carry_out(plan, steps, tmp_path, lambda _: None, before_stop=reset, host=host.entry)
    verdict = judge(run)
    # behind it, the harness gives a machine that did not end some seconds
    assert took_s < FOUND_OUT_S + 10.0
    assert verdict.outcome is Outcome.ERROR
    # by its boot id where it was back in time
    said = "the host failed, not the guest: it (rebooted|gave no answer for)"
    assert re.search(said, verdict.reason), verdict.reason
    # of the boot after it, which ends the words of the one before
    assert b"Linux version" in run.host_console.read_bytes()

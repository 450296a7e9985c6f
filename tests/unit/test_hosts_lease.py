# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases, with the real script on this machine: one holder, a queue, and an end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import EvidenceError, HostError
from harness.hosts import lease as module
from harness.hosts.lease import Holding, Lease, leased, parse_holding
from harness.remote import MOST_BYTES, Answer, LocalRemote

HOLDER = """
import sys, time
from harness.hosts.lease import Lease, leased
from harness.remote import LocalRemote
with leased(Lease(LocalRemote(), "holder", sys.argv[1], float(sys.argv[2])), 60.0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_POLL_S", 0.05)
    return tmp_path / "lease"


def lease(place: Path, owner: str = "me", lease_s: float = 60.0) -> Lease:
    return Lease(LocalRemote(), owner, str(place), lease_s)


def test_one_holder_and_then_the_next_in_the_queue(place: Path) -> None:
    one, two, three = (lease(place, owner) for owner in ("one", "two", "three"))
    assert one.ask("take").held
    shown = one.ask("show")
    assert shown == Holding(held=True, left_s=shown.left_s, owner="one")
    waits = two.ask("take")
    assert (waits.held, waits.position, waits.owner) == (False, 1, "one")
    assert three.ask("take").position == 2
    # asked again it keeps its place
    assert two.ask("take").position == 1
    one.ask("drop")
    assert not three.ask("take").held
    assert two.ask("take").held
    assert two.ask("keep").held and not one.ask("keep").held
    two.ask("drop")
    assert three.ask("take").held


def test_who_stops_waiting_holds_nobody_up(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TICKET_S", 1.0)
    one, two, three = (lease(place, owner) for owner in ("one", "two", "three"))
    one.ask("take")
    two.ask("take")
    time.sleep(2.1)
    assert three.ask("take").position == 1
    one.ask("drop")
    assert three.ask("take").held


def test_waiting_has_an_end_that_names_the_holder(place: Path) -> None:
    said: list[str] = []
    lease(place, "ada@lab").ask("take")
    with pytest.raises(HostError, match=r"not free after .* ada@lab has it"):
        lease(place).take(0.2, said.append)
    assert len(said) == 1 and "number 1 in the queue: ada@lab has it" in said[0]
    assert not list((place / "queue").iterdir())


def test_a_lease_that_is_not_renewed_ends(place: Path) -> None:
    one, two = lease(place, lease_s=1.0), lease(place)
    one.ask("take")
    assert not two.ask("take").held
    time.sleep(2.1)
    assert two.ask("take").held
    assert not one.ask("keep").held


def planted(place: Path, left_s: int, boot: str) -> Lease:
    """Someone's lease, and someone in the queue; returns another's."""
    up_s = int(float(Path("/proc/uptime").read_text().split()[0]))
    (place / "queue").mkdir(parents=True)
    (place / "lease").write_text(f"{up_s + left_s} {boot} someone else\n")
    (place / "queue" / "000000000000.other").write_text(f"{up_s + left_s} {boot}\n")
    return lease(place)


def test_a_lease_is_of_one_boot_and_lasts_no_day(place: Path, tmp_path: Path) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    now = planted(place, 50, boot).ask("take")
    assert (now.held, now.owner, now.position) == (False, "else", 2)
    assert planted(tmp_path / "of another boot", 50, "0-0").ask("take").held
    assert not planted(tmp_path / "for days", 400_000, boot).ask("show").held
    # The host is up for less than a lease: who had it may come back to it.
    back = planted(tmp_path / "soon", 50, "0-0")
    back.lease_s = float(Path("/proc/uptime").read_text().split()[0]) + 60.0
    assert back.ask("take").owner == "else"


def test_a_holder_renews_its_lease_and_gives_it_back(place: Path) -> None:
    with leased(lease(place, lease_s=4.0), 1.0) as held:
        time.sleep(5.1)
        assert held.ask("show").held
        assert not held.ended.is_set()
    assert lease(place, "next").ask("take").held


def test_a_holder_is_told_that_it_lost_the_lease(place: Path) -> None:
    with leased(lease(place, lease_s=1.0), 1.0) as held:
        lease(place).ask("clear")
        assert held.ended.wait(10)


class Unreachable(LocalRemote):
    """A machine that stops answering."""

    gone = False

    def run(
        self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:  # fmt: skip
        if self.gone:
            raise HostError("no route")
        return super().run(argv, timeout_s=timeout_s, stdin=stdin, max_bytes=max_bytes)


def test_a_short_silence_of_the_host_costs_no_lease_and_a_long_one_does(place: Path) -> None:
    remote = Unreachable()
    held = Lease(remote, "me", str(place), 4.0)
    held.ask("take")
    done = threading.Event()
    keeper = threading.Thread(target=held.keep, args=(done,), daemon=True)
    remote.gone = True
    keeper.start()
    time.sleep(1.2)
    assert not held.ended.is_set()
    remote.gone = False
    time.sleep(1.2)
    assert not held.ended.is_set()
    remote.gone = True
    assert held.ended.wait(10)


def test_of_two_processes_one_has_it_and_a_killed_one_loses_it(place: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, place, "3"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout and first.stdout.readline() == "held\n"
    second = lease(place, "second")
    try:
        for _ in range(20):
            found = second.ask("take")
            assert not found.held and found.owner == "holder"
            time.sleep(0.2)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    second.take(10.0, lambda _: None)


def test_a_full_disk_is_told_and_harms_nobody(place: Path) -> None:
    class Full(LocalRemote):
        def run(
            self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"",
            max_bytes: int = MOST_BYTES,
        ) -> Answer:  # fmt: skip
            # A limit on the size of files: writing fails as on a disk that has no byte left.
            script = b"trap '' XFSZ\nulimit -f 0\n" + stdin
            return super().run(argv, timeout_s=timeout_s, stdin=script, max_bytes=max_bytes)

    holder = lease(place, "holder")
    holder.ask("take")
    with pytest.raises(HostError, match="could not be written") as error:
        Lease(Full(), "me", str(place)).ask("take")
    assert "disk is full" in str(error.value.hint)
    assert holder.ask("show").owner == "holder"
    assert holder.ask("keep").held


def test_owners_are_hostile_text(place: Path) -> None:
    lease(place, "$(touch /tmp/x) \x1b]0;x\x07 *").ask("take")
    found = lease(place).ask("show")
    assert found.owner.startswith("$(touch /tmp/x)") and "\x1b" not in found.owner


@pytest.mark.parametrize("said", ["", "held", "held x me", "waiting 1", "no", "held -1 me"])
def test_another_answer_is_no_lease(said: str) -> None:
    with pytest.raises(EvidenceError, match="lease says"):
        parse_holding(said)

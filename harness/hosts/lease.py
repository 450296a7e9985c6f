# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has a host: a lease on the host itself, with an owner and an end by its time since boot.

Who waits stands in a queue. A holder renews its lease as long as it lives; one that was killed, or
whose host cannot be reached any more, loses it when it ends, and the next in the queue has it.
"""

import contextlib
import getpass
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import EvidenceError, HarnessError, HostError
from harness.remote import Remote
from harness.text import printable
from harness.timeouts import Deadline

# On the host; not below /run, which only root may write to.
PLACE = "/var/tmp/tdharness-lease"
LEASE_S = 120.0
_TICKET_S = 30.0
_POLL_S = 2.0
_ASK_TIMEOUT_S = 40.0
_SAY_EVERY_S = 30.0
_SCRIPT = Path(__file__).with_name("lease.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a host says of its lease. `held`: by whom it was asked for, or for `show` by anyone."""

    held: bool
    # of the lease, by the host's time since boot; 0 of one that has no end
    left_s: float = 0.0
    owner: str = ""
    # in the queue, from 1 on; 0 where there is none
    position: int = 0


def parse_holding(said: str) -> Holding:
    """The script's line. Raises EvidenceError for anything else."""
    match said.split(maxsplit=3):
        case ["held", left, *owner] if left.isdecimal():
            return Holding(held=True, left_s=float(left), owner=printable(" ".join(owner), 120))
        case ["waiting", position, left, *owner] if position.isdecimal() and left.isdecimal():
            name = printable(" ".join(owner), 120)
            return Holding(held=False, left_s=float(left), owner=name, position=int(position))
        case ["free"] | ["lost"]:
            return Holding(held=False)
    raise EvidenceError(f"the host's lease says {printable(said, 120)!r}")


def owner_here() -> str:
    """Who asks, for people: user, machine and process are no secret in a lab."""
    return printable(f"{getpass.getuser()}@{socket.gethostname()}", 100)


@dataclass(slots=True)
class Lease:
    """A lease on one host, held or asked for. `ended` is set when it was lost while it was held."""

    remote: Remote
    owner: str = field(default_factory=owner_here)
    place: str = PLACE
    lease_s: float = LEASE_S
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    ended: threading.Event = field(default_factory=threading.Event)

    def ask(self, act: str) -> Holding:
        """One of the script's acts. Raises HostError."""
        words = [self.place, act, self.id, self.owner, f"{self.lease_s:.0f}", f"{_TICKET_S:.0f}"]
        answer = self.remote.run(
            ["sh", "-s", *words], timeout_s=_ASK_TIMEOUT_S, stdin=_SCRIPT.read_bytes()
        )
        if answer.exit_code:
            said = printable(answer.stderr.decode(errors="replace").strip(), 200)
            raise HostError(
                f"the host's lease could not be written: {said or f'exit {answer.exit_code}'}",
                hint=f"look at {self.place} on the host, and whether its disk is full",
            )
        return parse_holding(answer.stdout.decode(errors="replace").strip())

    def take(self, wait_s: float, progress: Callable[[str], None]) -> None:
        """Wait for it, in the queue. Raises HostError when others have it for longer."""
        deadline, said_s = Deadline(wait_s), -_SAY_EVERY_S
        while not (found := self.ask("take")).held:
            who = f"{found.owner or 'someone'} has it"
            if found.left_s:
                who += f" for {found.left_s:.0f} s, or renews it"
            if deadline.expired():
                self.ask("drop")
                raise HostError(
                    f"the host was not free after {deadline.elapsed_s():.0f} s: {who}",
                    hint="wait longer (--wait), or ask them",
                )
            if deadline.elapsed_s() - said_s >= _SAY_EVERY_S:
                said_s = deadline.elapsed_s()
                queue = f", number {found.position} in the queue" if found.position else ""
                progress(f"waiting for the host{queue}: {who}")
            time.sleep(min(_POLL_S, deadline.left_s() + 0.01))

    def keep(self, done: threading.Event) -> None:
        """Renew it until `done`; sets `ended` when it is lost, or could not be renewed in time."""
        renewed = Deadline(self.lease_s)
        while not done.wait(self.lease_s / 4):
            try:
                if not self.ask("keep").held:
                    break
            except HarnessError:
                # The host may be restarting; what counts is when the lease ends.
                if renewed.expired():
                    break
                continue
            renewed = Deadline(self.lease_s)
        if not done.is_set():
            self.ended.set()


@contextlib.contextmanager
def leased(
    lease: Lease, wait_s: float, progress: Callable[[str], None] = lambda _: None
) -> Iterator[Lease]:
    """Hold the lease; it is given back whatever happens inside. Raises HostError as take()."""
    lease.take(wait_s, progress)
    done = threading.Event()
    keeper = threading.Thread(target=lease.keep, args=(done,), name="lease", daemon=True)
    keeper.start()
    try:
        yield lease
    finally:
        done.set()
        keeper.join(_ASK_TIMEOUT_S)
        # Where the host cannot be reached it ends by itself.
        with contextlib.suppress(HarnessError):
            lease.ask("drop")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that run now, so that a person can open a shell or the console of one."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.rundir import RunDir

_NAME = "live.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveGuest:
    """How to reach a running guest; the paths are gone when it ends."""

    run: str
    # of the harness that owns the guest, with its start time: process ids are used again
    pid: int
    start_time: int
    console_socket: str
    ssh_port: int
    key_path: str
    # in OpenSSH's one-line form
    host_key: str


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in the second field may hold anything, blanks and brackets included.
    return int(stat.rpartition(")")[2].split()[19])


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process of this boot of this machine, as one can tell that it has ended."""

    # Process ids mean something in their namespace only, and containers share files and daemons.
    namespace: int
    pid: int
    # in clock ticks after the boot, as process ids are used again
    start: int

    def known(self) -> bool:
        """Whether it is of our namespace: of another one nothing can be said."""
        return self.namespace == _namespace()

    def runs(self) -> bool:
        """Whether it still runs, where it is known."""
        return start_time(self.pid) == self.start


def process(pid: int = 0) -> Process:
    """This process, or another of our namespace."""
    pid = pid or os.getpid()
    return Process(namespace=_namespace(), pid=pid, start=start_time(pid) or 0)


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def announce(
    run: RunDir, *, console_socket: Path, ssh_port: int, key_path: Path, host_key: str
) -> None:
    """Write how to reach the guest of this process."""
    guest = LiveGuest(
        run=str(run.path),
        pid=os.getpid(),
        start_time=start_time(os.getpid()) or 0,
        console_socket=str(console_socket),
        ssh_port=ssh_port,
        key_path=str(key_path),
        host_key=host_key,
    )
    run.write_json(run.path / _NAME, asdict(guest))


def withdraw(run: RunDir) -> None:
    """The guest has ended."""
    (run.path / _NAME).unlink(missing_ok=True)


def find(runs: Path, name: str | None = None) -> LiveGuest:
    """The running guest of run directory `name`, or the newest. Raises ConfigError: none runs."""
    candidates = [Path(name)] if name else sorted(runs.glob("*/"), reverse=True)
    for path in candidates:
        try:
            guest = LiveGuest(**json.loads((path / _NAME).read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if start_time(guest.pid) == guest.start_time:
            return guest
    raise ConfigError(
        f"no guest runs in {name or runs}",
        hint="start one with `tdharness run --keep` in another terminal",
    )

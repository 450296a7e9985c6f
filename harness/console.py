# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's serial console: QEMU keeps the log, pexpect speaks when someone has to.

QEMU writes everything to the log by itself, so nothing is lost when no one is attached, or when
the harness dies.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import GuestError, MachineError
from harness.text import printable
from harness.timeouts import Deadline

if TYPE_CHECKING:
    from pexpect.fdpexpect import fdspawn

_POLL_S = 0.05
_TAIL_BYTES = 16 << 10
_PIECE_BYTES = 1 << 20
MOST_LINE_CHARACTERS = 4096
_PANIC = "Kernel panic - not syncing"
# Behind its first line stand a trace and a few lines more.
_PANIC_LINES = 80
# What pexpect searches, and what it is fed in one session: a flood must not fill our memory.
_WINDOW_BYTES = 64 << 10
MOST_SESSION_BYTES = 8 << 20


class Console:
    """The console of one guest: its log, and a unix socket that takes one client at a time."""

    def __init__(self, socket_path: Path, log_path: Path) -> None:
        self.socket_path = socket_path
        self.log_path = log_path

    def size(self) -> int:
        """Bytes of the log."""
        try:
            return self.log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def tail(self, lines: int = 3) -> str:
        """The last lines of the log that hold more than blanks, at most 300 characters each."""
        text = self._read(max(0, self.size() - _TAIL_BYTES), _TAIL_BYTES).decode(errors="replace")
        kept = [printable(line.strip(), 300) for line in text.splitlines() if line.strip()]
        return "\n".join(kept[-lines:])

    def last_words(self) -> str:
        """What the guest said last: its panic if there was one, else the last line; or ""."""
        lines = self.tail(_PANIC_LINES).splitlines()
        panics = [line for line in lines if _PANIC in line]
        return (panics[:1] or lines[-1:] or [""])[0]

    def wait_for(
        self, pattern: str, what: str, timeout_s: float, alive: Callable[[], bool]
    ) -> re.Match[str]:
        """The first match of a pattern in a line of the log.

        The log is read once as it grows, in pieces of bounded size. Raises GuestError, naming
        `what` was waited for, when time is out, MachineError when QEMU ends first.
        """
        deadline = Deadline(timeout_s)
        wanted = re.compile(pattern)
        offset, rest = 0, ""
        while True:
            running = alive()
            piece = self._read(offset, _PIECE_BYTES)
            offset += len(piece)
            *lines, rest = (rest + piece.decode(errors="replace")).split("\n")
            rest = rest[-MOST_LINE_CHARACTERS:]
            for line in lines:
                if found := wanted.search(line):
                    return found
            if not piece and not running:
                raise MachineError(
                    f"QEMU ended {deadline.elapsed_s():.1f} s into the wait for {what}"
                )
            if deadline.expired():
                last = self.last_words() or "nothing was printed"
                raise GuestError(
                    f"the console showed no {what} within {timeout_s:.0f} s; last: {last}",
                    log=self.log_path,
                )
            if not piece:
                time.sleep(min(_POLL_S, deadline.left_s()))

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with self.log_path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except FileNotFoundError:
            return b""

    @contextmanager
    def attach(self, timeout_s: float = 10.0) -> Iterator["fdspawn[str]"]:
        """A pexpect session on the console; `timeout_s` is its default for expect().

        The session ends, as if QEMU had, when the guest prints more than MOST_SESSION_BYTES.
        Raises MachineError when QEMU is gone.
        """
        end = self.connect()
        try:
            yield _session(end, timeout_s)
        finally:
            end.close()

    def connect(self) -> socket.socket:
        """A connection to the console; raises MachineError when there is none to be had."""
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(str(self.socket_path))
        except OSError as error:
            end.close()
            raise MachineError(
                f"cannot reach the console at {self.socket_path}: {error.strerror}",
                hint="the guest has ended, or its QEMU has",
            ) from error
        return end


def _session(end: socket.socket, timeout_s: float) -> "fdspawn[str]":
    import pexpect
    from pexpect.fdpexpect import fdspawn

    # Not generic at run time.
    class Bounded(fdspawn):  # type: ignore[type-arg]
        left = MOST_SESSION_BYTES

        def send(self, s: str | bytes) -> int:
            try:
                return super().send(s)
            except OSError as error:
                raise MachineError(f"the console has ended: {error.strerror}") from error

        def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> str:
            try:
                data: str = super().read_nonblocking(size, timeout)
            except OSError as error:
                raise pexpect.EOF(f"the console has ended: {error.strerror}") from error
            self.left -= len(data)
            if self.left < 0:
                raise pexpect.EOF(f"the guest printed more than {MOST_SESSION_BYTES >> 20} MiB")
            return data

    return Bounded(
        end.fileno(),
        timeout=timeout_s,
        searchwindowsize=_WINDOW_BYTES,
        encoding="utf-8",
        codec_errors="replace",
    )


def expect(spawn: "fdspawn[str]", pattern: str, what: str) -> str:
    """What stood before the pattern.

    Raises GuestError, naming what was waited for, MachineError when the session ended.
    """
    import pexpect

    deadline = Deadline(float(spawn.timeout or 0.0))
    try:
        spawn.expect(pattern)
    except pexpect.TIMEOUT as error:
        raise GuestError(
            f"the console showed no {what} within {deadline.timeout_s:.1f} s"
        ) from error
    except pexpect.EOF as error:
        raise MachineError(
            f"the console ended {deadline.elapsed_s():.1f} s into the wait for {what}",
            hint="QEMU has ended, or the guest flooded its console",
        ) from error
    return str(spawn.before)

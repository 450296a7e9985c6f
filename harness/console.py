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
from harness.timeouts import Deadline

if TYPE_CHECKING:
    from pexpect.fdpexpect import fdspawn

_POLL_S = 0.05
_TAIL_BYTES = 16 << 10
# What pexpect searches, however much the guest prints.
_WINDOW_BYTES = 64 << 10


class Console:
    """The console of one guest: its log, and a unix socket that takes one client at a time."""

    def __init__(self, socket_path: Path, log_path: Path) -> None:
        self.socket_path = socket_path
        self.log_path = log_path

    def tail(self, lines: int = 3) -> str:
        """The last lines of the log that hold more than blanks, at most 300 characters each."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        kept = [line.strip()[:300] for line in text.splitlines() if line.strip()]
        return "\n".join(kept[-lines:])

    def wait_for(
        self, patterns: list[str], timeout_s: float, alive: Callable[[], bool]
    ) -> re.Match[str] | None:
        """The first match of a pattern in a line of the log, None when time is out.

        The log is read once as it grows, in pieces of bounded size. Raises MachineError when
        QEMU ends first.
        """
        deadline = Deadline(timeout_s)
        wanted = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
        offset, rest = 0, ""
        while True:
            running = alive()
            piece = self._read_from(offset)
            offset += len(piece)
            *lines, rest = (rest[-4096:] + piece.decode(errors="replace")).split("\n")
            for line in lines:
                if found := wanted.search(line):
                    return found
            if piece:
                continue
            if not running:
                raise MachineError(f"QEMU ended after {deadline.elapsed_s():.1f} s of waiting")
            if deadline.expired():
                return None
            time.sleep(_POLL_S)

    def _read_from(self, offset: int) -> bytes:
        try:
            with self.log_path.open("rb") as file:
                file.seek(offset)
                return file.read(1 << 20)
        except FileNotFoundError:
            return b""

    @contextmanager
    def attach(self, timeout_s: float = 10.0) -> Iterator["fdspawn[str]"]:
        """A pexpect session on the console; `timeout_s` is its default for expect().

        Raises MachineError when QEMU is gone or someone else is attached.
        """
        from pexpect.fdpexpect import fdspawn

        end = self.connect()
        try:
            yield fdspawn(
                end.fileno(),
                timeout=int(timeout_s),
                searchwindowsize=_WINDOW_BYTES,
                encoding="utf-8",
                codec_errors="replace",
            )
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


def expect(spawn: "fdspawn[str]", pattern: str, what: str) -> str:
    """What stood before the pattern. Raises GuestError, naming what was waited for."""
    import pexpect

    try:
        spawn.expect(pattern)
    except (pexpect.TIMEOUT, pexpect.EOF) as error:
        raise GuestError(f"the console showed no {what} within {spawn.timeout} s") from error
    return str(spawn.before)

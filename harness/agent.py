# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of the guest agent: commands over a virtio port, answers by line.

The guest's side, and the protocol, are in guest-images/initramfs/agent. What the guest sends is
hostile: lines and totals are bounded, and a line that is not an answer is dropped and counted.
"""

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from harness.errors import GuestError, MachineError
from harness.text import printable
from harness.timeouts import Deadline

MOST_LINE_BYTES = 64 << 10
MOST_OUTPUT_BYTES = 16 << 20
OUTPUT_CUT = "... the rest of the output was left out ...\n"
_CHUNK_BYTES = 64 << 10
_WATCH_S = 1.0


class AgentResult(NamedTuple):
    """Exit status and merged output of a command in the guest."""

    rc: int
    output: str


class Agent:
    """One guest's agent, over one end of a socket pair."""

    def __init__(self, end: socket.socket, watch: Callable[[], None]) -> None:
        """`watch` is called about once a second of waiting; what it raises ends the wait."""
        self._socket = end
        self._watch = watch
        self._watched_s = time.monotonic()
        self._lines: deque[bytes] = deque()
        # a line that has not ended yet
        self._rest = b""
        self._next_id = 1
        self.dropped_lines = 0
        self.boot_id: str | None = None
        self._given_up = ""

    def wait_ready(self, timeout_s: float) -> str:
        """The guest's boot id, once its agent runs. Raises GuestError, MachineError."""
        deadline = Deadline(timeout_s)
        while True:
            word, _, rest = self._line(deadline, "the wait for user space").partition(" ")
            if word == "ready":
                self.boot_id = printable(rest, 64)
                return self.boot_id
            self.dropped_lines += 1

    def run(self, command: str, timeout_s: float) -> AgentResult:
        """Run one line of shell in the guest.

        Raises GuestError when no exit status comes in time or the agent started anew, MachineError
        when QEMU is gone, ValueError for a command of several lines.
        """
        if "\n" in command or not command.strip():
            raise ValueError("an agent's command is one line that is not empty")
        number, self._next_id = str(self._next_id), self._next_id + 1
        deadline = Deadline(timeout_s)
        what = repr(printable(command, 80))
        self._send(f"{number} {command}\n".encode(), deadline, what)
        output: list[str] = []
        size = 0
        while True:
            line = self._line(deadline, what)
            head, _, rest = line.partition(" ")
            mark, _, text = rest.partition(" ")
            if head == number and mark == "=":
                return AgentResult(_status(text), "".join(output))
            if head == number and mark == "|":
                if size <= MOST_OUTPUT_BYTES:
                    size += len(text) + 1
                    output.append(text + "\n" if size <= MOST_OUTPUT_BYTES else OUTPUT_CUT)
            elif head == "ready":
                raise GuestError(f"the guest's agent started anew during {what}")
            else:
                self.dropped_lines += 1

    def _line(self, deadline: Deadline, what: str) -> str:
        """The next line; a longer one than is allowed is cut and its rest dropped."""
        while not self._lines:
            self._fill(deadline, what)
        return self._lines.popleft().decode(errors="replace")

    def _fill(self, deadline: Deadline, what: str) -> None:
        """Take in what the guest sent, and its lines apart; wait for it no longer than a second."""
        if deadline.expired():
            raise GuestError(
                f"no answer from the guest's agent within {deadline.timeout_s:.0f} s of {what}",
                hint="read the console's last lines: a panic or a hang shows there",
            )
        self._look()
        if not select.select([self._socket], [], [], min(_WATCH_S, deadline.left_s()))[0]:
            return
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            raise MachineError(
                self._given_up or f"QEMU ended {deadline.elapsed_s():.1f} s into {what}",
                hint="read QEMU's own output",
            )
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._lines.extend(line[:MOST_LINE_BYTES] for line in lines)
        self._rest = rest[:MOST_LINE_BYTES]

    def _look(self) -> None:
        """Let the watch look once a second, however busy the guest keeps us."""
        if time.monotonic() - self._watched_s >= _WATCH_S:
            self._watch()
            self._watched_s = time.monotonic()

    def _send(self, data: bytes, deadline: Deadline, what: str) -> None:
        self._socket.settimeout(max(0.001, deadline.left_s()))
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise GuestError(
                f"the guest's agent took no command for {deadline.timeout_s:.0f} s: {what}"
            ) from error
        except OSError as error:
            gone = f"QEMU is gone, so {what} cannot run: {error.strerror}"
            raise MachineError(self._given_up or gone) from error

    def give_up(self, why: str) -> None:
        """End the wait that goes on, in any thread, and each later one: MachineError with `why`."""
        self._given_up = why
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        """Raises MachineError once it was given up: for waits that are not the agent's own."""
        if self._given_up:
            raise MachineError(self._given_up)

    def close(self) -> None:
        """Close this end; the guest's agent greets whoever comes next."""
        self._socket.close()


def _status(text: str) -> int:
    try:
        return int(text.strip()[:6])
    except ValueError as error:
        raise GuestError(
            f"the guest's agent gave {printable(text, 40)!r} for an exit status"
        ) from error

# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of the guest agent: commands over a virtio port, answers by line.

The guest's side, and the protocol, are in guest-images/initramfs/agent. What the guest sends is
hostile: lines and totals are bounded, and a line that is not an answer is dropped and counted.
"""

import select
import socket
from collections.abc import Callable
from typing import NamedTuple

from harness.errors import GuestError, MachineError
from harness.timeouts import Deadline

MOST_LINE_BYTES = 64 << 10
MOST_OUTPUT_BYTES = 16 << 20
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
        self._pending = b""
        self._next_id = 1
        self.dropped_lines = 0
        self.boot_id: str | None = None

    def _line(self, deadline: Deadline, what: str) -> str:
        """The next line; a longer one than is allowed is cut and its rest dropped."""
        while b"\n" not in self._pending:
            if len(self._pending) > MOST_LINE_BYTES:
                self._pending = self._pending[:MOST_LINE_BYTES]
            while not self._readable(min(_WATCH_S, deadline.left_s())):
                if deadline.expired():
                    raise GuestError(
                        f"the guest's agent gave no answer to {what} within "
                        f"{deadline.timeout_s:.0f} s",
                        hint="read the console's last lines: a panic or a hang shows there",
                    )
                self._watch()
            try:
                chunk = self._socket.recv(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            if not chunk:
                raise MachineError(
                    f"QEMU ended {deadline.elapsed_s():.1f} s into {what}",
                    hint="read QEMU's own output",
                )
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line[:MOST_LINE_BYTES].decode(errors="replace")

    def _readable(self, timeout_s: float) -> bool:
        return bool(select.select([self._socket], [], [], timeout_s)[0])

    def wait_ready(self, timeout_s: float) -> str:
        """The guest's boot id, once its agent runs. Raises GuestError, MachineError."""
        deadline = Deadline(timeout_s)
        while True:
            word, _, rest = self._line(deadline, "the wait for user space").partition(" ")
            if word == "ready":
                self.boot_id = rest[:64]
                return self.boot_id
            self.dropped_lines += 1

    def run(self, command: str, timeout_s: float) -> AgentResult:
        """Run one line of shell in the guest.

        Raises GuestError when no exit status comes in time or the agent started anew, MachineError
        when QEMU is gone, ValueError for a command of several lines.
        """
        if "\n" in command or not command.strip():
            raise ValueError("an agent's command is one line that is not empty")
        number, self._next_id = self._next_id, self._next_id + 1
        deadline = Deadline(timeout_s)
        what = f"{command[:80]!r}"
        self._send(f"{number} {command}\n".encode(), what)
        output: list[str] = []
        size = 0
        while True:
            line = self._line(deadline, what)
            head, _, rest = line.partition(" ")
            mark, _, text = rest.partition(" ")
            if head == str(number) and mark == "=":
                return AgentResult(_status(text), "".join(output))
            if head == str(number) and mark == "|":
                if size <= MOST_OUTPUT_BYTES:
                    output.append(text + "\n")
                size += len(text) + 1
            elif head == "ready":
                raise GuestError(f"the guest's agent started anew during {what}")
            else:
                self.dropped_lines += 1

    def _send(self, data: bytes, what: str) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise MachineError(f"QEMU is gone, so {what} cannot run: {error.strerror}") from error

    def close(self) -> None:
        """Close this end; the guest's agent greets whoever comes next."""
        self._socket.close()


def _status(text: str) -> int:
    try:
        return int(text.strip()[:6])
    except ValueError as error:
        raise GuestError(f"the guest's agent gave {text[:40]!r} for an exit status") from error

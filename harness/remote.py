# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine on which commands run: what every way to reach one has in common."""

import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness import proc

MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left. `truncated`: there was more output than was asked for."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool


class Remote(Protocol):
    """A machine that runs commands."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:
        """Run a command to its end; output beyond `max_bytes` is dropped.

        Raises HarnessError when the machine cannot be reached or the command runs out of time,
        never for an exit code.
        """


class StreamingRemote(Remote, Protocol):
    """One on which a command can be talked to while it runs."""

    def stream(self, argv: Sequence[str]) -> socket.socket:
        """The input and output of a command: closed here, its input ends there.

        Raises HarnessError when the machine cannot be reached.
        """


def quoted(argv: Sequence[str]) -> str:
    """The one line that a shell on another machine takes for just these words."""
    return shlex.join(argv)


class LocalRemote:
    """The machine that the harness runs on."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:
        """As Remote.run()."""
        code, out, err = proc.bounded(argv, timeout_s=timeout_s, stdin=stdin, most=max_bytes + 1)
        truncated = max(len(out), len(err)) > max_bytes
        return Answer(code, out[:max_bytes], err[:max_bytes], truncated)

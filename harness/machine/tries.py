# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting a QEMU child process where a port may be taken, or no seccomp filter be had."""

import re
import socket
from collections.abc import Callable
from pathlib import Path

from harness.errors import MachineError
from harness.text import printable

_PORT_TRIES = 5
_PORT_TAKEN = "Could not set up host forwarding"
_NO_SANDBOX = re.compile("sandbox|seccomp", re.IGNORECASE)
_TAIL_BYTES = 4096
_MOST_WORDS = 300


def free_port() -> int:
    """A port of 127.0.0.1 that is free now; another program may take it before QEMU does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(once: Callable[[int, bool], None], log: Path) -> int:
    """Have `once` start a QEMU with a port and with a sandbox or without; the port it got.

    It is called again with another port where the first was taken, and without a sandbox where
    QEMU can have none, as QEMU's own output in `log` says. Raises what `once` raises last.
    """
    sandbox, tries = True, _PORT_TRIES
    while True:
        port = free_port()
        try:
            once(port, sandbox)
            return port
        except MachineError:
            words = last_words(log)
            if _PORT_TAKEN in words and tries > 1:
                tries -= 1
            elif _NO_SANDBOX.search(words) and sandbox:
                sandbox = False
            else:
                raise


def last_words(log: Path) -> str:
    """The last line of a QEMU's own output, bounded; nothing where it has none."""
    try:
        text = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1], _MOST_WORDS) if lines else ""

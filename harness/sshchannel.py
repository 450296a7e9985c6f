# SPDX-License-Identifier: GPL-2.0-or-later
"""What every use of ssh here has in common: bounded output, and an end where paramiko has none."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from harness.timeouts import Deadline

if TYPE_CHECKING:
    import paramiko

_CHUNK_BYTES = 64 << 10
_POLL_S = 0.02
# The client logs what it also raises; without a handler Python would print it to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class _Closes(Protocol):
    def close(self) -> None: ...


@contextmanager
def ended_after(connection: _Closes, timeout_s: float) -> Iterator[None]:
    """Close the connection when what is inside takes longer: some waits of paramiko do not end."""
    timer = threading.Timer(timeout_s, connection.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def read_both(channel: "paramiko.Channel", deadline: Deadline, most: int) -> tuple[bytes, bytes]:
    """Standard output and error up to their ends, read side by side: either may fill up first.

    Of each, `most` bytes are kept. Raises TimeoutError.
    """
    out, err = bytearray(), bytearray()
    while True:
        ended = channel.exit_status_ready() and (channel.eof_received or channel.closed)
        quiet = True
        if channel.recv_ready():
            out += channel.recv(_CHUNK_BYTES)[: most - len(out)]
            quiet = False
        if channel.recv_stderr_ready():
            err += channel.recv_stderr(_CHUNK_BYTES)[: most - len(err)]
            quiet = False
        if quiet and ended:
            return bytes(out), bytes(err)
        if deadline.expired():
            raise TimeoutError("it did not end in time")
        if quiet:
            time.sleep(_POLL_S)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes handed on from one connection to another, in threads of their own."""

import contextlib
import socket
import threading
from collections.abc import Callable

_PIECE_BYTES = 64 << 10


def pump(
    read: Callable[[int], bytes], write: Callable[[bytes], object], end: Callable[[], object]
) -> threading.Thread:
    """Write what is read until there is no more, or one of them fails; then call `end`."""

    def work() -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := read(_PIECE_BYTES):
                write(data)
        with contextlib.suppress(OSError, EOFError):
            end()

    thread = threading.Thread(target=work, name="pump", daemon=True)
    thread.start()
    return thread


def end_of_writing(end: socket.socket) -> None:
    """Let the other side read to its end."""
    end.shutdown(socket.SHUT_WR)


def join(one: socket.socket, other: socket.socket) -> None:
    """Hand on both ways until both have ended; closes them."""
    there = pump(one.recv, other.sendall, lambda: end_of_writing(other))
    back = pump(other.recv, one.sendall, lambda: end_of_writing(one))
    there.join()
    back.join()
    one.close()
    other.close()


def cut(end: socket.socket) -> None:
    """Close it for whoever waits for it in another thread, too; safe to call twice."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()

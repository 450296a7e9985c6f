# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs on a host for the harness, as `python3 -c` with this text: no module of ours is there.

port            print a port of 127.0.0.1 that is free
unix PATH       join input and output with a unix socket
tcp PORT        the same with a port of 127.0.0.1
follow PATH     print a file as it grows, from its beginning, until the input ends
"""

import os
import select
import socket
import sys
from pathlib import Path

_PIECE_BYTES = 64 << 10
_POLL_S = 0.1


def port() -> int:
    """A free one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join(end: socket.socket) -> None:
    """Until either side has ended."""
    while True:
        ready, _, _ = select.select([0, end.fileno()], [], [])
        if 0 in ready:
            if not (data := os.read(0, _PIECE_BYTES)):
                return
            end.sendall(data)
        if end.fileno() in ready:
            if not (data := end.recv(_PIECE_BYTES)):
                return
            write(data)


def follow(path: str) -> None:
    """The file may not be there yet."""
    while not Path(path).exists():
        if over():
            return
    with Path(path).open("rb") as file:
        while True:
            while data := file.read(_PIECE_BYTES):
                write(data)
            if over():
                return


def over() -> bool:
    """Whether the input has ended, after a moment."""
    ready, _, _ = select.select([0], [], [], _POLL_S)
    return bool(ready) and not os.read(0, _PIECE_BYTES)


def write(data: bytes) -> None:
    """All of it."""
    while data:
        data = data[os.write(1, data) :]


def connected(family: int, address: "str | tuple[str, int]") -> socket.socket:
    """A connection."""
    end = socket.socket(family)
    end.connect(address)
    return end


if __name__ == "__main__":
    act, *rest = sys.argv[1:]
    if act == "port":
        print(port())
    elif act == "unix":
        join(connected(socket.AF_UNIX, rest[0]))
    elif act == "tcp":
        join(connected(socket.AF_INET, ("127.0.0.1", int(rest[0]))))
    elif act == "follow":
        follow(rest[0])

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses a process listens on, as the kernel has it (proc(5), /proc/net/tcp)."""

import contextlib
import ipaddress
import struct
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"


def listeners(table: str, inodes: set[str]) -> set[tuple[str, int]]:
    """Addresses and ports of the listening sockets among `inodes` in a table of /proc/net."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return {
        (_address(address), int(port, 16))
        for row in rows
        for address, _, port in [row[1].partition(":")]
        if row[3] == _LISTEN and row[9] in inodes
    }


def _address(words: str) -> str:
    # 32-bit words of network order, each printed as a number of this machine's order.
    each = (int(words[at : at + 8], 16) for at in range(0, len(words), 8))
    return str(ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in each)))


def listening(pid: int) -> set[tuple[str, int]]:
    """Where a process listens, TCP."""
    inodes = set(_sockets(pid))
    tables = [Path(f"/proc/{pid}/net/{name}") for name in ("tcp", "tcp6")]
    found = (listeners(table.read_text(), inodes) for table in tables if table.exists())
    return set().union(*found)


def _sockets(pid: int) -> Iterator[str]:
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # Such as the one that this directory is read by.
        with contextlib.suppress(FileNotFoundError):
            kind, _, rest = str(file.readlink()).partition(":[")
            if kind == "socket":
                yield rest.removesuffix("]")

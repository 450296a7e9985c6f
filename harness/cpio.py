# SPDX-License-Identifier: GPL-2.0-or-later
"""The "newc" cpio format, as the kernel unpacks it: the same entries give the same bytes."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
# Any fixed moment will do; this one is 2021-04-06, the day of the rules' statement.
_MTIME = 1617667200


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, link, directory or device of an archive; owned by root."""

    # absolute path in the image
    path: str
    # type and permission bits, as in st_mode
    mode: int
    # file contents, or a link's target
    data: bytes = b""
    # major and minor of a device node
    device: tuple[int, int] = (0, 0)

    @classmethod
    def file(cls, path: str, data: bytes, permissions: int = 0o644) -> "Entry":
        """A regular file."""
        return cls(path, stat.S_IFREG | permissions, data)

    @classmethod
    def directory(cls, path: str, permissions: int = 0o755) -> "Entry":
        """A directory."""
        return cls(path, stat.S_IFDIR | permissions)

    @classmethod
    def link(cls, path: str, target: str) -> "Entry":
        """A symbolic link."""
        return cls(path, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def character_device(cls, path: str, major: int, minor: int) -> "Entry":
        """A device node; needs no privilege, as it exists in the archive only."""
        return cls(path, stat.S_IFCHR | 0o600, device=(major, minor))


def pack(entries: Iterable[Entry]) -> bytes:
    """The archive: sorted, missing parents added, the later of two entries of one path taken."""
    by_path = {entry.path: entry for entry in entries}
    for path in list(by_path):
        for parent in PurePosixPath(path).parents:
            by_path.setdefault(str(parent), Entry.directory(str(parent)))
    by_path.pop("/", None)
    parts = [
        _record(entry.path.lstrip("/"), entry, number)
        for number, (_, entry) in enumerate(sorted(by_path.items()), start=1)
    ]
    return b"".join([*parts, _record(_TRAILER, Entry("", 0), 0)])


def _record(name: str, entry: Entry, number: int) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (
        number,
        entry.mode,
        0,  # uid
        0,  # gid
        2 if stat.S_ISDIR(entry.mode) else 1,
        _MTIME,
        len(entry.data),
        0,  # major and minor of the archive's own device
        0,
        *entry.device,
        len(encoded),
        0,  # no checksum in this format
    )
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + encoded
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)

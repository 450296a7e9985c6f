# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's serial console, as what reaches it out of band tells it: its last words."""

import contextlib
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from harness.hostmce.kernel import KernelTold, read_log
from harness.hostmce.record import Source
from harness.kernellog_lines import without_control
from harness.text import printable

MOST_BYTES = 256 << 10
MOST_WORDS = 12
# Of the file that is kept with a run.
MOST_LOG_BYTES = 16 << 20
_CHUNK_BYTES = 16 << 10
_LEFT_OUT = b"\n... what the host's console said in between was left out ...\n"
# Where another boot begins: its firmware, its boot loader, its kernel.
_BOOT = re.compile(
    rb"(?m)^(?:\[ {0,11}\d{1,10}\.\d{6}\] )?Linux version |SeaBIOS \(|BdsDxe: |GNU GRUB|"
    rb"\[\s*0\.000000\]"
)


class HostConsole(Protocol):
    """What a host's console said up to now."""

    def size(self) -> int:
        """Bytes in all, those that are not kept any more too."""

    def tail(self, since: int) -> bytes:
        """What came behind the first `since` bytes, at most its last MOST_BYTES."""


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """A console that others keep, in a file of any size that may not be there yet."""

    path: Path

    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def tail(self, since: int) -> bytes:
        size = self.size()
        # A file that was begun anew is shorter.
        start = since if since <= size else 0
        try:
            with self.path.open("rb") as file:
                file.seek(max(start, size - MOST_BYTES))
                return file.read(MOST_BYTES)
        except OSError:
            return b""


class KeptConsole:
    """A console that is read here, and kept in a file of bounded size: its beginning and its end.

    The reader ends with the stream; a file that cannot be written costs no last words.
    """

    def __init__(self, stream: IO[bytes], log: Path, most_bytes: int = MOST_LOG_BYTES) -> None:
        self._stream, self._log, self._most = stream, log, most_bytes
        self._end = bytearray()
        self._size = self._written = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="host console", daemon=True)
        self._thread.start()

    def size(self) -> int:
        return self._size

    def tail(self, since: int) -> bytes:
        with self._lock:
            new = min(max(self._size - since, 0), len(self._end))
            return bytes(self._end[len(self._end) - new :])

    def close(self, timeout_s: float) -> None:
        """Wait for the end of the stream."""
        self._thread.join(timeout_s)

    def _read(self) -> None:
        while data := self._stream.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]
            with self._lock:
                self._size += len(data)
                self._end += data
                del self._end[:-MOST_BYTES]
            with contextlib.suppress(OSError):
                self._write(data)

    def _write(self, data: bytes) -> None:
        if self._written + len(data) > self._most:
            self._shorten()
        with self._log.open("ab") as file:
            self._written += file.write(data)

    def _shorten(self) -> None:
        """Keep a quarter of what may be kept of either end."""
        part = self._most // 4
        with self._log.open("rb") as file:
            head = file.read(part)
            file.seek(-part, os.SEEK_END)
            text = head + _LEFT_OUT + file.read()
        new = self._log.with_suffix(".new")
        new.write_bytes(text)
        new.replace(self._log)
        self._written = len(text)


def ending(text: bytes) -> bytes:
    """The text up to where another boot begins."""
    boot = _BOOT.search(text)
    return text[: boot.start()] if boot else text


def last_words(text: bytes) -> tuple[str, ...]:
    """The last lines before the end, or before the next boot; safe to show."""
    lines = without_control(ending(text)).replace(b"\0", b"").split(b"\n")
    shown = (printable(line.decode("utf-8", "replace").strip()) for line in lines)
    return tuple([line for line in shown if line][-MOST_WORDS:])


def read_console(text: bytes, boot_id: str) -> KernelTold:
    """Machine checks that the kernel printed before its end."""
    return read_log(ending(text), Source.CONSOLE, boot_id)

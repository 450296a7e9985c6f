# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's serial console, kept in a file by what reaches it out of band: its last words."""

import re
from dataclasses import dataclass
from pathlib import Path

from harness.hostmce.kernel import KernelTold, read_log
from harness.hostmce.record import Source
from harness.kernellog_lines import without_control
from harness.text import printable

MOST_BYTES = 256 << 10
MOST_WORDS = 12
# Where another boot begins: its firmware, its boot loader, its kernel.
_BOOT = re.compile(
    rb"(?m)^(?:\[ {0,11}\d{1,10}\.\d{6}\] )?Linux version |SeaBIOS \(|BdsDxe: |GNU GRUB|"
    rb"\[\s*0\.000000\]"
)


@dataclass(frozen=True, slots=True)
class HostConsole:
    """The file, which may be of any size and may not be there yet."""

    path: Path

    def size(self) -> int:
        """Bytes so far; 0 without a file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def tail(self, since: int) -> bytes:
        """What came behind the first `since` bytes, at most its last MOST_BYTES."""
        size = self.size()
        # A file that was begun anew is shorter.
        start = since if since <= size else 0
        try:
            with self.path.open("rb") as file:
                file.seek(max(start, size - MOST_BYTES))
                return file.read(MOST_BYTES)
        except OSError:
            return b""


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's log of a host from one moment on: the journal, or else the ring buffer.

The moment is a place in the log, a cursor or the kernel's own time since boot, and never the time
on a wall: clocks of hosts are off by hours, and are set while a test runs.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.hostmce.kernel import WORDS, KernelTold, Line, read_lines
from harness.hostmce.record import Source
from harness.kernellog_lines import STAMPED, kernel_lines
from harness.remote import Answer, Remote

MOST_BYTES = 32 << 20
_TIMEOUT_S = 60.0
_SMALL_TIMEOUT_S = 15.0
_CURSOR = re.compile(rb"-- cursor: ([\x21-\x7e]{1,400})")
# The journal's cost is in the bytes that come over: only lines that matter are asked for.
_GREP = "|".join(WORDS)
_FIELDS = "MESSAGE,SYSLOG_FACILITY"
_NO_GREP = b"pattern matching"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a host's kernel log: of the journal where there is one, and since boot."""

    cursor: str
    uptime_s: float


def here(remote: Remote) -> Place:
    """The end of the log as it is now. Raises HarnessError."""
    uptime = remote.run(["cat", "/proc/uptime"], timeout_s=_SMALL_TIMEOUT_S).stdout.split()
    asked = ["journalctl", "--dmesg", "--lines=0", "--show-cursor", "--quiet"]
    shown = _CURSOR.search(remote.run(asked, timeout_s=_TIMEOUT_S).stdout)
    return Place(shown[1].decode() if shown else "", float(uptime[0]) if uptime else 0.0)


def read(remote: Remote, since: Place, boot_id: str) -> tuple[KernelTold | None, str]:
    """What that boot's kernel said since, and what was not read, as a sentence or "".

    None where there is no log to be had. Raises HarnessError.
    """
    if since.cursor:
        answer = _journal(remote, since.cursor, boot_id)
        if not answer.exit_code or answer.stdout or not answer.stderr:
            gap = _beyond("journal") if answer.truncated else ""
            return read_lines(_entries(answer.stdout), Source.KERNEL_LOG, boot_id), gap
    now = remote.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout_s=_SMALL_TIMEOUT_S)
    if now.stdout.decode("ascii", "replace").strip() != boot_id:
        return None, "kernel log: the host keeps no journal of the boot that ended"
    answer = remote.run(["dmesg"], timeout_s=_TIMEOUT_S, max_bytes=MOST_BYTES)
    if answer.exit_code:
        return None, "kernel log: neither journalctl nor dmesg could read it"
    return _ring(answer, since.uptime_s, boot_id)


def _journal(remote: Remote, cursor: str, boot_id: str) -> Answer:
    asked = [
        "journalctl",
        "--dmesg",
        f"--boot={boot_id.replace('-', '')}",
        f"--after-cursor={cursor}",
        "--output=json",
        f"--output-fields={_FIELDS}",
        "--quiet",
        "--no-pager",
    ]

    def run(more: Sequence[str]) -> Answer:
        return remote.run([*asked, *more], timeout_s=_TIMEOUT_S, max_bytes=MOST_BYTES)

    answer = run([f"--grep={_GREP}", "--case-sensitive=yes"])
    # A journalctl that was built without PCRE: all lines have to come over.
    return run([]) if answer.exit_code and _NO_GREP in answer.stderr else answer


def _entries(data: bytes) -> Iterator[Line]:
    for number, raw in enumerate(data.splitlines(), 1):
        try:
            entry = json.loads(raw)
        except (ValueError, RecursionError):
            # The last line of an answer that was cut.
            continue
        # Facility 0 is the kernel's; what root writes to /dev/kmsg has another.
        if isinstance(entry, dict) and str(entry.get("SYSLOG_FACILITY", "0")) == "0":
            yield Line(_message(entry), number, "", _uptime_s(entry))


def _message(entry: dict[str, Any]) -> str:
    """The text; journald gives bytes that are no UTF-8 as a list of numbers."""
    message = entry.get("MESSAGE")
    if isinstance(message, list):
        wanted = message[:4000]
        if all(isinstance(byte, int) and 0 <= byte < 256 for byte in wanted):
            return bytes(wanted).decode("utf-8", "replace")
    return message[:4000] if isinstance(message, str) else ""


def _uptime_s(entry: dict[str, Any]) -> float | None:
    try:
        return int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
    except (KeyError, TypeError, ValueError):
        return None


def _ring(answer: Answer, since_s: float, boot_id: str) -> tuple[KernelTold, str]:
    lines = list(kernel_lines(answer.stdout, STAMPED))
    new = (
        Line(line.text, number, line.caller, line.time_s)
        for number, line in enumerate(lines, 1)
        if line.time_s is not None and line.time_s >= since_s
    )
    told = read_lines(new, Source.KERNEL_LOG, boot_id)
    if answer.truncated:
        return told, _beyond("ring buffer")
    if lines and (lines[0].time_s or 0.0) > since_s:
        return told, "kernel log: the ring buffer had dropped the beginning of the test"
    return told, ""


def _beyond(what: str) -> str:
    return f"kernel log: the {what} beyond {MOST_BYTES >> 20} MiB"

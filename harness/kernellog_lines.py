# SPDX-License-Identifier: GPL-2.0-or-later
"""Which lines of a console are the kernel's, when they were printed, and by which task or CPU.

Only lines of the kernel's own shape count: what user space prints is no evidence. A user's
unfinished line may stand before a kernel's on one line of a console; that is believed where the
timestamp fits between its neighbours'.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.kernellog_patterns import FIRST_WORDS

MOST_LINE = 1000
_NEIGHBOUR_BYTES = 4096
_MOST_LOOKS = 5000
# CPUs do not print in the exact order of their clocks.
_UNORDERED_S = 0.5
_CALLER = rb"(?:\[ {0,8}([TC]\d{1,8})\])?"
_LEVEL = re.compile(rb"<\d{1,3}>")
# What a terminal does not show: colours and movements, as getty, dmesg and busybox send them.
_CONTROL = re.compile(rb"\x1b\[[0-9;?]{0,20}[ -/]?[@-~]")
_FIRST_UNSTAMPED = re.compile(rb"(?m)^(?:<\d{1,3}>)?Linux version \d")


@dataclass(frozen=True, slots=True)
class Shape:
    """How the kernel's lines begin; `stamp` has the groups time and caller, both may be empty."""

    stamped: bool
    stamp: bytes
    # a kernel's line that can begin a report
    start: re.Pattern[bytes] = field(init=False)
    # the beginning of a kernel's line that begins a line of the console
    line_start: re.Pattern[bytes] = field(init=False)
    # a kernel's line anywhere; its third group is the text
    line: re.Pattern[bytes] = field(init=False)

    def __post_init__(self) -> None:
        anchor = rb"(?m:^)(?:<\d{1,3}>)?" if self.stamped else b""
        # Two CPUs' lines may share one of the console.
        text = rb"([^\r\n]*?)(?=[\r\n]|\Z|" + self.stamp + rb")"
        if not self.stamped:
            text = rb"([^\r\n]*)"
        first = rb"(?=" + FIRST_WORDS + rb")"
        object.__setattr__(self, "start", re.compile(self.stamp + first))
        object.__setattr__(self, "line_start", re.compile(anchor + self.stamp))
        object.__setattr__(self, "line", re.compile(self.stamp + text))


STAMPED = Shape(True, rb"\[ {0,11}(\d{1,10}\.\d{6})\]" + _CALLER + b" ")
# Until the kernel reads its command line it prints stamps all the same.
_SOME_STAMPED = rb"(?m:^)(?:<\d{1,3}>)?(?:\[ {0,11}(\d{1,10}\.\d{6})\])?" + _CALLER
UNSTAMPED = Shape(False, _SOME_STAMPED + rb"(?:(?<=\]) )?")
_TIME_OFF = re.compile(
    UNSTAMPED.stamp + rb"(?:Kernel c|C)ommand line: [^\r\n]{0,4096}\bprintk\.time=(?:0|n|N|off)\b"
)


class KernelLine(NamedTuple):
    """One line, without its stamp; the caller is a task or CPU, "" where the kernel says none."""

    caller: str
    text: str
    # seconds since boot, None without a stamp; offset of the stamp in the log
    time_s: float | None
    start: int


def shape_of(log: bytes) -> Shape:
    """UNSTAMPED for a kernel booted with printk.time=0; then any line is believed to be its."""
    if _TIME_OFF.search(log):
        return UNSTAMPED
    if STAMPED.line_start.search(log) or not _FIRST_UNSTAMPED.search(log):
        return STAMPED
    return UNSTAMPED


def without_control(log: bytes) -> bytes:
    """The log without a terminal's control sequences; its lines keep their numbers."""
    return _CONTROL.sub(b"", log) if b"\x1b[" in log else log


def kernel_lines(log: bytes, shape: Shape) -> Iterator[KernelLine]:
    """The kernel's lines, each cut at MOST_LINE."""
    for match in shape.line.finditer(log):
        text = match.group(3)[:MOST_LINE].decode("utf-8", "replace")
        time_s = float(match.group(1)) if match.group(1) else None
        yield KernelLine((match.group(2) or b"").decode(), text, time_s, match.start())


def end_of_line(log: bytes, at: int) -> int:
    """Where the line around `at` ends, or is cut."""
    most = min(len(log), at + MOST_LINE)
    ends = (log.find(end, at, most) for end in (b"\r", b"\n"))
    return min((end for end in ends if end >= 0), default=most)


class Neighbours:
    """Tells a kernel's line from a user's by where it stands and by the timestamps around it."""

    def __init__(self, log: bytes, shape: Shape) -> None:
        self._log = log
        self._shape = shape
        self._looks_left = _MOST_LOOKS

    def genuine(self, start: int, time: float) -> bool:
        """Whether the stamp at `start` begins a line, or fits where a user's line was cut."""
        if not self._shape.stamped:
            return True
        line = self._log.rfind(b"\n", max(0, start - _NEIGHBOUR_BYTES), start) + 1
        before = self._log[line:start].strip(b"\r\0")
        if not before or _LEVEL.fullmatch(before):
            return True
        self._looks_left -= 1
        if self._looks_left < 0:
            return False
        earlier = self._log[max(0, line - _NEIGHBOUR_BYTES) : line]
        after = self._log.find(b"\n", start, start + MOST_LINE)
        later = self._shape.line_start.search(self._log[after + 1 : after + _NEIGHBOUR_BYTES])
        times = [float(m.group(1)) for m in self._shape.line_start.finditer(earlier)]
        return (not times or times[-1] <= time) and (
            not later or time <= float(later.group(1)) + _UNORDERED_S
        )

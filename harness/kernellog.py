# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's console to findings: oopses, warnings, lockups, panics and machine checks.

Only lines of the kernel's own shape count (harness.kernellog_lines): what user space prints is no
evidence.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any

from harness.errors import EvidenceError
from harness.hostmce.kernel import Line, read_lines
from harness.hostmce.record import Source
from harness.kernellog_lines import (
    MOST_LINE,
    Neighbours,
    Shape,
    end_of_line,
    kernel_lines,
    shape_of,
    without_control,
)
from harness.kernellog_patterns import (
    CONSEQUENCES,
    GUEST_MCE,
    OTHERS,
    REPORTERS,
    ROWS,
    WAITERS,
    Kind,
    Row,
)
from harness.rules.table import RULES
from harness.text import printable
from harness.triage import function_name
from harness.verdict import Finding

_MARK = rb"tdharness: mark (begin|end) (\d{1,20})\b"
_E820 = rb"BIOS-e820: \[mem 0x([0-9a-f]{1,16})-0x([0-9a-f]{1,16})\]([^\r\n]{0,100})"
_E820_USABLE = re.compile(rb"usable|System RAM")
_ADDRESS = r"(?P<address>[A-Za-z_][\w.]*\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[\w-]+\])?)"
_FRAME = re.compile(r"\s*(\? )?" + _ADDRESS)
_IN_TEXT = re.compile(r"(?:RIP: [0-9a-f]{4}:| at | in |:\d+ )" + _ADDRESS)
_NUMBERS = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,16}\b|\d+")

MOST_FINDINGS = 50
FRAMES = 5
_ADDRESS_LENGTH = 200
_BODY_LINES = 160
_BODY_BYTES = 64 * 1024
_EXCERPT_LINES = 40
_MOST_BANKS = 16
# A guest that floods its console with reports has failed long before.
_MOST_REPORTS = 1000
# How far a follow-up line may be from the line that it explains.
_FOLLOW_BYTES = 8 * 1024


@dataclass(slots=True)
class _Report:
    """A message that starts a report; offsets are into the log."""

    row: Row
    match: re.Match[str]
    time: float
    # the task or CPU that printed it, "" where the kernel does not say
    caller: str
    start: int
    # the last line that belongs to its head: where it ends, and its row
    head_end: int
    head_row: Row
    # where the same caller's next report starts
    end: int | None = None
    panicked: bool = False
    body: list[str] = field(default_factory=list)
    # what a warning says, in the line before it
    message: str = ""


def scan(log: bytes) -> list[Finding]:
    """The findings of a console log, in its order, alike ones folded.

    `seq` is a line number. At most MOST_FINDINGS are returned; work grows with the log's length
    only, whatever the guest printed.
    """
    log = without_control(log)
    shape = shape_of(log)
    findings: dict[tuple[str, tuple[str, ...]], Finding] = {}
    line, counted = 1, 0
    for report in _reports(log, shape):
        report.body = list(_body(log, report, shape))
        report.message = _message(log, report, shape)
        line += log.count(b"\n", counted, report.start)
        counted = report.start
        finding = _finding(report, line)
        key = (finding.extra["title"], tuple(finding.extra["frames"]))
        if key in findings:
            findings[key] = _again(findings[key], finding)
        elif len(findings) < MOST_FINDINGS:
            findings[key] = finding
    return list(findings.values())


def has_kernel_lines(log: bytes) -> bool:
    """Whether the log holds any line of the kernel's shape."""
    shape = shape_of(log)
    return not shape.stamped or shape.line_start.search(log) is not None


def says(log: bytes, message: str) -> bool:
    """Whether the kernel, and not user space, printed a message with this beginning."""
    beginning = shape_of(log).line_start.pattern + re.escape(message.encode())
    return re.search(beginning, log) is not None


def firmware_ranges(log: bytes) -> tuple[tuple[int, int], ...]:
    """Guest-physical ranges [start, end) that the firmware's memory map keeps from the kernel."""
    return tuple(
        (int(match.group(3), 16), int(match.group(4), 16) + 1)
        for match in re.finditer(shape_of(log).stamp + _E820, log)
        if not _E820_USABLE.search(match.group(5))
    )


def slice_between(log: bytes, mark_id: int) -> bytes:
    """The lines between the test module's `mark begin` and `mark end` of `mark_id`.

    Without an end the rest of the log is returned: the guest may have died in between. Raises
    EvidenceError without a beginning.
    """
    stamp = shape_of(log).stamp
    begin = re.search(stamp + rb"tdharness: mark begin %d\r?\n" % mark_id, log)
    if not begin:
        raise EvidenceError(f"the console log does not hold the beginning of slice {mark_id}")
    end = re.compile(stamp + rb"tdharness: mark end %d\b" % mark_id).search(log, begin.end())
    return log[begin.end() : end.start() if end else len(log)]


def marks(log: bytes) -> list[tuple[int, bool, int]]:
    """The marks of the test module: line number, whether it begins, id."""
    found: list[tuple[int, bool, int]] = []
    line, counted = 1, 0
    for match in re.finditer(shape_of(log).stamp + _MARK, log):
        line += log.count(b"\n", counted, match.start())
        counted = match.start()
        found.append((line, match.group(3) == b"begin", int(match.group(4))))
    return found


def _reports(log: bytes, shape: Shape) -> list[_Report]:
    reports: list[_Report] = []
    latest: dict[str, _Report] = {}
    seen: set[tuple[float, str]] = set()
    neighbours = Neighbours(log, shape)
    for match in shape.start.finditer(log):
        if len(reports) == _MOST_REPORTS:
            break
        time, caller = float(match.group(1) or 0), (match.group(2) or b"").decode()
        end = end_of_line(log, match.end())
        text = log[match.end() : end].decode("utf-8", "replace")
        row, found = _classify(text)
        if not row or not found or not neighbours.genuine(match.start(), time):
            continue
        # The same message with the same time is one that `dmesg` printed again.
        if shape.stamped and (time, text) in seen:
            continue
        seen.add((time, text))
        last = latest.get(caller)
        if reports and CONSEQUENCES.match(text):
            (last or reports[-1]).panicked = True
        elif last and _continues(log, last, row, match.start(), shape):
            last.head_end, last.head_row = end, row
        else:
            panicked = text.startswith("Kernel panic")
            if last:
                last.end = match.start()
            latest[caller] = _Report(
                row, found, time, caller, match.start(), end, row, panicked=panicked
            )
            reports.append(latest[caller])
    return reports


def _classify(text: str) -> tuple[Row | None, re.Match[str] | None]:
    for row in ROWS:
        match = row.pattern.match(text)
        if match:
            return row, match
    return None, None


def _continues(log: bytes, report: _Report, row: Row, start: int, shape: Shape) -> bool:
    """Whether a message at `start` says more about a report that has shown no trace yet."""
    if not row.follows or row is report.head_row or start - report.head_end > _FOLLOW_BYTES:
        return False
    between = kernel_lines(log[report.head_end : start], shape)
    return not any(line.caller == report.caller and _FRAME.match(line.text) for line in between)


def _body(log: bytes, report: _Report, shape: Shape) -> Iterator[str]:
    """What was printed of the report, to its end or to the end of what is kept.

    Where the kernel says who prints, other tasks' and CPUs' lines are left out.
    """
    end = len(log) if report.end is None else report.end
    piece = log[report.start : min(end, report.start + _BODY_BYTES)]
    lines = (line.text for line in kernel_lines(piece, shape) if line.caller == report.caller)
    for text in islice(lines, _BODY_LINES):
        yield text
        if text.startswith("---[ end "):
            return


def _message(log: bytes, report: _Report, shape: Shape) -> str:
    if report.row.kind is not Kind.WARNING:
        return ""
    before = log[max(0, report.start - MOST_LINE) : report.start]
    texts = [line.text for line in kernel_lines(before, shape) if line.caller == report.caller]
    # Without a text of its own a warning follows the line that cuts it off from what was before.
    cut = [index for index, text in enumerate(texts) if text.startswith("---")]
    return printable(texts[-1]) if cut and len(texts) - cut[-1] == 2 else ""


def _frames(report: _Report) -> dict[str, str]:
    """Names of the functions that the report is about, innermost first, with their addresses.

    An address is as the kernel prints it: `function+0x1c/0x80 [module]`.
    """
    frames: dict[str, str] = {}
    for text in takewhile(lambda text: not OTHERS.match(text), report.body):
        frame = _FRAME.match(text)
        if frame and frame.group(1):
            continue
        found = frame or _IN_TEXT.search(text)
        if not found:
            continue
        address = found.group("address")
        name = function_name(address)
        dull = REPORTERS.fullmatch(name) or (report.row.waiting and WAITERS.fullmatch(name))
        if not dull:
            frames.setdefault(name, printable(address, _ADDRESS_LENGTH))
        if len(frames) == FRAMES:
            break
    return frames


def _finding(report: _Report, line: int) -> Finding:
    trace = _frames(report)
    frames = list(trace)
    groups = {k: _NUMBERS.sub("N", v or "") for k, v in report.match.groupdict().items()}
    title = printable(report.row.title.format(**groups).strip())
    if report.row.located and frames:
        title += f" in {frames[0]}"
    rule = RULES[report.row.rule]
    extra: dict[str, Any] = {
        "title": title,
        "kind": report.row.kind.value,
        "frames": frames,
        "trace": list(trace.values()),
        "fingerprint": hashlib.sha256("|".join((title, *frames)).encode()).hexdigest()[:16],
        "panicked": report.panicked,
        "time_s": report.time,
        "excerpt": [printable(text) for text in report.body[:_EXCERPT_LINES]],
    }
    summary = f"the guest kernel reported: {title}"
    if report.message:
        extra["message"] = report.message
        summary += f": {report.message}"
    gpa = None
    if report.row.rule == GUEST_MCE:
        extra["banks"] = _banks(report.body)
        summary, gpa = _machine_check(extra["banks"], summary)
    return Finding(
        rule=rule.id,
        severity=report.row.severity,
        summary=summary + (", and panicked" if report.panicked and "panic" not in title else ""),
        look_at=rule.look_at,
        gpa=gpa,
        seq=line,
        extra=extra,
    )


def _banks(body: list[str]) -> list[dict[str, Any]]:
    """The banks of a machine check as the kernel printed them."""
    told = read_lines((Line(text) for text in body), Source.CONSOLE)
    return [record.to_json() for record in told.records]


def _machine_check(banks: list[dict[str, Any]], otherwise: str) -> tuple[str, int | None]:
    if not banks:
        return otherwise, None
    first = banks[0]
    addr = first.get("addr")
    at = "" if addr is None else f", address {addr:#x}"
    return (
        f"CPU {first['cpu']} took a machine check, {first['grade']}: bank {first['bank']}, status "
        f"{first['status']:#x} ({', '.join(first['meaning'])}){at}",
        addr,
    )


def _again(finding: Finding, alike: Finding) -> Finding:
    extra = finding.extra
    if banks := alike.extra.get("banks"):
        extra = {**extra, "banks": [*extra["banks"], *banks][:_MOST_BANKS]}
    return dataclasses.replace(finding, count=finding.count + 1, extra=extra)

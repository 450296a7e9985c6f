# SPDX-License-Identifier: GPL-2.0-or-later
"""How numbers and outcomes are put for people, in the terminal and in the HTML report alike."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.verdict import Finding, Outcome, Severity, Verdict

MOST_RANGES = 6
# Their findings have the number of a line, not of an event.
_OF_LOGS = frozenset({"kernel-log", "guest-mce", "host-mce"})
_ADDRESSES = frozenset(
    {
        "range",
        "gpa",
        "gva",
        "status",
        "mcgstatus",
        "mcgcap",
        "addr",
        "address",
        "misc",
        "ip",
        "cpuid",
    }
)
# Names of judge's counts, and what people call them.
_MAIN_COUNTS = {
    "conversions": "conversions",
    "conversions_told": "conversions by the guest's word",
    "conversions_traced": "traced by the guest too",
    "bytes_converted": "converted",
    "lines_flushed": "lines flushed",
    "lines_dirty": "lines left dirty",
    "steps": "steps",
    "steps_failed": "steps failed",
    "dma_transfers": "DMA transfers compared",
}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")

_BAD_NEWS = frozenset({"lines_dirty", "steps_failed"})


def size(count: int) -> str:
    """Bytes in the largest binary unit that shows them exactly or to one decimal: `64 MiB`."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def number(count: int) -> str:
    """An integer with separators of thousands."""
    return f"{count:,}"


def address(value: int) -> str:
    """An address as the kernel writes it."""
    return f"{value:#x}"


def line_ranges(lines: tuple[int, ...]) -> str:
    """Line numbers of a page as ranges, `0-3, 7`, the first MOST_RANGES of them."""
    ranges: list[list[int]] = []
    for line in sorted(set(lines)):
        if ranges and line == ranges[-1][1] + 1:
            ranges[-1][1] = line
        else:
            ranges.append([line, line])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges[:MOST_RANGES])
    if len(ranges) > MOST_RANGES:
        return f"{shown} and more, {len(set(lines))} in all"
    return shown


def place_name(finding: Finding) -> str:
    """What `Finding.seq` counts."""
    return "log line" if finding.rule in _OF_LOGS else "event"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 step`, `2 steps`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def by_rule(findings: tuple[Finding, ...]) -> list[tuple[str, int]]:
    """Rule ids with the number of findings of each, most first."""
    return Counter(finding.rule for finding in findings).most_common()


def rules_of(findings: tuple[Finding, ...]) -> str:
    """Rule ids with their numbers of findings: most first, in one line."""
    return ", ".join(
        rule if count == 1 else f"{rule} \u00d7{count:,}" for rule, count in by_rule(findings)
    )


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    broken = tuple(f for f in verdict.findings if f.severity is Severity.FAIL)
    if verdict.outcome is Outcome.FAIL and broken:
        return f"{plural(len(broken), 'finding')}: {rules_of(broken)}"
    if verdict.reason:
        return verdict.reason
    if verdict.outcome is Outcome.PASS and {"events", "guest-trace"} & set(verdict.evidence):
        return "No rule was broken."
    if verdict.outcome is Outcome.PASS:
        return "Nothing was reported; without the stub's events no flush was judged."
    return "No reason was given."


def detail(name: str, value: Any) -> str:
    """A value of `Finding.extra` for people; addresses in hexadecimal."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {detail(str(key), item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return (" - " if name == "range" else "; ").join(detail(name, item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name in _ADDRESSES:
        return address(value)
    return str(value)


def kind(finding: Finding) -> str:
    """How a finding counts: `fail`, `report`, or `planted` by a step that broke it on purpose."""
    return "planted" if finding.extra.get("expected") is True else finding.severity.value


def main_counts(verdict: Verdict) -> list[tuple[str, str, bool]]:
    """The counts that a reader wants first: name, value, and whether the value is bad news."""
    shown = []
    failed = verdict.outcome is Outcome.FAIL
    for name, label in _MAIN_COUNTS.items():
        count = verdict.counts.get(name)
        if count is not None and (count or name != "steps_failed"):
            value = size(count) if name.startswith("bytes") else number(count)
            shown.append((label, value, failed and bool(count) and name in _BAD_NEWS))
    return shown

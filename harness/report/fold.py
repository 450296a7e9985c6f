# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversions that are alike, shown as one row."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.conversions import TO_SHARED, Conversion
from harness.report.model import OUTSIDE
from harness.rules.cache import redundant_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One or more conversions of a step with the same direction, size and soundness."""

    first: Conversion
    count: int
    # all of them together, in lines
    dirty: int
    flushed: int
    # flushed though no rule asks for it
    redundant: int
    lines: int
    # lowest and highest page
    gpa_low: int
    gpa_high: int
    vcpus: tuple[int, ...]
    callers: int


def _row(group: list[Conversion]) -> Row:
    return Row(
        first=group[0],
        count=len(group),
        dirty=sum(c.dirty for c in group),
        flushed=sum(c.flushed for c in group),
        redundant=sum(redundant_lines(c) for c in group),
        lines=sum(c.lines for c in group),
        gpa_low=min(c.gpa for c in group),
        gpa_high=max(c.gpa for c in group),
        vcpus=tuple(sorted({c.vcpu for c in group})),
        callers=len({c.caller for c in group}),
    )


def _likeness(c: Conversion) -> tuple[object, ...]:
    # In a step the callers are the workload's own; outside of steps they tell who converts.
    caller = c.caller if c.step in OUTSIDE else ""
    # Lines dirty under the shared key are the VMM's to flush.
    unsound = c.dirty > 0 and c.direction == TO_SHARED
    return c.step, c.direction, c.bytes, unsound, caller


def fold(conversions: Iterable[Conversion], *, alike: bool = True) -> list[Row]:
    """Rows in the order of their first conversion; with `alike` off, one row each."""
    groups: dict[object, list[Conversion]] = {}
    for conversion in conversions:
        groups.setdefault(_likeness(conversion) if alike else conversion.seq, []).append(conversion)
    return [_row(group) for group in groups.values()]

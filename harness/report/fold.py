# SPDX-License-Identifier: GPL-2.0-or-later
"""Conversions that are alike, shown as one row."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.conversions import Conversion
from harness.rules.cache import redundant_lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One or more conversions of a step with the same direction, size, caller and soundness."""

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
    )


def fold(conversions: Iterable[Conversion], *, alike: bool = True) -> list[Row]:
    """Rows in the order of their first conversion; with `alike` off, one row each."""
    groups: dict[object, list[Conversion]] = {}
    for conversion in conversions:
        c = conversion
        key = (c.step, c.direction, c.bytes, c.caller, c.dirty > 0) if alike else c.seq
        groups.setdefault(key, []).append(c)
    return [_row(group) for group in groups.values()]

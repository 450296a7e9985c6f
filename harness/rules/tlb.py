# SPDX-License-Identifier: GPL-2.0-or-later
"""guest-tlb-flush: translations that outlive the change of their page table entry."""

from collections.abc import Sequence
from typing import Any

from harness.conversions import TO_SHARED, Conversion, direction
from harness.events import PAGE_BYTES, Event, Flag, Kind
from harness.rules.context import Context, counted, finding, grouped, maker, places
from harness.verdict import Finding


def guest_tlb_flush(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion, vCPU and kind of evidence, over all its translations."""
    groups = grouped(
        (event for event in events if event.kind is Kind.STALE),
        lambda e: (_conversion_of(e, context), e.vcpu, direction(e), _evidence(e)),
    )
    return [
        _stale(group, context.conversions.get(-1 if convert is None else convert), context)
        for (convert, _, _, _), group in groups.items()
    ]


def _evidence(event: Event) -> str:
    return "used" if event.flags & Flag.USED else "unflushed"


def _conversion_of(event: Event, context: Context) -> int | None:
    """The conversion that the PTE change belongs to, None outside all.

    Private to shared, MapGPA comes behind the change; shared to private before it, and on kernels
    up to 6.4 behind it as well.
    """
    _, gpa, _, change, _ = event.args
    before = context.history.convert_before(change, gpa)
    after = context.history.convert_after(change, gpa)
    order = (after,) if direction(event) == TO_SHARED else (before, after)
    for convert in order:
        if convert and direction(convert) == direction(event):
            return convert.seq
    return None


def _stale(group: list[Event], conversion: Conversion | None, context: Context) -> Finding:
    first = group[0]
    ranges = _ranges(group)
    start, end = ranges[0]
    where = f"{start:#x}-{end - 1:#x}"
    if len(ranges) > 1:
        # The kernel's image is mapped twice, for one.
        where += f" and of {counted(len(ranges) - 1, 'other range')}"
    return finding(
        "guest-tlb-flush",
        _sentence(first, len(group), where, conversion),
        gpa=first.args[1],
        gva=first.args[0],
        direction=direction(first),
        vcpu=first.vcpu,
        evidence=_evidence(first),
        **_places(first, conversion, context),
        conversion_site=conversion.site if conversion else None,
        seq=first.seq,
        count=len(group),
        extra={
            "range": [start, end],
            "global": bool(first.flags & Flag.GLOBAL),
            "conversion": conversion.seq if conversion else None,
        },
    )


def _ranges(group: Sequence[Event]) -> list[tuple[int, int]]:
    """The linear addresses, those that adjoin as one, that of the first event first."""
    found: list[tuple[int, int]] = []
    for start, size in sorted((e.args[0], e.args[2] or PAGE_BYTES) for e in group):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], start + size))
        else:
            found.append((start, start + size))
    first = group[0].args[0]
    return sorted(found, key=lambda at: not at[0] <= first < at[1])


def _places(event: Event, conversion: Conversion | None, context: Context) -> dict[str, Any]:
    """Where the commit was: private to shared, that is the conversion with its trace."""
    if conversion and direction(event) == TO_SHARED and not event.flags & Flag.USED:
        return {"site": conversion.trace[0], "trace": conversion.trace}
    return places(event, context)


def _sentence(first: Event, count: int, where: str, conversion: Conversion | None) -> str:
    what = f"{counted(count, 'translation')} of {where}"
    who = f"vCPU {first.vcpu}"
    owner = "shared" if direction(first) == TO_SHARED else "private"
    by = maker(conversion, "a conversion")
    if first.flags & Flag.USED:
        return (
            f"{who} used {what} that the page tables no longer held, after {by} made "
            f"the memory {owner}"
        )
    if direction(first) == TO_SHARED:
        return f"{who} had not invalidated {what} when {by} made the memory {owner}"
    return (
        f"{who} had not invalidated {what} when the memory was used again after {by} made "
        f"it {owner}"
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""guest-cache-flush and redundant-flush: lines at the moment their page changes hands."""

from collections.abc import Sequence

from harness.conversions import TO_PRIVATE, TO_SHARED, Conversion
from harness.events import LINE_BYTES, PAGE_BYTES, Event, Kind
from harness.rules.context import Context, counted, finding, grouped, maker
from harness.verdict import Finding

_RUNS_TOLD = 8


def guest_cache_flush(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion to shared that left lines dirty under the private key."""
    runs = grouped((e for e in events if e.kind is Kind.DIRTY_RUN), lambda e: e.args[4])
    return [
        _dirty(conversion, runs.get(conversion.seq, []), context)
        for conversion in _conversions(events, context)
        if conversion.direction == TO_SHARED and conversion.dirty
    ]


def _conversions(events: Sequence[Event], context: Context) -> list[Conversion]:
    return [context.conversions[e.seq] for e in events if e.seq in context.conversions]


def _dirty(conversion: Conversion, runs: list[Event], context: Context) -> Finding:
    first = runs[0].args[0] if runs else conversion.gpa
    page = first // PAGE_BYTES * PAGE_BYTES
    store = next((run.args[2] for run in runs if run.args[2]), 0)
    store_site = context.symbols.site(store) if store else None
    return finding(
        "guest-cache-flush",
        f"{conversion.dirty} of {conversion.lines} lines of {_range(conversion)} were still dirty "
        f"under the private key when {maker(conversion, 'MapGPA')} made it shared; "
        f"{_flushes(conversion)}",
        gpa=page,
        lines=_lines_in(page, runs),
        direction=TO_SHARED,
        vcpu=conversion.vcpu,
        site=conversion.trace[0] if conversion.trace else None,
        store_site=store_site,
        conversion_site=conversion.site,
        trace=conversion.trace,
        seq=conversion.seq,
        extra={
            "range": [conversion.gpa, conversion.gpa + conversion.bytes],
            "dirty_lines": conversion.dirty,
            "total_lines": conversion.lines,
            "flushed_lines": conversion.flushed,
            "runs": [_run(run, context) for run in runs[:_RUNS_TOLD]],
        },
    )


def _range(conversion: Conversion) -> str:
    if conversion.bytes <= PAGE_BYTES:
        return f"page {conversion.gpa:#x}"
    return (
        f"{counted(conversion.bytes // PAGE_BYTES, 'page')} at "
        f"{conversion.gpa:#x}-{conversion.gpa + conversion.bytes - 1:#x}"
    )


def _flushes(conversion: Conversion) -> str:
    if not conversion.flushed:
        return "no CLFLUSH reached them"
    if conversion.flushed >= conversion.lines:
        return (
            "each line was flushed, but through a mapping with the other key or before the last "
            "store"
        )
    return f"CLFLUSH reached {counted(conversion.flushed, 'line')} of the range"


def _lines_in(page: int, runs: list[Event]) -> tuple[int, ...]:
    """Line numbers within one page; runs never cross a page."""
    lines: list[int] = []
    for run in runs:
        if run.args[0] // PAGE_BYTES * PAGE_BYTES == page:
            first = run.args[0] % PAGE_BYTES // LINE_BYTES
            lines += range(first, min(first + run.args[1], PAGE_BYTES // LINE_BYTES))
    return tuple(lines)


def _run(run: Event, context: Context) -> dict[str, object]:
    gpa, lines, store, vcpu, _ = run.args
    return {
        "gpa": gpa,
        "lines": lines,
        "store": str(context.symbols.site(store)) if store else "",
        "vcpu": vcpu,
    }


def redundant_flush(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per direction and caller, over all its conversions in these events."""
    groups: dict[tuple[str, str], list[Conversion]] = {}
    for conversion in _conversions(events, context):
        if redundant_lines(conversion):
            key = (conversion.direction, maker(conversion, ""))
            groups.setdefault(key, []).append(conversion)
    return [_redundant(group) for group in groups.values()]


def redundant_lines(conversion: Conversion) -> int:
    """Line flushes that no rule asks for: each of them on the way back to private, else those of
    lines that had been flushed and not stored to since."""
    if conversion.direction == TO_PRIVATE:
        return conversion.flushed + conversion.flushed_again
    return conversion.flushed_again


def _redundant(group: list[Conversion]) -> Finding:
    first = group[0]
    lines = sum(redundant_lines(conversion) for conversion in group)
    what = "flushed" if first.direction == TO_PRIVATE else "flushed once more than needed"
    return finding(
        "redundant-flush",
        f"{counted(lines, 'line')} were {what} in {counted(len(group), 'conversion')} "
        f"{first.direction} by {maker(first, 'an unknown caller')}",
        gpa=first.gpa,
        direction=first.direction,
        vcpu=first.vcpu,
        conversion_site=first.site,
        trace=first.trace,
        seq=first.seq,
        count=len(group),
        extra={
            "redundant_lines": lines,
            "flushed_lines": sum(conversion.flushed for conversion in group),
            "conversions": [_saving(conversion) for conversion in group[:_RUNS_TOLD]],
        },
    )


def _saving(conversion: Conversion) -> dict[str, object]:
    """What one conversion could have done without."""
    return {
        "seq": conversion.seq,
        "gpa": conversion.gpa,
        "lines": conversion.lines,
        "redundant_lines": redundant_lines(conversion),
    }

# SPDX-License-Identifier: GPL-2.0-or-later
"""vmm-cache-flush and vmm-ept-flush: what the VMM owes, seen where the stub's VMM leaves it out."""

from collections.abc import Sequence

from harness.conversions import TO_PRIVATE, direction
from harness.events import PAGE_BYTES, Event, Flag, Kind, VmmBehaviour
from harness.rules.context import Context, counted, finding, grouped, maker, places
from harness.verdict import Finding


def vmm_cache_flush(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion whose lines poisoned memory, with the first read if any came."""
    reads = grouped((e for e in events if e.kind is Kind.POISON_READ), lambda e: e.args[3])
    poisoned = grouped((e for e in events if e.kind is Kind.POISON), lambda e: e.args[2])
    return [
        _poisoned(poisoned.get(seq, []), reads.get(seq, []), seq, context)
        for seq in dict.fromkeys([*poisoned, *reads])
    ]


def _poisoned(
    poisoned: Sequence[Event], reads: Sequence[Event], seq: int, context: Context
) -> Finding:
    conversion = context.conversions.get(seq)
    lines = sum(event.args[1].bit_count() for event in poisoned)
    read = reads[0] if reads else None
    gpa = read.args[1] if read else poisoned[0].args[0]
    what = f"{counted(lines, 'line')} of {counted(len(poisoned), 'page')}"
    summary = (
        f"the VMM did not flush {what} when {maker(conversion, 'MapGPA')} made them private: "
        "their write-back poisoned memory"
    )
    if read:
        verb = "wrote to a part of" if read.flags & Flag.WRITE else "read"
        summary += f", and vCPU {read.vcpu} {verb} {gpa:#x}"
    page = gpa // PAGE_BYTES * PAGE_BYTES
    return finding(
        "vmm-cache-flush",
        summary,
        gpa=page,
        lines=_lines_of(page, poisoned),
        gva=read.args[0] if read else None,
        direction=TO_PRIVATE,
        vcpu=read.vcpu if read else conversion.vcpu if conversion else None,
        evidence="used" if read else "unflushed",
        **(places(read, context) if read else {}),
        conversion_site=conversion.site if conversion else None,
        seq=seq,
        count=max(1, len(poisoned)),
        extra={"poisoned_lines": lines, "reads": len(reads)},
    )


def _lines_of(page: int, poisoned: Sequence[Event]) -> tuple[int, ...]:
    mask = next((e.args[1] for e in poisoned if e.args[0] == page), 0)
    return tuple(line for line in range(64) if mask >> line & 1)


def vmm_ept_flush(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion behind which a mapping was kept, and per use of one."""
    kept = [e for e in events if e.kind is Kind.VMM and _keeps(e)]
    return [
        *(_kept(event, None, context) for event in kept),
        *(
            _kept(owner, access, context)
            for access in events
            if (owner := _by_kept_mapping(access, context))
        ),
    ]


def _keeps(event: Event) -> bool:
    return event.args[0] & 0xFFFFFFFF == VmmBehaviour.EPT


def _by_kept_mapping(access: Event, context: Context) -> Event | None:
    """The conversion whose old mapping an access went through; None when it was flushed."""
    if access.kind not in (Kind.WRONG_ALIAS, Kind.UNACCEPTED):
        return None
    gpa = access.args[1]
    convert = context.history.convert_before(access.seq, gpa)
    before = [
        e
        for e in context.misbehaved.values()
        if convert and e.seq < convert.seq and e.args[1] <= gpa < e.args[1] + e.args[2]
    ]
    last = max(before, key=lambda e: e.seq, default=None)
    if not last or not convert or not _keeps(last):
        return None
    # It is this conversion's only if no other one lies between the two.
    earlier = context.history.convert_before(convert.seq, gpa)
    return last if not earlier or earlier.seq < last.seq else None


def _kept(kept: Event, access: Event | None, context: Context) -> Finding:
    _, gpa, size, _, _ = kept.args
    old = "private" if kept.flags & Flag.TO_SHARED else "shared"
    summary = f"the VMM kept the guest-physical mapping of {gpa:#x}-{gpa + size - 1:#x} as {old}"
    if access:
        summary += f", and vCPU {access.vcpu} went through it to {access.args[1]:#x}"
    return finding(
        "vmm-ept-flush",
        summary,
        gpa=access.args[1] // PAGE_BYTES * PAGE_BYTES if access else gpa,
        gva=access.args[0] if access else None,
        direction=direction(kept),
        vcpu=(access or kept).vcpu,
        evidence="used" if access else "unflushed",
        **places(access or kept, context),
        seq=(access or kept).seq,
        extra={"range": [gpa, gpa + size]},
    )

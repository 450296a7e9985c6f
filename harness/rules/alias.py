# SPDX-License-Identifier: GPL-2.0-or-later
"""private-access-to-shared, shared-access-to-private, unaccepted-access: who may touch a page."""

from collections.abc import Sequence

from harness.conversions import TO_SHARED, Conversion, direction
from harness.events import LINE_BYTES, PAGE_BYTES, Event, Flag, Kind
from harness.rules.context import Context, finding, grouped, maker, places, span
from harness.verdict import Finding


def private_access_to_shared(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion and vCPU, over all pages; and one per conversion out of order.

    An access needs no instruction that means it: a CPU loads ahead, and load_unaligned_zeropad()
    reads the page next to its own. So a mapping that is private while the page is shared breaks the
    rule whether or not an access was seen (evidence `mapped`).
    """
    wrong = [e for e in events if e.kind is Kind.WRONG_ALIAS and not e.flags & Flag.SHARED]
    how = "through a private mapping while it was shared"
    return _out_of_order(events, context) + _folded("private-access-to-shared", wrong, context, how)


def shared_access_to_private(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion and vCPU; accesses in the middle of a conversion are none."""
    wrong = [
        e
        for e in events
        if e.kind is Kind.WRONG_ALIAS
        and e.flags & Flag.SHARED
        and not _mid_conversion(e, context)
        and not _is_firmware(e, context)
    ]
    how = "through a shared mapping while it was private"
    return _folded("shared-access-to-private", wrong, context, how)


def unaccepted_access(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per conversion and vCPU, over all pages."""
    wrong = [e for e in events if e.kind is Kind.UNACCEPTED]
    return _folded("unaccepted-access", wrong, context, "before it was accepted")


def _is_firmware(event: Event, context: Context) -> bool:
    """Whether the page belongs to the firmware and was never converted.

    Linux maps what the memory map calls reserved as shared, and SeaBIOS keeps the ACPI tables
    there; the firmware of a real TD says that they are ACPI tables, and they are mapped private.
    """
    gpa = event.args[1]
    reserved = any(start <= gpa < end for start, end in context.firmware)
    return reserved and context.history.convert_before(event.seq, gpa) is None


def _mid_conversion(event: Event, context: Context) -> bool:
    """Whether mapping and owner disagree because one of them has changed and the other is next.

    Linux keeps the mapping shared for as long as the two disagree: shared to private MapGPA comes
    before the PTE change, private to shared behind it.
    """
    before, after = context.history.around(event.seq, event.args[0], event.args[1])
    if not before or not after or direction(before) != direction(after):
        return False
    order = [Kind.CONVERT, Kind.PTE_CHANGE]
    if direction(before) == TO_SHARED:
        order.reverse()
    return [before.kind, after.kind] == order


def _out_of_order(events: Sequence[Event], context: Context) -> list[Finding]:
    """Mappings that changed while their page was shared: on one side of it they were private."""
    changes = [e for e in events if e.kind is Kind.PTE_CHANGE and _on_shared(e, context)]
    groups = grouped(changes, lambda e: (_conversion_of(e, context), direction(e)))
    return [_mapped(group, context.conversions.get(seq)) for (seq, _), group in groups.items()]


def _on_shared(change: Event, context: Context) -> bool:
    before = context.history.convert_before(change.seq, change.args[1])
    if before is None or direction(before) != TO_SHARED:
        return False
    # Mapped as shared where nothing was mapped since: no private mapping was there to go.
    return direction(change) != TO_SHARED or not change.flags & Flag.AWAY


def _conversion_of(change: Event, context: Context) -> int:
    """The conversion that was too early to shared, or too late to private; -1: it never came."""
    look = context.history.convert_after
    if direction(change) == TO_SHARED:
        look = context.history.convert_before
    convert = look(change.seq, change.args[1])
    return convert.seq if convert and direction(convert) == direction(change) else -1


def _mapped(group: Sequence[Event], conversion: Conversion | None) -> Finding:
    first = group[0]
    start, end = span((e.args[1], e.args[4] or PAGE_BYTES) for e in group)
    by = maker(conversion, "MapGPA")
    order = (
        f"still mapped {start:#x}-{end - 1:#x} as private when {by} made it shared"
        if direction(first) == TO_SHARED
        else f"mapped {start:#x}-{end - 1:#x} as private again before {by} ended its being shared"
    )
    return finding(
        "private-access-to-shared",
        f"the page tables {order}",
        gpa=first.args[1],
        gva=first.args[0],
        direction=direction(first),
        vcpu=first.vcpu,
        evidence="mapped",
        site=conversion.trace[0] if conversion and conversion.trace else None,
        trace=conversion.trace if conversion else (),
        conversion_site=conversion.site if conversion else None,
        seq=first.seq,
        count=len(group),
        extra={"range": [start, end]},
    )


def _folded(rule: str, wrong: Sequence[Event], context: Context, how: str) -> list[Finding]:
    groups = grouped(wrong, lambda e: (_converted_by(e, context), e.vcpu))
    return [_wrong(rule, group, seq, context, how) for (seq, _), group in groups.items()]


def _converted_by(event: Event, context: Context) -> int:
    """Sequence number of the conversion that made the page what it is; -1: none did."""
    convert = context.history.convert_before(event.seq, event.args[1])
    return convert.seq if convert else -1


def _wrong(rule: str, group: Sequence[Event], convert: int, context: Context, how: str) -> Finding:
    first = group[0]
    conversion = context.conversions.get(convert)
    start, end = span((e.args[1] // PAGE_BYTES * PAGE_BYTES, PAGE_BYTES) for e in group)
    where = (
        f"page {start:#x}" if len(group) == 1 else f"{len(group)} pages of {start:#x}-{end - 1:#x}"
    )
    since = f", since {maker(conversion, 'MapGPA')} made it so" if conversion else ""
    return finding(
        rule,
        f"vCPU {first.vcpu} {_verb(first)} {where} {how}{since}",
        gpa=first.args[1] // PAGE_BYTES * PAGE_BYTES,
        lines=(first.args[1] % PAGE_BYTES // LINE_BYTES,),
        gva=first.args[0],
        direction=conversion.direction if conversion else None,
        vcpu=first.vcpu,
        **places(first, context),
        conversion_site=conversion.site if conversion else None,
        seq=first.seq,
        count=len(group),
        extra={"range": [start, end]},
    )


def _verb(event: Event) -> str:
    if event.flags & Flag.CACHE:
        return "flushed a line of"
    return "wrote to" if event.flags & Flag.WRITE else "read"

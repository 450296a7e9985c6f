# SPDX-License-Identifier: GPL-2.0-or-later
"""double-accept and accept-shared: TDG.MEM.PAGE.ACCEPT where there is nothing to accept.

Linux asks for 1 GiB, then 2 MiB, then 4 KiB, and takes any status but 0 as "smaller, please".
OPERAND_INVALID for 1 GiB and PAGE_SIZE_MISMATCH are therefore the normal course of things.
"""

from collections.abc import Sequence

from harness.events import PAGE_BYTES, Event, Flag, Kind, PageState
from harness.rules.context import Context, caller_key, counted, finding, grouped, places, span
from harness.verdict import Finding

# Upper halves of the status (TDX module ABI).
ALREADY_ACCEPTED = 0x00000B0A
SIZE_MISMATCH = 0xC0000B0B
EPT_WALK_FAILED = 0xC0000B00
OPERAND_INVALID = 0xC0000100
_PROBES = frozenset({0, SIZE_MISMATCH, OPERAND_INVALID})
_LEVEL_BYTES = (PAGE_BYTES, 2 << 20, 1 << 30)


def double_accept(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per calling function, over all its pages."""
    wrong = [e for e in _accepts(events) if e.args[2] >> 32 == ALREADY_ACCEPTED]
    return _folded("double-accept", wrong, context, "accepted {} that had been accepted before")


def accept_shared(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per calling function, over all its pages."""
    wrong = [e for e in _accepts(events) if _on_shared(e)]
    return _folded("accept-shared", wrong, context, "tried to accept {} while it was shared")


def _accepts(events: Sequence[Event]) -> list[Event]:
    return [e for e in events if e.kind is Kind.ACCEPT and not e.flags & Flag.BAD]


def _on_shared(event: Event) -> bool:
    status = event.args[2] >> 32
    # The state is of the first page alone; a shared one behind it shows in the status.
    return status == EPT_WALK_FAILED or (
        status not in _PROBES and bool(event.args[3] & PageState.SHARED)
    )


def accept_bytes(event: Event) -> int:
    """Bytes that an ACCEPT asked for."""
    return _LEVEL_BYTES[min(event.args[1], len(_LEVEL_BYTES) - 1)]


def _folded(rule: str, wrong: Sequence[Event], context: Context, what: str) -> list[Finding]:
    groups = grouped(wrong, lambda e: (caller_key(e, context), e.vcpu))
    return [_finding(rule, group, context, what) for group in groups.values()]


def _finding(rule: str, group: Sequence[Event], context: Context, what: str) -> Finding:
    first = group[0]
    start, end = span((e.args[0], accept_bytes(e)) for e in group)
    where = f"{start:#x}-{end - 1:#x}"
    if len(group) > 1:
        where = f"{counted(len(group), 'range')} of {where}"
    return finding(
        rule,
        f"vCPU {first.vcpu} {what.format(where)}",
        gpa=first.args[0],
        vcpu=first.vcpu,
        **places(first, context),
        seq=first.seq,
        count=len(group),
        extra={"range": [start, end], "status": first.args[2], "level": first.args[1]},
    )

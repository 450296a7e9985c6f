# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rules share: symbols, history, and how a finding is begun."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from harness.conversions import Conversion, History, caller_of, conversions
from harness.events import Event, Kind
from harness.rules.table import RULES
from harness.steps import Step
from harness.symbols import Symbols
from harness.verdict import Finding

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The events' surroundings; made once per judgement by `context_of`."""

    symbols: Symbols
    history: History
    # conversions by sequence number
    conversions: dict[int, Conversion]
    # by sequence number, the MapGPAs at which the VMM misbehaved
    misbehaved: dict[int, Event] = field(default_factory=dict)
    # guest-physical ranges [start, end) that firmware keeps for itself
    firmware: tuple[tuple[int, int], ...] = ()


def context_of(
    events: Sequence[Event],
    symbols: Symbols | None = None,
    steps: Sequence[Step] = (),
    firmware: tuple[tuple[int, int], ...] = (),
) -> Context:
    """The context of these events."""
    known = symbols or Symbols()
    return Context(
        symbols=known,
        history=History(events),
        conversions={c.seq: c for c in conversions(events, known, steps)},
        misbehaved={e.seq: e for e in events if e.kind is Kind.VMM},
        firmware=firmware,
    )


def finding(rule: str, summary: str, **fields: Any) -> Finding:
    """A finding with its rule's severity and advice."""
    row = RULES[rule]
    return Finding(rule=rule, severity=row.severity, summary=summary, look_at=row.look_at, **fields)


def places(event: Event, context: Context) -> dict[str, Any]:
    """The fields of a finding that say where in the code: `site` and `trace` of an event."""
    trace = context.symbols.trace(event.pc, event.stack) if event.pc else ()
    return {"site": trace[0] if trace else None, "trace": trace if len(trace) > 1 else ()}


def maker(conversion: Conversion | None, otherwise: str) -> str:
    """Words for who made a conversion."""
    return conversion.caller if conversion and conversion.caller else otherwise


def caller_key(event: Event, context: Context) -> str | int:
    """What calls of one origin have in common: the calling function, or the bare address."""
    caller = caller_of(context.symbols.trace(event.pc, event.stack))
    return str(caller) if caller else event.pc


def grouped(events: Iterable[Event], key: Callable[[Event], Key]) -> dict[Key, list[Event]]:
    """Events by key, groups in the order of their first event."""
    groups: dict[Key, list[Event]] = {}
    for event in events:
        groups.setdefault(key(event), []).append(event)
    return groups


def counted(number: int, noun: str) -> str:
    """`1 page`, `2 pages`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(starts_and_sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The lowest start and the highest end of at least one range."""
    ranges = list(starts_and_sizes)
    return min(start for start, _ in ranges), max(start + size for start, size in ranges)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The page that a machine check hit: its conversions, and what the VMM did wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.conversions import Conversion
from harness.events import VmmBehaviour
from harness.rules.context import Context

MOST_EVENTS = 8


@dataclass(frozen=True, slots=True)
class PageHistory:
    """What befell the page at `gpa`, in order: its conversions, and words for the last events."""

    gpa: int
    conversions: tuple[Conversion, ...]
    words: tuple[str, ...]

    @property
    def last(self) -> Conversion | None:
        """The conversion that made the page what it was."""
        return self.conversions[-1] if self.conversions else None


def history_of(gpa: int, context: Context) -> PageHistory:
    """The history of the page at `gpa` as far as the run's events tell it."""
    covering = [c for c in context.conversions.values() if c.gpa <= gpa < c.gpa + c.bytes]
    told = [(c.seq, _conversion(c)) for c in covering]
    for event in context.misbehaved.values():
        if event.args[1] <= gpa < event.args[1] + event.args[2]:
            told.append((event.seq, _behaviour(event.seq, event.args[0] & 0xFFFFFFFF)))
    words = [words for _, words in sorted(told)]
    return PageHistory(gpa, tuple(covering), tuple(_last(words)))


def _last(words: Sequence[str]) -> list[str]:
    more = len(words) - MOST_EVENTS
    return [f"{more} before these", *words[more:]] if more > 0 else list(words)


def _conversion(conversion: Conversion) -> str:
    by = f" by {conversion.caller}" if conversion.caller else ""
    step = f" in {conversion.step}" if conversion.step else ""
    return f"event {conversion.seq}: {conversion.direction}{by}{step}"


def _behaviour(seq: int, number: int) -> str:
    known = {behaviour.value: behaviour.name for behaviour in VmmBehaviour}
    words = {"CACHE": "the VMM flushed no cache line", "EPT": "the VMM kept its mapping"}
    name = known.get(number, str(number))
    return f"event {seq}: {words.get(name, f'the VMM misbehaved ({name.lower()})')}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions by address: what every source of symbols offers, and System.map as the plainest."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.text import printable

NAME_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Function:
    """A function's name and the addresses [start, end)."""

    name: str
    start: int
    end: int


class FunctionTable(Protocol):
    """Where functions are; all addresses of one table are of one kind, link or run time."""

    def find(self, address: int) -> Function | None:
        """The function that holds the address."""

    def addresses_of(self, names: frozenset[str]) -> dict[str, int]:
        """Addresses of the symbols of these names; those that do not exist are left out."""


def is_text_type(kind: str) -> bool:
    """Whether a symbol's type letter, as nm prints it, stands for code."""
    return kind in "tTwW"


class NameTable:
    """A table of (address, type letter, name), sorted or not."""

    def __init__(self, entries: Sequence[tuple[int, str, str]]) -> None:
        # Stable: of several names for one address the first stays first, as the kernel prints.
        self._entries = sorted(entries, key=lambda entry: entry[0])
        self._addresses = [entry[0] for entry in self._entries]

    def find(self, address: int) -> Function | None:
        """The function that holds the address; the last symbol has no end and holds nothing."""
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        start = self._addresses[index]
        after = bisect_right(self._addresses, start)
        while index and self._addresses[index - 1] == start:
            index -= 1
        _, kind, name = self._entries[index]
        if not is_text_type(kind) or after == len(self._addresses):
            return None
        return Function(name, start, self._addresses[after])

    def addresses_of(self, names: frozenset[str]) -> dict[str, int]:
        """Addresses of the symbols of these names, the first of each."""
        found: dict[str, int] = {}
        for address, _, name in self._entries:
            if name in names:
                found.setdefault(name, address)
        return found


def parse_system_map(text: str) -> NameTable | None:
    """A System.map at link addresses; lines of any other form are passed over.

    None when it names no function: Debian's packages hold a System.map of one line that says
    where the real one is.
    """
    entries = []
    for line in text.splitlines():
        words = line.split(None, 2)
        if len(words) == 3 and len(words[1]) == 1:
            try:
                entries.append((int(words[0], 16), words[1], printable(words[2], NAME_LENGTH)))
            except ValueError:
                continue
    if not any(is_text_type(kind) for _, kind, _ in entries):
        return None
    return NameTable(entries)

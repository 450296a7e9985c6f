# SPDX-License-Identifier: GPL-2.0-or-later
"""The symbol table that a kernel carries in its own image (CONFIG_KALLSYMS).

Distributions strip vmlinux and ship a System.map of one line, but the running kernel prints
symbols in its oopses, so the image holds them: scripts/kallsyms.c of the kernel writes the tables
that are read here, without running anything.

In the order of the tables since v6.4: the number of symbols, their names (length, then tokens),
a marker to every 256th name, the 256 tokens, the offset of each token, the offset of each symbol,
the base of those. Up to v6.3 offsets and base come before the number of symbols; in 7.3 there is
no base, and each offset is relative to its own place.
"""

import re
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from harness.functions import Function, is_text_type
from harness.vmlinux import Section, sections

_TOKENS = 256
_NAMES_PER_MARKER = 256
# The digits are tokens of their own, so they stand in any token table in this order.
_DIGITS = re.compile(rb"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")
_MOST_SYMBOLS = 4_000_000
# The kernel's mapping of its image.
_TEXT_BYTES = 1 << 30


class Kallsyms:
    """Functions of a kernel image at their link addresses; names are decoded when asked for."""

    def __init__(
        self, addresses: list[int], names: bytes, markers: tuple[int, ...], tokens: list[str]
    ) -> None:
        self._addresses = addresses
        self._names = names
        self._markers = markers
        self._tokens = tokens
        self._found: dict[int, Function | None] = {}

    def find(self, address: int) -> Function | None:
        """The function that holds a link address."""
        after = bisect_right(self._addresses, address)
        if after not in self._found:
            self._found[after] = self._before(after)
        return self._found[after]

    def _before(self, after: int) -> Function | None:
        """The function whose end is the symbol at index `after`."""
        if not 0 < after < len(self._addresses):
            return None
        start = self._addresses[after - 1]
        # Of several names for one address, the kernel prints the first.
        kind, name = self._name(bisect_left(self._addresses, start))
        return Function(name, start, self._addresses[after]) if is_text_type(kind) else None

    def addresses_of(self, names: frozenset[str]) -> dict[str, int]:
        """Link addresses of these symbols, the first of each name; reads the whole table."""
        found: dict[str, int] = {}
        for index, (_, name) in enumerate(self._all_names()):
            if name in names:
                found.setdefault(name, self._addresses[index])
        return found

    def _name(self, index: int) -> tuple[str, str]:
        at = self._markers[index // _NAMES_PER_MARKER]
        for _ in range(index % _NAMES_PER_MARKER):
            at = _name_end(self._names, at)[1]
        return self._decode(at)

    def _decode(self, at: int) -> tuple[str, str]:
        first, end = _name_end(self._names, at)
        text = "".join(map(self._tokens.__getitem__, self._names[first:end]))
        return text[:1], text[1:]

    def _all_names(self) -> Iterator[tuple[str, str]]:
        at = 0
        for _ in self._addresses:
            yield self._decode(at)
            at = _name_end(self._names, at)[1]


def _name_end(names: bytes, at: int) -> tuple[int, int]:
    """First byte of the tokens of the name at `at`, and the byte behind them."""
    length = names[at]
    if length & 0x80:
        # Long names have two length bytes (since v6.1).
        return at + 2, at + 2 + (length & 0x7F | names[at + 1] << 7)
    return at + 1, at + 1 + length


def parse_kallsyms(elf: bytes) -> Kallsyms | None:
    """The symbol table in a vmlinux; None when there is none that can be read."""
    loaded = sections(elf)
    try:
        for match in _DIGITS.finditer(elf):
            table = _parse_around(elf, match.start(), loaded)
            if table:
                return table
    except (struct.error, IndexError):
        return None
    return None


def _parse_around(elf: bytes, digits: int, loaded: tuple[Section, ...]) -> Kallsyms | None:
    found = _tokens_around(elf, digits)
    if not found:
        return None
    tokens, tokens_start, index_end = found
    placed = _markers_before(elf, tokens_start)
    if not placed:
        return None
    markers, markers_start = placed
    counted = _names_before(elf, markers, markers_start)
    if not counted:
        return None
    names_start, count = counted
    addresses = _addresses(elf, index_end, names_start, count, loaded)
    if addresses is None:
        return None
    return Kallsyms(addresses, elf[names_start:markers_start], markers, tokens)


def _tokens_around(elf: bytes, digits: int) -> tuple[list[str], int, int] | None:
    """The tokens, where their table starts, and where the index behind it ends."""
    start = digits
    for _ in range(ord("0")):
        start = elf.rfind(b"\0", 0, start - 1) + 1
    if start <= 0 or digits - start > 64 * _TOKENS:
        return None
    raw = elf[start : start + 64 * _TOKENS].split(b"\0", _TOKENS)[:_TOKENS]
    offsets, at = [], 0
    for token in raw:
        offsets.append(at)
        at += len(token) + 1
    if at >= 1 << 16:
        return None
    # The index is aligned to 4 or 8 bytes.
    index = elf.find(struct.pack(f"<{_TOKENS}H", *offsets), start + at, start + at + 520)
    if index < 0:
        return None
    return [t.decode("latin-1") for t in raw], start, index + 2 * _TOKENS


def _markers_before(elf: bytes, tokens_start: int) -> tuple[tuple[int, ...], int] | None:
    """The markers that end at the token table: ascending from zero, at most alignment behind."""
    for end in (tokens_start & ~3, (tokens_start & ~3) - 4):
        at, above = end - 4, 1 << 32
        values: list[int] = []
        while at > 0 and len(values) <= _MOST_SYMBOLS // _NAMES_PER_MARKER:
            value = struct.unpack_from("<I", elf, at)[0]
            if value >= above:
                break
            values.append(value)
            if value == 0:
                # A single zero is alignment: any kernel has more than 256 symbols.
                if len(values) > 1:
                    return tuple(reversed(values)), at
                break
            above = value
            at -= 4
    return None


def _names_before(
    elf: bytes, markers: tuple[int, ...], markers_start: int
) -> tuple[int, int] | None:
    """Where the names start, and how many symbols there are."""
    most = len(markers) * _NAMES_PER_MARKER
    least = most - _NAMES_PER_MARKER + 1
    # The names behind the last marker take at least 2 bytes each and rarely above 64.
    highest = markers_start - markers[-1]
    for start in range(highest & ~3, max(8, highest - 64 * _NAMES_PER_MARKER), -4):
        for count_at in (start - 8, start - 4):
            count = struct.unpack_from("<I", elf, count_at)[0]
            if least <= count <= most and _names_fit(elf, start, count, markers, markers_start):
                return start, count
    return None


def _names_fit(
    elf: bytes, start: int, count: int, markers: tuple[int, ...], markers_start: int
) -> bool:
    """Whether names walked from the last marker end at the markers, and those of the first at
    the second."""
    at = start + markers[-1]
    for _ in range(count - (len(markers) - 1) * _NAMES_PER_MARKER):
        at = _name_end(elf, at)[1]
    if not 0 <= markers_start - at < 8:
        return False
    at = start
    for _ in range(min(count, _NAMES_PER_MARKER)):
        at = _name_end(elf, at)[1]
    return len(markers) == 1 or at == start + markers[1]


def _addresses(
    elf: bytes, index_end: int, names_start: int, count: int, loaded: tuple[Section, ...]
) -> list[int] | None:
    table = (4 * count + 7) & ~7
    behind = (index_end + 7) & ~7
    # Before the names: offsets, base, number; the last two aligned to 8 bytes.
    before = (names_start & ~7) - 16 - table
    for at in (behind, before, before - 8, before + 8):
        base = int.from_bytes(elf[at + table : at + table + 8], "little") if at > 0 else 0
        if any(s.executable and base <= s.address < base + _TEXT_BYTES for s in loaded):
            return _from_base(elf, at, count, base)
    for at in ((index_end + 3) & ~3, behind):
        addresses = _from_place(elf, at, count, loaded)
        if addresses:
            return addresses
    return None


def _from_base(elf: bytes, at: int, count: int, base: int) -> list[int] | None:
    offsets = struct.unpack_from(f"<{count}i", elf, at)
    if offsets[-1] < 0:
        # CONFIG_KALLSYMS_ABSOLUTE_PERCPU: negative is relative, the rest are per-CPU offsets,
        # which sort first.
        addresses = [base - 1 - o if o < 0 else o for o in offsets]
    else:
        addresses = [base + (o & 0xFFFFFFFF) for o in offsets]
    return addresses if addresses == sorted(addresses) else None


def _from_place(elf: bytes, at: int, count: int, loaded: tuple[Section, ...]) -> list[int] | None:
    place = next((s.address + at - s.offset for s in loaded if 0 <= at - s.offset < s.size), None)
    if place is None:
        return None
    offsets = struct.unpack_from(f"<{count}i", elf, at)
    addresses = [place + 4 * i + offset for i, offset in enumerate(offsets)]
    return addresses if addresses == sorted(addresses) else None

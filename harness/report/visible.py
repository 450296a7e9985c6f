# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest text made safe to look at: nothing in it can move a cursor, hide, or reorder a line."""

import re
import unicodedata

# Control, format (bidirectional controls, zero-width), surrogate, private and unassigned
# characters, spaces of odd width, separators of lines, marks drawn over their neighbours: none has
# a look of its own, each can fake one.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs", "Mn", "Me"})
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


def _show(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures block
    if code == 0x7F:
        return "\u2421"
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return f"\u27e8{code:02X}\u27e9" if code < 0x100 else f"\u27e8U+{code:04X}\u27e9"


def visible(text: str, limit: int) -> str:
    """One line of at most `limit` characters of `text`, and how many more there were.

    Newlines are shown like every other control character; markup is the caller's to escape.
    """
    shown = _NOT_PLAIN.sub(_show, text[:limit])
    left = len(text) - limit
    return f"{shown}\u2026 ({left} more characters)" if left > 0 else shown


def visible_lines(text: str, limit: int) -> list[str]:
    """The lines of `text`, ends of line as a terminal has them, each through `visible`."""
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    # A serial console doubles the carriage return; at an end of line it moves nothing.
    return [visible(line.rstrip("\r"), limit) for line in lines]

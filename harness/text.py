# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest-made text before it reaches a finding: bounded, and with nothing in it that acts."""

import re

_PASSWORD = re.compile(r"(://[^\s/:@]{0,200}):[^\s/@]{1,500}@")


def without_password(text: str) -> str:
    """`text` with the passwords of URLs in it left out."""
    return _PASSWORD.sub(r"\1:...@", text)


def printable(text: str, limit: int = 200) -> str:
    """`text` with every unprintable character escaped as in Python source, at most `limit` long.

    What is cut is said with `...`, which counts towards the limit.
    """
    shown = "".join(c if c.isprintable() else _escape(c) for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: max(0, limit - 3)] + "..."


def harmless(text: str) -> str:
    """`text` of any length with its lines and tabs, and each other character that acts escaped."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

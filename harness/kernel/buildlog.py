# SPDX-License-Identifier: GPL-2.0-or-later
"""What the output of a kernel's build says: why it failed, what the compiler warned of."""

import re
from collections.abc import Iterable

from harness.text import printable

# Where make sees the source.
SOURCE = "/kernel/src/"
_FAILURES = (
    # the compiler, the linker, modpost, objtool, then make
    re.compile(r"^\S+:\d+:(\d+:)? (fatal )?error: "),
    re.compile(r"^(ld|\S+/ld): |undefined reference to|^ERROR: |: error: |^error: "),
    re.compile(r"\*\*\* |not found|No space left"),
)
_WARNING = re.compile(r"^(?P<file>[^\s:]+):(?:\d+:)?(?:\d+:)? warning: (?P<text>.*)$")
_OTHER_WARNING = re.compile(r"^(WARNING: modpost: .*|\S+: warning: objtool: .*)$")
# objtool and modpost name places by offsets, which any change moves.
_OFFSET = re.compile(r"\+?0x[0-9a-f]+")
_BOUND = 300
_MOST = 1000


def failing_line(output: str) -> str:
    """The line that says why a build failed; the last one when none does."""
    lines = [line.strip() for line in output.replace(SOURCE, "").splitlines() if line.strip()]
    for pattern in _FAILURES:
        for line in lines:
            if pattern.search(line):
                return printable(line, _BOUND)
    return printable(lines[-1] if lines else "no output", _BOUND)


def warnings(output: str) -> list[str]:
    """The warnings of a build as "file: words", each once, in order, a thousand at most."""
    found: dict[str, None] = {}
    for line in output.replace(SOURCE, "").splitlines():
        if _OTHER_WARNING.match(line):
            found[printable(_OFFSET.sub("+...", line), _BOUND)] = None
        elif match := _WARNING.match(line):
            found[printable(f"{match['file']}: {match['text']}", _BOUND)] = None
        if len(found) == _MOST:
            break
    return list(found)


def new_warnings(now: Iterable[str], before: Iterable[str]) -> list[str]:
    """Those that the base does not have; lines move, so the words alone are compared."""
    old = set(before)
    return [warning for warning in now if warning not in old]

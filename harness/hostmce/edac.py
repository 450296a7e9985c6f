# SPDX-License-Identifier: GPL-2.0-or-later
"""EDAC's counters of corrected and uncorrected memory errors, before and after."""

import re
from collections.abc import Mapping

ROOT = "/sys/devices/system/edac/mc"
# `grep . FILES` names each file before what it holds; a counter is "mc0/ue_count".
_LINE = re.compile(r"(?:.*/)?(mc\d{1,3}/(?:ce|ue)(?:_noinfo)?_count):(\d{1,19})\s*")


def read_counters(text: str) -> dict[str, int]:
    """Counters by name, out of what `grep .` prints of their files."""
    found = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[1]: int(match[2]) for match in found if match}


def counted(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """How far each counter moved; one that was reset or is new counts from 0."""
    moved = {
        name: value - before.get(name, 0) if value >= before.get(name, 0) else value
        for name, value in after.items()
    }
    return {name: by for name, by in moved.items() if by}

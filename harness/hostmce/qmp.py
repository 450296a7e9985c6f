# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU itself says of memory errors and panics: MEMORY_FAILURE and GUEST_PANICKED.

Both are in QEMU's qapi/run-state.json. QEMU gives no event when KVM ends a TD for a machine check:
then only its log has `KVM internal error` (harness.hostmce.kernel knows the host's side of it).
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from harness.text import printable

MOST_NOTES = 100
# accel/kvm and target/i386/kvm: an address of the guest's, and the end of a TD
_LOGGED = re.compile(
    r"Guest MCE Memory Error at QEMU addr 0x[0-9a-f]+ and GUEST addr 0x([0-9a-f]+)|"
    r"KVM internal error\. Suberror: \d+|extra data\[\d\]: 0x[0-9a-f]+"
)


def read_events(lines: Iterable[str]) -> list[str]:
    """Memory errors and panics among QMP events, one JSON object a line, in words."""
    notes = []
    for line in lines:
        if "MEMORY_FAILURE" not in line and "GUEST_PANICKED" not in line:
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, Mapping) and (words := _in_words(event)):
            notes.append(printable(words))
        if len(notes) == MOST_NOTES:
            break
    return notes


def _in_words(event: Mapping[str, Any]) -> str:
    data = event.get("data")
    data = data if isinstance(data, Mapping) else {}
    if event.get("event") == "MEMORY_FAILURE":
        flags = data.get("flags")
        set_ = [name for name, on in flags.items() if on] if isinstance(flags, Mapping) else []
        words = f"MEMORY_FAILURE of the {data.get('recipient')}, action {data.get('action')}"
        return f"{words} ({', '.join(set_)})" if set_ else words
    if event.get("event") == "GUEST_PANICKED":
        info = data.get("info")
        info = info if isinstance(info, Mapping) else {}
        said = "".join(
            f", {key} {info[key]}"
            for key in ("type", "error-code", "message", "gpa")
            if key in info
        )
        return f"GUEST_PANICKED, action {data.get('action')}{said}"
    return ""


def read_log(text: str) -> tuple[list[str], list[int]]:
    """What QEMU's own log says of them, and the guest-physical addresses that it names."""
    found = list(_LOGGED.finditer(text))
    notes = [printable(match[0]) for match in found[:MOST_NOTES]]
    return notes, [int(match[1], 16) for match in found[:MOST_NOTES] if match[1]]

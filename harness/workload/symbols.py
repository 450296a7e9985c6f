# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the guest's own addresses, which KASLR and the module loader have chosen.

The guest tells where the kernel and the sections of its modules lie; the names come from the file
that the image's builder left. Reading all of /proc/kallsyms would take the guest ten seconds.
"""

import json
import re
from pathlib import Path
from typing import Any

from harness.workload.runner import Agent

TIMEOUT_S = 60.0
_MOST_SECTIONS = 2000

# The first two lines are the release and the kernel's; then one a section of code.
COMMAND = (
    "uname -r; grep -m 1 ' _text$' /proc/kallsyms; cd /sys/module && grep . */sections/.*text*"
)
_ADDRESS = r"(?P<address>[0-9a-f]{8,16})"
_SECTION = re.compile(rf"(?P<module>\w{{1,64}})/sections/(?P<name>\.[\w.]{{1,64}}):0x{_ADDRESS}")


def read_symbols(agent: Agent, offsets: Path | None = None) -> dict[str, Any]:
    """What symbols.json holds; text_base is None when the guest does not tell.

    `offsets` is what image.offsets_of() names; without it the modules have no symbols. Raises what
    the agent raises.
    """
    _, output = agent.run(COMMAND, TIMEOUT_S)
    lines = [*output.splitlines(), "", ""]
    known = json.loads(offsets.read_text()) if offsets else {}
    return {
        "release": lines[0].strip()[:100],
        "text_base": _text_base(lines[1]),
        "modules": _modules(lines[2:], known),
    }


def _text_base(text: str) -> int | None:
    match = re.match(rf"{_ADDRESS} \w _text$", text.strip())
    # Without the privilege, all addresses read as zero.
    return (int(match["address"], 16) or None) if match else None


def _modules(lines: list[str], known: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines[:_MOST_SECTIONS]:
        match = _SECTION.fullmatch(line.strip())
        address = int(match["address"], 16) if match else 0
        if not match or not address:
            continue
        module = found.setdefault(match["module"], {"base": address, "symbols": {}})
        module["base"] = min(module["base"], address)
        offsets = known.get(match["module"], {}).get(match["name"], {})
        module["symbols"].update({name: address + offset for name, offset in offsets.items()})
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the guest's own addresses, which KASLR and the module loader have chosen."""

import re
from typing import Any

from harness.workload.runner import Agent

# Reading all of kallsyms takes the guest a second or two under the stub.
TIMEOUT_S = 60.0

# The symbols of modules are at the end of the table.
_LAST_LINES = 20_000
_TEXT_BASE = "grep -m 1 ' _text$' /proc/kallsyms"
_MODULES = "cat /proc/modules"
_MODULE_SYMBOLS = f"tail -n {_LAST_LINES} /proc/kallsyms | grep -F '['"

_ADDRESS = r"(?P<address>[0-9a-f]{8,16})"
_SYMBOL = re.compile(
    rf"{_ADDRESS} (?P<kind>[tTwW]) (?P<name>[\w.$]{{1,128}})\s+\[(?P<module>\w{{1,64}})\]"
)
_MODULE = re.compile(r"(?P<name>\w{1,64}) .*\b0x(?P<address>[0-9a-f]{8,16})\b.*")


def read_symbols(agent: Agent) -> dict[str, Any]:
    """What symbols.json holds; text_base is None when the guest does not tell.

    Raises what the agent raises.
    """
    _, release = agent.run("uname -r", TIMEOUT_S)
    _, text = agent.run(_TEXT_BASE, TIMEOUT_S)
    _, modules = agent.run(_MODULES, TIMEOUT_S)
    _, symbols = agent.run(_MODULE_SYMBOLS, TIMEOUT_S)
    return {
        "release": release.strip()[:100],
        "text_base": _text_base(text),
        "modules": _modules(modules, symbols),
    }


def _text_base(text: str) -> int | None:
    match = re.match(rf"{_ADDRESS} \w _text$", text.strip())
    # Without the privilege, all addresses read as zero.
    return (int(match["address"], 16) or None) if match else None


def _modules(modules: str, symbols: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in modules.splitlines():
        match = _MODULE.fullmatch(line)
        if match and int(match["address"], 16):
            found[match["name"]] = {"base": int(match["address"], 16), "symbols": {}}
    for line in symbols.splitlines()[:_LAST_LINES]:
        match = _SYMBOL.fullmatch(line.strip())
        if match and match["module"] in found:
            found[match["module"]]["symbols"][match["name"]] = int(match["address"], 16)
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""Workload steps as steps.jsonl holds them, one JSON object a line."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import EvidenceError
from harness.text import printable

MOST_STEPS = 10_000
# as guest-images/module/convert.c reports them
_CONVERSIONS = re.compile(r"^conversions=(\d{1,9})$", re.ASCII | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dma:
    """One compared transfer between a device and the guest; sizes in bytes."""

    device: str
    direction: str
    bytes: int
    mismatches: int
    first_mismatch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the workload, as far as a judge needs it. `rc` is None when it never ended."""

    name: str
    ok: bool
    rc: int | None = None
    # id of the marks around its events
    mark: int | None = None
    # last line of its output
    last_line: str = ""
    dma: tuple[Dma, ...] = ()
    # by the guest's own word
    conversions_told: int = 0
    # rules that it breaks on purpose
    expected_rules: tuple[str, ...] = ()


def parse_step(data: Mapping[str, Any]) -> Step:
    """A step out of its JSON object; raises EvidenceError when that has another form."""
    try:
        rc, mark = data.get("rc"), data.get("mark")
        output = str(data.get("output") or "")
        lines = output.rstrip().splitlines()
        return Step(
            name=printable(str(data["name"]), 100),
            ok=bool(data.get("ok", rc == 0)),
            rc=None if rc is None else int(rc),
            mark=None if mark is None else int(mark),
            last_line=printable(lines[-1]) if lines else "",
            dma=tuple(_parse_dma(entry) for entry in data.get("dma") or ()),
            conversions_told=sum(map(int, _CONVERSIONS.findall(output))),
            expected_rules=tuple(str(rule) for rule in data.get("expected_rules") or ()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvidenceError(f"a workload step has another form than expected: {error!r}") from error


def _parse_dma(data: Mapping[str, Any]) -> Dma:
    first = data.get("first_mismatch")
    return Dma(
        device=printable(str(data["device"]), 40),
        direction=printable(str(data["direction"]), 40),
        bytes=int(data["bytes"]),
        mismatches=int(data["mismatches"]),
        first_mismatch=None if first is None else int(first),
    )


def parse_steps(lines: Iterable[str]) -> tuple[Step, ...]:
    """All steps of a steps.jsonl; raises EvidenceError for a line that is none, or for too many."""
    steps: list[Step] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvidenceError(f"line {number} of the workload's steps is no JSON") from error
        if not isinstance(data, dict) or len(steps) == MOST_STEPS:
            raise EvidenceError(f"line {number} of the workload's steps is no step")
        steps.append(parse_step(data))
    return tuple(steps)

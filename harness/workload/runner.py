# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a step in a guest, between its marks, and writes down how it ended."""

import re
import time
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import HarnessError
from harness.rundir import RunDir
from harness.workload.plan import Step

OUTPUT_MAX = 64 * 1024
_DMA_LINES_MAX = 100

# The guest's exit status when a mark could not be set; no command of ours ends with it.
MARK_FAILED = 201

_DMA = re.compile(
    r"dma device=(?P<device>[\w/-]{1,40}) direction=(?P<direction>to-device|from-device)"
    r"(?: method=(?P<method>\w{1,20}))? bytes=(?P<bytes>\d{1,15})"
    r" mismatches=(?P<mismatches>\d{1,15}) first=(?P<first>none|\d{1,15})",
    re.ASCII,
)


class Agent(Protocol):
    """The guest's end of a conversation (harness.agent)."""

    def run(self, command: str, timeout_s: float) -> tuple[int, str]:
        """Exit status and output of a shell command; GuestError when it does not end in time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How a step ended: a line of steps.jsonl."""

    step: Step
    # None where the guest has no module to set marks with
    mark: int | None
    # None when the command did not end
    rc: int | None
    ok: bool
    output: str
    seconds: float
    dma: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The line, as harness.steps reads it."""
        return {
            "name": self.step.name,
            "mark": self.mark,
            "argv": self.step.command,
            "rc": self.rc,
            "ok": self.ok,
            "output": self.output,
            "seconds": round(self.seconds, 3),
            "dma": list(self.dma),
            "expected_rules": list(self.step.expected_rules),
        }


def run_step(agent: Agent, step: Step, run_dir: RunDir, *, mark: int | None) -> Record:
    """Run one step between marks, or without when `mark` is None; one line of steps.jsonl.

    A step that fails is data. Raises what the agent raises when the command does not end or the
    guest is lost; the line is written before.
    """
    start_s = time.monotonic()
    try:
        rc, output = agent.run(marked(step.command, mark), step.timeout_s)
    except HarnessError as error:
        record = _record(step, mark, None, error.message, time.monotonic() - start_s)
        run_dir.append_step(record.to_json())
        raise
    record = _record(step, mark, rc, output, time.monotonic() - start_s)
    run_dir.append_step(record.to_json())
    return record


def marked(command: str, mark: int | None) -> str:
    """The command with its marks around it, as one line, so that it is one round trip."""
    if mark is None:
        return command
    begin, end = (f"tdh mark kind={kind} id={mark} >/dev/null" for kind in (1, 2))
    failed = f"{{ echo 'the mark could not be set'; exit {MARK_FAILED}; }}"
    return f"{begin} || {failed}; ( {command} ); rc=$?; {end} || {failed}; exit $rc"


def _record(step: Step, mark: int | None, rc: int | None, output: str, seconds: float) -> Record:
    ended_right = rc is not None and rc != MARK_FAILED and (rc != 0) == step.must_fail
    return Record(
        step=step,
        mark=mark,
        rc=rc,
        ok=ended_right,
        output=bounded(output),
        seconds=seconds,
        dma=parse_dma(output),
    )


def bounded(output: str, limit: int = OUTPUT_MAX) -> str:
    """Head and tail of what is longer than `limit` bytes of UTF-8, with a word about the gap."""
    data = output.encode(errors="surrogatepass")
    if len(data) <= limit:
        return output
    gap = f"\n... {len(data) - limit} bytes left out ...\n"
    tail = limit // 4
    head = limit - tail - len(gap) - 12
    first, last = data[:head], data[len(data) - tail :]
    return first.decode(errors="replace") + gap + last.decode(errors="replace")


def parse_dma(output: str) -> tuple[dict[str, Any], ...]:
    """The compared transfers that a step reports, as steps.jsonl holds them."""
    found: list[dict[str, Any]] = []
    for line in output.splitlines():
        match = _DMA.fullmatch(line.strip())
        if match and len(found) < _DMA_LINES_MAX:
            first = match["first"]
            found.append(
                {
                    "device": match["device"],
                    "direction": match["direction"],
                    "method": match["method"],
                    "bytes": int(match["bytes"]),
                    "mismatches": int(match["mismatches"]),
                    "first_mismatch": None if first == "none" else int(first),
                }
            )
    return tuple(found)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A workload that the guest runs by itself: its commands as a script, and what it answered.

Commands that the host sends arrive at a moment that no two runs share. The script is in the image
instead, in the form in which the guest's agent reads commands, and the answers are read when all is
over (guest-images/initramfs/agent has the protocol).
"""

from collections.abc import Sequence

from harness.agent import MOST_OUTPUT_BYTES, OUTPUT_CUT, AgentResult
from harness.errors import GuestError
from harness.text import printable
from harness.workload.plan import Step
from harness.workload.runner import marked
from harness.workload.symbols import COMMAND

MOST_TRANSCRIPT_BYTES = 64 << 20


def commands_of(steps: Sequence[Step]) -> list[str]:
    """What a session would have sent for these steps, marked as marks_of() says."""
    pairs = zip(steps, marks_of(steps), strict=True)
    return [COMMAND, *(marked(step.command, mark) for step, mark in pairs)]


def marks_of(steps: Sequence[Step]) -> list[int]:
    """The steps' own marks; the others count from 1 on."""
    return [number if step.mark is None else step.mark for number, step in enumerate(steps, 1)]


def script_of(commands: Sequence[str]) -> bytes:
    """The agent's input: each command behind its number."""
    return "".join(f"{i} {command}\n" for i, command in enumerate(commands, 1)).encode()


class Answers:
    """An agent (harness.workload.Agent) that has its answers already, in the order of a script."""

    def __init__(self, commands: Sequence[str], transcript: bytes) -> None:
        self._commands = list(commands)
        self._results = parse_transcript(transcript)
        self._next = 1

    def run(self, command: str, timeout_s: float) -> AgentResult:
        """The answer to the script's next command.

        Raises GuestError when the guest did not live to give it.
        """
        number, self._next = self._next, self._next + 1
        assert self._commands[number - 1] == command
        if number not in self._results:
            raise GuestError(f"the guest's script never ended {printable(command, 80)!r}")
        return self._results[number]


def parse_transcript(data: bytes) -> dict[int, AgentResult]:
    """Results by number, of those commands that ended; other lines are dropped."""
    results: dict[int, AgentResult] = {}
    output: dict[str, list[str]] = {}
    size = 0
    for line in data.decode(errors="replace").split("\n"):
        head, _, rest = line.partition(" ")
        mark, _, text = rest.partition(" ")
        if mark == "|":
            if size <= MOST_OUTPUT_BYTES:
                size += len(text) + 1
                lines = output.setdefault(head, [])
                lines.append(text + "\n" if size <= MOST_OUTPUT_BYTES else OUTPUT_CUT)
        elif mark == "=" and _is_number(head) and _is_number(text.strip()):
            results[int(head)] = AgentResult(int(text), "".join(output.pop(head, [])))
            size = 0
    return results


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10

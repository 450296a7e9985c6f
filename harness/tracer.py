# SPDX-License-Identifier: GPL-2.0-or-later
"""Has a guest trace its own conversions, and brings the trace here (harness.guesttrace)."""

import re
from pathlib import Path

from harness.errors import GuestError
from harness.guesttrace.probes import probes_of
from harness.rundir import RunDir, writing
from harness.symbols import read_kernel
from harness.workload import Agent

_FILE = "/sys/kernel/debug/tdharness/trace"
_TIMEOUT_S = 60.0
# The module's answers that a trace begins with; the rest of its words are for people.
_ANSWER = re.compile(r"(?m)^(?:probe=[a-z-]+ at=[\w.+]+ error=-?\d+|cpus=[\d,-]+)$", re.ASCII)
# An optimised probe is a jump: its handler can be interrupted, and then misses the interrupt's.
_UNOPTIMISED = "echo 0 2>/dev/null >/proc/sys/debug/kprobes-optimization"


class Tracer:
    """The trace of one run; a second kernel in the guest continues it."""

    def __init__(self, image: Path, run: RunDir, slowness: float) -> None:
        self._image = image
        self._run = run
        self._timeout_s = _TIMEOUT_S * slowness
        self._is_on = False

    def begin(self, agent: Agent) -> None:
        """Put the probes into the kernel that has just booted.

        What it refuses is noted in the trace, and the judge told so. Raises as the agent does.
        """
        kernel = read_kernel(self._image.read_bytes(), None)
        commands = [probe.command for probe in (probes_of(kernel) if kernel else ())]
        _, said = agent.run("; ".join([_UNOPTIMISED, *commands, "true"]), self._timeout_s)
        refused, last = agent.run(f"tdh trace && test -r {_FILE}", self._timeout_s)
        self._is_on = refused == 0
        self._append("".join(f"{answer}\n" for answer in _ANSWER.findall(said + last)))

    def collect(self, agent: Agent) -> None:
        """Append what was traced since. Raises as the agent does, and GuestError."""
        if not self._is_on:
            return
        failed, said = agent.run(f"cat {_FILE}", self._timeout_s)
        if failed:
            raise GuestError(f"the guest's trace cannot be read: cat ended with {failed}")
        self._append(said)

    def _append(self, text: str) -> None:
        with writing(self._run.trace), self._run.trace.open("a", encoding="utf-8") as file:
            file.write(text)

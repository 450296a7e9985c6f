# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest is made to do, as data, and the one that makes it."""

from harness.workload.plan import (
    NORMAL,
    WORKLOADS,
    Step,
    injected_steps,
    misbehaviour_steps,
    steps_for,
)
from harness.workload.runner import Agent, Record, run_step
from harness.workload.script import (
    MOST_TRANSCRIPT_BYTES,
    Answers,
    commands_of,
    marks_of,
    script_of,
)
from harness.workload.symbols import read_symbols

__all__ = [
    "MOST_TRANSCRIPT_BYTES",
    "NORMAL",
    "WORKLOADS",
    "Agent",
    "Answers",
    "Record",
    "Step",
    "commands_of",
    "injected_steps",
    "marks_of",
    "misbehaviour_steps",
    "read_symbols",
    "run_step",
    "script_of",
    "steps_for",
]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a report shows, read from a run directory.

A report is wanted most when a run went wrong, so whatever is missing or broken becomes a note in
the report and never an exception.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from harness.conversions import Conversion, conversions
from harness.errors import EvidenceError
from harness.events import Stream
from harness.evidence import Evidence
from harness.evidence import load as load_evidence
from harness.rundir import RunDir
from harness.steps import Step, parse_step
from harness.verdict import Verdict

T = TypeVar("T")

HEAD_BYTES = 96 * 1024
TAIL_BYTES = 160 * 1024
MOST_JSON_BYTES = 16 * 1024 * 1024
MOST_STEPS = 1000
MOST_FINDINGS = 200
# Faults that are named one by one.
MOST_INJECTED = 4
# Where conversions outside all steps are said to be: before the first step, and after.
OUTSIDE = ("boot", "between steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A text file's head and tail; `cut` bytes with `cut_lines` newlines between are left out."""

    name: str
    head: str
    tail: str = ""
    cut: int = 0
    cut_lines: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownStep:
    """A workload step with what only its reader wants."""

    step: Step
    argv: str
    output: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything that the text and the HTML report are made of."""

    path: Path
    verdict: Verdict
    conversions: tuple[Conversion, ...] = ()
    stream: Stream | None = None
    run: dict[str, Any] = field(default_factory=dict)
    steps: tuple[ShownStep, ...] = ()
    logs: tuple[Log, ...] = ()
    # QEMU's command line, pasteable
    argv: str = ""
    # what to know of the run, and what could not be read, one sentence each
    notes: tuple[str, ...] = ()


def load(run: RunDir, verdict: Verdict, evidence: Evidence | None = None) -> RunReport:
    """Gather a report's matter; `evidence` saves loading it again. Never raises."""
    known = evidence or load_evidence(run)
    notes = _injected(known)
    notes += known.host.sentences if known.host else ()
    logs = [_or_note(notes, path, read_log, None) for path in (run.console_log, run.qemu_log)]
    return RunReport(
        path=run.path,
        verdict=verdict,
        conversions=tuple(_placed(conversions(known.events, known.symbols, known.steps))),
        stream=known.stream,
        run=_or_note(notes, run.run_json, _read_object, {}),
        steps=_or_note(notes, run.steps, lambda p: _read_steps(p, notes), ()),
        logs=tuple(log for log in logs if log),
        argv=_or_note(notes, run.argv, lambda p: p.read_text(errors="replace"), ""),
        notes=tuple(notes),
    )


def _injected(evidence: Evidence) -> list[str]:
    """What the stub was told to do wrong, so that no one takes its findings for the kernel's."""
    injected = evidence.injections
    if len(injected) > MOST_INJECTED:
        return [f"The stub was told to ignore {len(injected)} different things, one by one."]
    return [
        f"The stub was told to ignore something: {one.fault.what} ({one.fault.name})."
        for one in injected
    ]


def _or_note(notes: list[str], path: Path, read: Callable[[Path], T], otherwise: T) -> T:
    try:
        return read(path)
    except FileNotFoundError:
        notes.append(f"The run left no file {path.name}.")
    except (OSError, ValueError, RecursionError, EvidenceError) as error:
        notes.append(f"The file {path.name} could not be read: {error}.")
    return otherwise


def read_log(path: Path) -> Log:
    """A log's head and tail, cut at ends of line; raises OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES + TAIL_BYTES + 1)
        if len(head) <= HEAD_BYTES + TAIL_BYTES:
            return Log(name=path.name, head=head.decode("utf-8", "replace"))
        keep = head[: head.rfind(b"\n", 0, HEAD_BYTES) + 1] or head[:HEAD_BYTES]
        size = file.seek(0, 2)
        file.seek(size - TAIL_BYTES)
        tail = file.read()
        tail = tail[tail.find(b"\n") + 1 :]
        cut = size - len(keep) - len(tail)
        file.seek(len(keep))
        cut_lines = 0
        for left in range(cut, 0, -(1 << 20)):
            cut_lines += file.read(min(left, 1 << 20)).count(b"\n")
    return Log(
        name=path.name,
        head=keep.decode("utf-8", "replace"),
        tail=tail.decode("utf-8", "replace"),
        cut=cut,
        cut_lines=cut_lines,
    )


def _read_object(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = json.loads(file.read(MOST_JSON_BYTES))
    if not isinstance(data, dict):
        raise ValueError("it holds no JSON object")
    return data


def _read_steps(path: Path, notes: list[str]) -> tuple[ShownStep, ...]:
    with path.open("rb") as file:
        lines = file.read(MOST_JSON_BYTES).splitlines()
    steps: list[ShownStep] = []
    broken: list[int] = []
    for number, line in enumerate(lines[:MOST_STEPS], 1):
        try:
            steps.append(_step(json.loads(line)))
        except (ValueError, TypeError, AttributeError, RecursionError, EvidenceError):
            broken.append(number)
    if broken:
        notes.append(
            f"{len(broken)} of {len(lines)} lines of {path.name} hold no step, line {broken[0]} "
            "first: the file may be cut short."
        )
    if len(lines) > MOST_STEPS:
        notes.append(f"{len(lines) - MOST_STEPS} steps beyond the first {MOST_STEPS} are left out.")
    return tuple(steps)


def _step(data: dict[str, Any]) -> ShownStep:
    return ShownStep(
        step=parse_step(data),
        argv=str(data.get("argv") or ""),
        output=str(data.get("output") or ""),
        seconds=float(data.get("seconds") or 0),
    )


def _placed(found: Sequence[Conversion]) -> Iterator[Conversion]:
    """Conversions outside all steps get a name for where they are."""
    outside, later = OUTSIDE
    for conversion in found:
        if conversion.step:
            outside = later
        yield conversion if conversion.step else replace(conversion, step=outside)

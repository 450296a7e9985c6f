# SPDX-License-Identifier: GPL-2.0-or-later
"""Measurements: interleaved runs, medians, and ratios; nothing is asserted.

Times of a shared machine move together, so each round measures every variant once, and a ratio is
taken within a round before the median over rounds is.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from harness import proc
from harness.errors import GuestError
from harness.machine.qemu import QemuMachine
from harness.plan import Plan
from harness.prepare import Request, prepare
from harness.rundir import RunDir
from harness.session import USER_SPACE, Progress, user_space_s
from harness.timeouts import Deadline

_BOOT_TIMEOUT_S = 300.0
_RUN_TIMEOUT_S = 600.0
# The baseline first: ratios are against it.
VARIANTS = ("plain TCG", "stub, no tracking", "stub, full tracking")


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one variant over the rounds, in seconds."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.seconds)

    def ratio_to(self, base: "Series") -> float:
        """Median over the rounds of the ratio within a round."""
        pairs = zip(self.seconds, base.seconds, strict=True)
        return statistics.median(own / other for own, other in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What bench() measured; seconds."""

    kernel: str
    smp: int
    rounds: int
    # exec of QEMU to the first line of user space
    boots: tuple[Series, ...]
    # start of the command to exec of QEMU, QEMU's end to the verdict, the workload in between
    run: tuple[Series, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        base = self.boots[0]
        return {
            "kernel": self.kernel,
            "smp": self.smp,
            "rounds": self.rounds,
            "boot_s": {s.name: list(s.seconds) for s in self.boots},
            "boot_ratio": {s.name: s.ratio_to(base) for s in self.boots},
            "run_s": {s.name: list(s.seconds) for s in self.run},
        }


def bench(request: Request, rounds: int, runs: Path, progress: Progress) -> Result:
    """Measure boots of every variant, interleaved, and whole runs. Raises HarnessError."""
    stub = prepare(replace(request, td_mode="stub"), progress)
    plans = (
        replace(stub, spec=replace(stub.spec, td_mode="none")),
        replace(stub, spec=replace(stub.spec, track=False)),
        stub,
    )
    boots: dict[str, list[float]] = {name: [] for name in VARIANTS}
    whole: list[dict[str, float]] = []
    for number in range(1, rounds + 1):
        for name, plan in zip(VARIANTS, plans, strict=True):
            progress(f"round {number} of {rounds}: boot, {name}")
            boots[name].append(boot_s(plan, runs))
        progress(f"round {number} of {rounds}: a whole run")
        whole.append(_whole_run(request, runs))
    return Result(
        kernel=stub.kernel.release,
        smp=request.smp,
        rounds=rounds,
        boots=tuple(Series(name, tuple(boots[name])) for name in VARIANTS),
        run=tuple(Series(name, tuple(r[name] for r in whole)) for name in whole[0]),
    )


def boot_s(plan: Plan, runs: Path) -> float:
    """Seconds from QEMU's exec to the kernel's first line about user space."""
    machine = QemuMachine(plan.spec, plan.qemu, RunDir.create(runs, "bench"))
    deadline = Deadline(_BOOT_TIMEOUT_S)
    try:
        machine.start()
        machine.console.wait_for(USER_SPACE, "user space", deadline.left_s(), machine.alive)
        return deadline.elapsed_s()
    finally:
        machine.stop()


def _whole_run(request: Request, runs: Path) -> dict[str, float]:
    """Times of one `tdharness run`, from outside."""
    argv = [sys.executable, "-m", "harness.cli", "run", "--json", "--runs", str(runs)]
    start_unix_s = time.time()
    result = proc.run([*argv, *request.words()], timeout_s=_RUN_TIMEOUT_S, check=False)
    end_unix_s = time.time()
    run = RunDir.open(Path(json.loads(result.stdout)["run"]))
    timings: Mapping[str, float] = json.loads(run.run_json.read_text())["timings"]
    if "workload_s" not in timings:
        raise GuestError("a run did not come to its end, so it has no times", log=run.console_log)
    return {
        "command to QEMU": timings["exec_unix_s"] - start_unix_s,
        "boot to agent": timings["boot_s"],
        "workload": timings["workload_s"],
        "QEMU's end to verdict": end_unix_s - timings["end_unix_s"],
        "kernel start to user space": user_space_s(run.console_log) or float("nan"),
    }


def render(result: Result) -> Table:
    """The figures as a table."""
    table = Table(
        title=f"{result.kernel}, {result.smp} vCPUs, {result.rounds} interleaved rounds",
        title_justify="left",
    )
    for name in ("what", "median", "least", "most", "ratio"):
        table.add_column(name, justify="left" if name == "what" else "right")
    base = result.boots[0]
    for series in result.boots:
        _add(table, f"boot, {series.name}", series, f"{series.ratio_to(base):.2f}")
    for series in result.run:
        _add(table, series.name, series, "")
    return table


def _add(table: Table, name: str, series: Series, ratio: str) -> None:
    figures: Sequence[float] = (series.median_s, min(series.seconds), max(series.seconds))
    table.add_row(name, *(f"{figure:.2f} s" for figure in figures), ratio)

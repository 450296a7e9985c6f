# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix of clean kernels: many boots of kernels without a known fault, which trip no rule.

A rule may fail a kernel only as long as this matrix stays silent. Its rows are kept, one JSON
object a line, so that a long matrix can be interrupted and gone on with.
"""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.errors import ConfigError, EvidenceError, ExitCode
from harness.job import carry_out
from harness.judge import judge
from harness.machine.base import check_size
from harness.plan import Plan
from harness.prepare import Request, prepare
from harness.rundir import RunDir, writing
from harness.session import Progress
from harness.verdict import Finding, Outcome, Severity, Verdict, worst
from harness.workload import NORMAL, steps_for

KERNELS = ("stock", "stock:7")
# vCPUs and MiB: every number of vCPUs, and from the least to the most memory.
SIZES = ((1, 512), (2, 1024), (4, 2048), (8, 6144))
RESULTS = "clean.jsonl"
_SUMMARIES = 5
_COUNTED = ("conversions", "conversions_to_shared", "pte_changes", "lines_flushed", "accepts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kernel on one size of guest. Two cells are the same only with the same bytes of kernel
    image and plugin."""

    kernel: str
    release: str
    image: str
    plugin: str
    smp: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A row: one boot with the whole workload, and what was judged in it."""

    cell: Cell
    outcome: str
    reason: str
    seconds: float
    # conversions, PTE changes and so on that the rules looked at
    counts: dict[str, int]
    # findings by rule and severity, "redundant-flush report"
    findings: dict[str, int]
    # the first few that fail, in words
    failures: tuple[str, ...]
    # of the run directory, kept unless the outcome is PASS
    run: str

    def to_json(self) -> dict[str, Any]:
        """A line of the results."""
        return asdict(self)


def parse_sizes(words: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Sizes from words such as "2x1024". Raises ConfigError."""
    sizes = []
    for word in words:
        smp, _, memory = word.partition("x")
        if not (smp.isdecimal() and memory.isdecimal()):
            raise ConfigError(f"{word!r} is no size", hint="say vCPUs and MiB, such as 2x1024")
        check_size(int(smp), int(memory))
        sizes.append((int(smp), int(memory)))
    return tuple(sizes)


def boot_of(cell: Cell, verdict: Verdict, seconds: float, run: str) -> Boot:
    """The row of a boot."""
    failing = [f for f in verdict.findings if f.severity is Severity.FAIL]
    return Boot(
        cell=cell,
        outcome=verdict.outcome.value,
        reason=verdict.reason,
        seconds=round(seconds, 1),
        counts={name: verdict.counts.get(name, 0) for name in _COUNTED},
        findings=dict(Counter(_kind(f) for f in verdict.findings)),
        failures=tuple(f.summary for f in failing[:_SUMMARIES]),
        run=run,
    )


def _kind(finding: Finding) -> str:
    return " ".join(filter(None, (finding.rule, finding.evidence, finding.severity.value)))


def parse_boots(lines: Iterable[str]) -> list[Boot]:
    """The rows of an earlier matrix. Raises EvidenceError for a line that is none."""
    boots = []
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            cell = Cell(**data.pop("cell"))
            boots.append(Boot(cell=cell, **{**data, "failures": tuple(data["failures"])}))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EvidenceError(f"line {number} of the matrix is no row of one: {error}") from error
    return boots


def missing(cells: Sequence[Cell], boots: Sequence[Boot], wanted: int) -> list[Cell]:
    """The cells to boot, once for each boot that is missing, each round over all of them."""
    had = Counter(boot.cell for boot in boots)
    return [cell for round_ in range(wanted) for cell in cells if had[cell] <= round_]


def exit_code(boots: Sequence[Boot]) -> ExitCode:
    """The worst of the rows."""
    return worst(Outcome(boot.outcome) for boot in boots).exit_code


def clean(
    kernels: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    boots: int,
    runs: Path,
    progress: Progress,
) -> list[Boot]:
    """Boot what is missing in the matrix; all rows of these cells, old and new.

    Raises HarnessError.
    """
    results = runs / RESULTS
    rows = parse_boots(results.read_text().splitlines()) if results.is_file() else []
    plans = {}
    for kernel in kernels:
        for smp, memory in sizes:
            plan = prepare(Request(kernel=kernel, smp=smp, memory_mib=memory), lambda _: None)
            plans[_cell(kernel, plan)] = plan
    todo = missing(list(plans), rows, boots)
    for number, cell in enumerate(todo, 1):
        progress(f"{number}/{len(todo)}: {cell.kernel}, {cell.smp} vCPUs, {cell.memory_mib} MiB")
        row = _boot(cell, plans[cell], runs)
        rows.append(row)
        with writing(results), results.open("a") as file:
            file.write(json.dumps(row.to_json()) + "\n")
    return [row for row in rows if row.cell in plans]


def _cell(kernel: str, plan: Plan) -> Cell:
    return Cell(
        kernel=kernel,
        release=plan.kernel.release,
        image=hashlib.sha256(plan.spec.kernel.read_bytes()).hexdigest()[:16],
        plugin=plan.spec.plugin.stem if plan.spec.plugin else "",
        smp=plan.spec.smp,
        memory_mib=plan.spec.memory_mib,
    )


def _boot(cell: Cell, plan: Plan, runs: Path) -> Boot:
    start_s = time.monotonic()
    steps = steps_for(NORMAL, cpus=cell.smp)
    run: RunDir = carry_out(plan, steps, runs, lambda _: None)
    verdict = judge(run)
    row = boot_of(cell, verdict, time.monotonic() - start_s, str(run.path))
    if verdict.outcome is Outcome.PASS:
        shutil.rmtree(run.path)
    return row


def render(boots: Sequence[Boot]) -> Table:
    """One line a cell."""
    table = Table(title="clean kernels", title_justify="left")
    for name in ("kernel", "vCPUs", "MiB", "boots", "not PASS", "conversions", "PTE changes"):
        table.add_column(name, justify="left" if name == "kernel" else "right")
    table.add_column("findings")
    cells: dict[tuple[str, int, int], list[Boot]] = {}
    for boot in boots:
        key = (boot.cell.release, boot.cell.smp, boot.cell.memory_mib)
        cells.setdefault(key, []).append(boot)
    for (release, smp, memory), rows in sorted(cells.items()):
        found = sum((Counter(row.findings) for row in rows), Counter[str]())
        table.add_row(
            release,
            str(smp),
            str(memory),
            str(len(rows)),
            str(sum(row.outcome != Outcome.PASS.value for row in rows)),
            f"{sum(row.counts['conversions'] for row in rows):,}",
            f"{sum(row.counts['pte_changes'] for row in rows):,}",
            ", ".join(f"{kind} x{count}" for kind, count in sorted(found.items())) or "none",
        )
    return table

# SPDX-License-Identifier: GPL-2.0-or-later
"""One self-contained HTML file per run: no script, no request to anywhere.

Guest text passes two gates: `visible` (every string that a template prints, by `finalize`) and
jinja's autoescape.
"""

import functools
import os
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from harness.report import fold, logview, memory, timeline, words
from harness.report.model import MOST_FINDINGS, RunReport
from harness.report.visible import visible, visible_lines
from harness.rules.table import RULES
from harness.rundir import put
from harness.verdict import Finding, Outcome

_HERE = Path(__file__).parent
MOST_ROWS = 1500
MOST_OUTPUT_LINES = 400
# Longest string printed anywhere; logs and outputs come as lines.
MOST_CHARACTERS = 2000


def _finalize(value: object) -> object:
    if isinstance(value, Markup):
        return value
    return visible(value, MOST_CHARACTERS) if isinstance(value, str) else value


@functools.cache
def template(name: str = "report.html.j2") -> Template:
    """A template, compiled; the first call takes a quarter of a second."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=words.size, number=words.number, address=words.address, lines=_output
    )
    return environment.get_template(name)


def styles(*names: str) -> Markup:
    """Style sheets of this directory, to be put into a page as they are."""
    texts = ((_HERE / f"{name}.css").read_text(encoding="utf-8") for name in ("report", *names))
    return Markup("\n".join(texts))


def _output(text: str) -> list[str]:
    lines = visible_lines(text, logview.LINE_CHARACTERS)
    left = len(lines) - MOST_OUTPUT_LINES
    return [*lines[:MOST_OUTPUT_LINES], f"\u2026 {left:,} more lines"] if left > 0 else lines


def _facts(report: RunReport) -> list[tuple[str, str]]:
    """What ran, as label and value; what run.json does not say is left out."""
    run = report.run
    kernel, qemu = _object(run.get("kernel")), _object(run.get("qemu"))
    memory_mib = run.get("memory_mib")
    facts = {
        "Kernel": kernel.get("release"),
        "Image": kernel.get("image"),
        "Scenario": run.get("scenario"),
        "TD mode": run.get("td_mode"),
        "vCPUs": run.get("smp"),
        "Memory": words.size(memory_mib << 20) if isinstance(memory_mib, int) else None,
        "QEMU": qemu.get("version"),
        "Plugin": run.get("plugin"),
        "Command line": run.get("cmdline"),
        "Run directory": os.fspath(report.path),
    }
    return [(label, str(value)) for label, value in facts.items() if value not in (None, "")]


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _timings(report: RunReport) -> list[tuple[str, str]]:
    """Durations; moments of the clock are for programs."""
    timings = _object(report.run.get("timings"))
    return [
        (name.removesuffix("_s").replace("_", " "), f"{value:.1f} s")
        for name, value in timings.items()
        if isinstance(value, int | float) and "unix" not in name
    ]


def _strips(report: RunReport) -> list[memory.Strip]:
    if report.stream is None:
        return []
    return [memory.strip(region) for region in memory.regions(report.stream)]


def _hot_lines(findings: tuple[Finding, ...]) -> frozenset[int]:
    return frozenset(f.seq for f in findings if f.rule == "kernel-log" and f.seq is not None)


def _context(report: RunReport) -> dict[str, Any]:
    verdict, conversions = report.verdict, report.conversions
    hot = _hot_lines(verdict.findings)
    shown = list(enumerate(verdict.findings[:MOST_FINDINGS], 1))
    return {
        "report": report,
        "verdict": verdict,
        "headline": words.headline(verdict),
        "tiles": words.main_counts(verdict),
        "facts": _facts(report),
        "timings": _timings(report),
        "run_notes": [str(note) for note in report.run.get("outcome_notes") or ()],
        "notes": list(report.notes),
        "quoted_path": shlex.quote(os.fspath(report.path)),
        "has_reproduce": (report.path / "reproduce").is_file(),
        "findings": [(n, f) for n, f in shown if words.kind(f) != "planted"],
        "planted": [(n, f) for n, f in shown if words.kind(f) == "planted"],
        "more_findings": max(0, len(verdict.findings) - MOST_FINDINGS),
        "by_rule": words.by_rule(verdict.findings),
        "chart": timeline.timeline(report),
        "strips": _strips(report),
        "rows": fold.fold(conversions)[:MOST_ROWS],
        "all_rows": fold.fold(conversions[:MOST_ROWS], alike=False),
        "more_rows": max(0, len(conversions) - MOST_ROWS),
        "logs": [logview.view(log, hot) for log in report.logs],
    }


def render(report: RunReport) -> str:
    """The report as HTML text."""
    return template().render(
        _context(report),
        css=styles(),
        rules=RULES,
        detail=words.detail,
        kind=words.kind,
        line_ranges=words.line_ranges,
        place_name=words.place_name,
        chart_width=timeline.WIDTH,
        chart_half=timeline.HALF,
        columns=memory.COLUMNS,
        Outcome=Outcome,
    )


def write(report: RunReport, path: Path) -> Path:
    """Write the report so that a reader sees the old file or the new one, never a half."""
    put(path, render(report).encode("utf-8", "backslashreplace"))
    return path

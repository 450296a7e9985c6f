# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a command: judge a run, write its report, print what a person wants to know."""

import json

from harness.evidence import load
from harness.judge import judge
from harness.report import html, model, text
from harness.rundir import RunDir
from harness.verdict import Verdict


def conclude(
    run: RunDir, *, strict: bool, as_json: bool, every: bool, by_trace: bool = False
) -> Verdict:
    """Judge, write the report, print; `every` prints what is otherwise folded.

    A verdict `by_trace` is a second opinion: it is printed, and the run keeps its own.
    """
    evidence = load(run, by_trace=by_trace)
    verdict = judge(run, strict, evidence, write=not by_trace)
    report = model.load(run, verdict, evidence)
    if not by_trace:
        html.write(report, run.report_html)
    if as_json:
        print(json.dumps({**verdict.to_json(), "run": str(run.path)}, indent=2))
    else:
        text.print_report(report, text.console(), every=every)
    return verdict

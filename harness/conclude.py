# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a command: judge a run, write its report, print what a person wants to know."""

import json

from harness.judge import judge, load
from harness.report import html, model, text
from harness.rundir import RunDir
from harness.verdict import Verdict


def conclude(run: RunDir, *, strict: bool, as_json: bool, every: bool) -> Verdict:
    """Judge, write the report, print; `every` prints what is otherwise folded."""
    evidence = load(run)
    verdict = judge(run, strict, evidence)
    report = model.load(run, verdict, evidence)
    html.write(report, run.report_html)
    if as_json:
        print(json.dumps({**verdict.to_json(), "run": str(run.path)}, indent=2))
    else:
        text.print_report(report, text.console(), every=every)
    return verdict

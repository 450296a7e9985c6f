# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that boot many guests."""

import argparse
import datetime
import json

from harness.commands.request import request_of
from harness.errors import ExitCode
from harness.progress import Progress
from harness.workload import NORMAL


def clean(arguments: argparse.Namespace) -> ExitCode:
    """Boot clean kernels, which must trip nothing."""
    from harness import clean as matrix
    from harness.report import text

    sizes = matrix.parse_sizes(arguments.size) if arguments.size else matrix.SIZES
    kernels = arguments.kernel or matrix.KERNELS
    with Progress() as progress:
        boots = matrix.clean(kernels, sizes, arguments.boots, arguments.runs, progress.say)
    if arguments.json:
        print(json.dumps([boot.to_json() for boot in boots], indent=2))
    else:
        text.console().print(matrix.render(boots))
    return matrix.exit_code(boots)


def mutate(arguments: argparse.Namespace) -> ExitCode:
    """Plant faults, and print the score."""
    from harness import mutate as trying
    from harness import scoretable
    from harness.report import text

    rows = []
    with Progress() as progress:
        lab = trying.Laboratory(
            guest=request_of(arguments),
            runs=arguments.runs,
            progress=progress.say,
            by_trace=arguments.by_trace,
        )
        groups = arguments.group or (trying.PATCHED if lab.by_trace else trying.GROUPS)
        tried = trying.mutate(lab, groups, arguments.patches, arguments.config, arguments.boots)
        for row in tried:
            rows.append(row)
            progress.say(f"{row.group} {row.name}: {scoretable.word_of(row)}")
    if arguments.json:
        print(json.dumps([row.to_json() for row in rows], indent=2))
    else:
        text.console().print(scoretable.render(rows))
    return ExitCode.PASS if rows and all(row.caught for row in rows) else ExitCode.FINDINGS


def nightly(arguments: argparse.Namespace) -> ExitCode:
    """Run a night."""
    from harness.export.mail import mail
    from harness.nightly.config import read_config
    from harness.nightly.night import run_night, was_cut_short

    config = read_config(arguments.file)
    if arguments.unfinished:
        cut_short = was_cut_short(config, arguments.runs)
        print("a night was cut short" if cut_short else "no night was cut short")
        return ExitCode.PASS if cut_short else ExitCode.FINDINGS
    with Progress() as progress:
        ended = run_night(config, arguments.runs, progress.say)
    print(mail(ended.night, ended.before), end="")
    for note in ended.notes:
        print(f"note: {note}")
    print(f"page: {ended.page}")
    return ended.exit_code


def series(arguments: argparse.Namespace) -> ExitCode:
    """Try a patch series."""
    from harness.report import text
    from harness.series import show
    from harness.series.issues import Issues, issues_of
    from harness.series.read import read_series
    from harness.series.review import review
    from harness.series.trial import trial_of

    patches = read_series(arguments.series)
    issues = Issues(
        issues=issues_of(arguments.series, arguments.known),
        base=arguments.base,
        today=datetime.datetime.now(datetime.UTC).date(),
    )
    with Progress() as progress:
        trial = trial_of(
            patches,
            arguments.base,
            arguments.config,
            request_of(arguments),
            tuple(arguments.workload or NORMAL),
            arguments.runs,
            progress.say,
        )
        found = review(trial, each=arguments.each, search=arguments.bisect, issues=issues)
    data = show.to_json(patches, found)
    (trial.place / "series.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    if arguments.json:
        print(json.dumps(data, indent=2))
    else:
        text.console().print(show.render(patches, found, trial.place))
    if found.broken:
        return ExitCode.FINDINGS
    return ExitCode.CANNOT_JUDGE if found.unjudged else ExitCode.PASS

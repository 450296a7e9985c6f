# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that read what runs have left."""

import argparse
import sys
from pathlib import Path

from harness import events as ev
from harness import guesttrace
from harness.commands.request import conclude_run
from harness.errors import ConfigError, EvidenceError, ExitCode
from harness.rundir import RunDir


def judge(arguments: argparse.Namespace) -> ExitCode:
    """Judge a saved run again."""
    return conclude_run(RunDir.open(arguments.run), arguments)


def events(arguments: argparse.Namespace) -> ExitCode:
    """Print a run's events; of a run without the stub, those of the guest's own trace."""
    run = RunDir.open(arguments.run)
    path = run.trace if run.trace.exists() and not run.events.exists() else run.events
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"cannot read {path}: {error.strerror}") from error
    if path == run.trace:
        stream = guesttrace.read(data.decode("utf-8", "replace")).stream
    else:
        stream = ev.decode(data)
    line = ev.to_json_line if arguments.json else ev.to_text
    for event in stream.events:
        print(line(event))
    if not stream.complete:
        raise EvidenceError(
            f"the event stream was cut: no trailer behind record {len(stream.events)}"
        )
    return ExitCode.PASS


def history(arguments: argparse.Namespace) -> ExitCode:
    """Print the history, or export a night of it."""
    from harness.export.render import render
    from harness.history.store import History
    from harness.history.trend import trend

    path: Path = arguments.file
    if not path.is_file():
        raise ConfigError(f"there is no history {path}", hint="name one with --file")
    with History(path) as kept:
        nights = kept.nights()
        if arguments.form == "table":
            print(trend(nights, arguments.word), end="")
            return ExitCode.PASS
        if not nights:
            raise ConfigError(f"the history {path} holds no night")
        night = kept.night(arguments.night) if arguments.night else nights[0]
        text = render(arguments.form, night, kept.before(night), origin=arguments.origin)
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    return ExitCode.PASS

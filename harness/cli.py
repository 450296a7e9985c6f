# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: one command, its progress, its exit code; no logic of its own."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from harness.arguments import build_parser
from harness.errors import ExitCode, HarnessError
from harness.text import harmless

# `git bisect run` ends at this and above.
GIT_STOPS = 128


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _commands() -> dict[str, Callable[[argparse.Namespace], int]]:
    # Imported late: `tdharness --help` and `judge` need neither ssh nor QMP.
    from harness.commands import build, guests, hosts, many, mce, person, records

    return {
        "setup": build.setup,
        "doctor": build.doctor,
        "build": build.build,
        "run": guests.run,
        "judge": records.judge,
        "events": records.events,
        "shell": person.shell,
        "console": person.console,
        "mce": mce.mce,
        "bench": guests.bench,
        "hosts": hosts.hosts,
        "history": records.history,
        "clean": many.clean,
        "nightly": many.nightly,
        "qualify": hosts.qualify,
        "mutate": many.mutate,
        "series": many.series,
        "bisect-step": guests.bisect_step,
    }


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    words = sys.argv[1:] if argv is None else argv
    try:
        return build_parser().parse_args(words)
    except SystemExit as ended:
        if ended.code and "bisect-step" in words:
            # Usage is no answer; git takes 2 for a bad kernel.
            raise SystemExit(GIT_STOPS) from None
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    signal.signal(signal.SIGTERM, _interrupted)
    arguments = _parse(argv)
    try:
        code = _commands()[arguments.command](arguments)
        # Here, where a reader that has left can be told from an error.
        sys.stdout.flush()
        return code
    except HarnessError as error:
        print(f"tdharness: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("tdharness: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of the output left, as `head` does; Python would complain once more at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PASS
    except OSError as error:
        # A full disk, a directory that may not be written to: no error of the program.
        where = f"{error.filename}: " if error.filename else ""
        print(harmless(f"tdharness: {where}{error.strerror or error}"), file=sys.stderr)
        return ExitCode.HOST


if __name__ == "__main__":
    sys.exit(main())

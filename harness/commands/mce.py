# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that decodes machine checks."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.errors import ConfigError, EvidenceError, ExitCode
from harness.hostmce import paste
from harness.hostmce.told import HostTold, checked_bits

MOST_DATABASE_BYTES = 256 << 20


def mce(arguments: argparse.Namespace) -> ExitCode:
    """Decode a file, standard input, or one status."""
    try:
        phys_bits = checked_bits(arguments.phys_bits)
    except ValueError as error:
        raise ConfigError(f"--phys-bits: {error}", hint="from 32 to 64 can be given") from error
    told = _decode(arguments.what, phys_bits)
    if not told.merged.records:
        raise EvidenceError(f"there is no machine check in {arguments.what}")
    if arguments.json:
        print(json.dumps(told.to_json(), indent=2))
        return ExitCode.PASS
    from harness.hostmce.table import render
    from harness.report.text import console

    console().print(render(told))
    return ExitCode.PASS


def _decode(what: str, phys_bits: int) -> HostTold:
    if what != "-" and not Path(what).exists():
        if told := paste.of_status(what):
            return told
        raise ConfigError(
            f"{what} is neither a file nor a status in hexadecimal",
            hint="paste a log into `tdharness mce -`, or name MCi_STATUS: 0xbd80000000100134",
        )
    with _opened(what) as file:
        head = file.peek(len(paste.SQLITE))[: len(paste.SQLITE)] if hasattr(file, "peek") else b""
        if head == paste.SQLITE:
            return paste.of_database(file.read(MOST_DATABASE_BYTES), phys_bits)
        # A line without an end is read in pieces.
        return paste.of_lines(iter(lambda: file.readline(1 << 20), b""), phys_bits)


@contextmanager
def _opened(what: str) -> Iterator[BinaryIO]:
    if what == "-":
        if sys.stdin.isatty():
            print("paste the lines, then Ctrl-D", file=sys.stderr)
        yield sys.stdin.buffer
        return
    with Path(what).open("rb") as file:
        yield file

# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that let a person into a running guest."""

import argparse
import os
import select
import sys
import termios
import tty
from collections.abc import Callable
from pathlib import Path

from harness import live
from harness.errors import ExitCode

_DETACH = b"\x1d"


def shell(arguments: argparse.Namespace) -> ExitCode:
    """A shell in a running guest."""
    from harness.shell import Shell, parse_host_key

    guest = live.find(arguments.runs, arguments.run)
    connection = Shell(
        guest.ssh_port, Path(guest.key_path), parse_host_key(guest.host_key), timeout_s=60.0
    )
    try:
        channel = connection.interactive()
        _relay(channel.fileno(), lambda: channel.recv(4096), channel.sendall)
    finally:
        connection.close()
    return ExitCode.PASS


def console(arguments: argparse.Namespace) -> ExitCode:
    """The console of a running guest."""
    from harness.console import Console

    guest = live.find(arguments.runs, arguments.run)
    end = Console(Path(guest.console_socket), Path(guest.run) / "console.log").connect()
    with end:
        print("Enter shows the prompt, Ctrl-] leaves; one person at a time", file=sys.stderr)
        _relay(end.fileno(), lambda: end.recv(4096), end.sendall)
    return ExitCode.PASS


def _relay(descriptor: int, receive: Callable[[], bytes], send: Callable[[bytes], object]) -> None:
    """Connect the terminal with the other end until one of them closes or Ctrl-] is typed."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard) if os.isatty(keyboard) else None
    try:
        if before:
            tty.setraw(keyboard)
        while True:
            readable, _, _ = select.select([descriptor, keyboard], [], [])
            if descriptor in readable:
                data = receive()
                if not data:
                    return
                os.write(sys.stdout.fileno(), data)
            if keyboard in readable:
                typed = os.read(keyboard, 1024)
                if not typed or _DETACH in typed:
                    return
                send(typed)
    finally:
        if before:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)

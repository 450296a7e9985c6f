# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands about the machines of a lab."""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from typing import IO

from rich.table import Table

from harness import proc
from harness.errors import ConfigError, ExitCode, HarnessError, HostError
from harness.hosts.config import Host, host_named, read_hosts
from harness.hosts.labgrid import lease_of
from harness.hosts.lease import Lease, leased
from harness.hosts.ssh import reached
from harness.progress import Progress
from harness.text import printable

_POLL_S = 0.2


def hosts(arguments: argparse.Namespace) -> ExitCode:
    """One of the acts below."""
    return _ACTS[arguments.act](arguments)


def _list(arguments: argparse.Namespace) -> ExitCode:
    from harness.report.text import console

    table = Table(box=None, pad_edge=False)
    for name in ("host", "address", "mode", "lease"):
        table.add_column(name)
    found = read_hosts(arguments.hosts)
    with Progress() as progress:
        for host in found.values():
            progress.say(f"asking {host.name}")
            table.add_row(host.name, host.address or "this machine", host.mode, _lease_of(host))
    console().print(table)
    return ExitCode.PASS


def _lease_of(host: Host) -> str:
    try:
        with reached(host) as remote:
            holding = lease_of(host, remote).ask("show")
    except HarnessError as error:
        return error.message
    if not holding.held:
        return "free"
    return f"{holding.owner}, {holding.left_s:.0f} s left" if holding.left_s else holding.owner


def _check(arguments: argparse.Namespace) -> ExitCode:
    from harness.hosts.facts import facts_of
    from harness.hosts.preflight import fit, preflight, render
    from harness.report.text import console

    host = host_named(arguments.host, arguments.hosts)
    with Progress() as progress, reached(host) as remote:
        progress.say(f"asking {host.name}")
        lines = preflight(host, facts_of(remote))
    if arguments.json:
        print(json.dumps([dataclasses.asdict(line) for line in lines], indent=2))
    else:
        console().print(render(host, lines))
    return ExitCode.PASS if fit(lines) else ExitCode.HOST


def _hold(arguments: argparse.Namespace) -> ExitCode:
    host = host_named(arguments.host, arguments.hosts)
    with Progress() as progress, reached(host) as remote:
        lease = lease_of(host, remote)
        progress.say(f"asking {host.name} for its lease")
        with leased(lease, arguments.wait, progress.say):
            progress.say(f"{host.name} is ours: {proc.pasteable(arguments.argv)}")
            return _while_held(arguments.argv, lease, host)


def _while_held(argv: list[str], lease: Lease, host: Host) -> ExitCode:
    child = proc.spawn(argv, stdout=sys.stdout.buffer, stdin=_input())
    try:
        while not lease.ended.is_set():
            try:
                code = child.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            return ExitCode.PASS if code == 0 else ExitCode.FINDINGS
    finally:
        proc.kill_group(child)
    raise HostError(
        f"the lease of {host.name} was lost while {argv[0]} ran, which was ended",
        hint="someone released it, or the host did not answer for as long as a lease lasts",
    )


def _input() -> IO[bytes] | None:
    """Ours, if we have one."""
    try:
        sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None
    return sys.stdin.buffer


def _release(arguments: argparse.Namespace) -> ExitCode:
    host = host_named(arguments.host, arguments.hosts)
    with reached(host) as remote:
        lease_of(host, remote).ask("clear")
    return ExitCode.PASS


def _clean(arguments: argparse.Namespace) -> ExitCode:
    from harness.machine.leftovers import Fate, clean
    from harness.report.text import console

    table = Table(box=None, pad_edge=False)
    for name in ("guest", "run", "what became of it"):
        table.add_column(name)
    failed, uri = False, _uri(arguments)
    with Progress() as progress:
        progress.say("asking libvirt")
        for found in clean(uri):
            run = printable(found.owner.run, 200) if found.owner else ""
            table.add_row(printable(found.name, 60), run, found.fate.value)
            failed |= found.fate is Fate.KEPT_FAILED
    console().print(table if table.row_count else "nothing of ours is left there")
    return ExitCode.HOST if failed else ExitCode.PASS


def _uri(arguments: argparse.Namespace) -> str:
    if arguments.libvirt:
        return str(arguments.libvirt)
    host = host_named(arguments.host, arguments.hosts)
    if not host.libvirt:
        raise ConfigError(
            f"{host.name} has no libvirt in {arguments.hosts}", hint="or say --libvirt URI"
        )
    return host.libvirt


def qualify(arguments: argparse.Namespace) -> ExitCode:
    """Qualify a host."""
    from harness.qualify.run import Order
    from harness.qualify.run import qualify as carry_out
    from harness.report.qualification import headline, table
    from harness.report.text import console
    from harness.series.issues import read_issues

    host = host_named(arguments.host, arguments.hosts)
    with Progress() as progress, reached(host) as remote:
        order = Order(
            host=host,
            remote=remote,
            profile=arguments.profile,
            kernel=arguments.kernel,
            runs=arguments.runs,
            wait_s=arguments.wait,
            known=read_issues(arguments.known),
        )
        done = carry_out(order, progress.say)
    if arguments.json:
        print(json.dumps(done.now.to_json(), indent=2))
    else:
        console().print(table(done.now, done.before))
        print(f"\n{done.now.outcome.value}: {headline(done.now, done.before)}\n{done.page}")
    return done.now.outcome.exit_code


_ACTS: dict[str, Callable[[argparse.Namespace], ExitCode]] = {
    "list": _list,
    "check": _check,
    "lease": _hold,
    "release": _release,
    "clean": _clean,
}

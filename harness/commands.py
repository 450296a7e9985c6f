# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands of the command line do, in terms of the layers below."""

import argparse
import dataclasses
import json
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness import events as ev
from harness import faults, live, vmm
from harness.errors import ConfigError, EvidenceError, ExitCode
from harness.progress import Progress
from harness.rundir import RunDir

# What boots guests is imported by the commands that do: judging has to be quick.
if TYPE_CHECKING:
    from harness.prepare import Request
    from harness.series.bisect import Answer
    from harness.session import Guest
    from harness.workload import Step

NORMAL_WORKLOADS = ("conversion", "dma", "devices")
_DETACH = b"\x1d"
_QEMU_STARTED_S = 1.0


def request_of(arguments: argparse.Namespace) -> "Request":
    """The guest that the options ask for."""
    from harness.prepare import Request

    return Request(
        kernel=arguments.kernel,
        td_mode=arguments.td_mode,
        smp=arguments.smp,
        memory_mib=arguments.memory,
        extra_cmdline=arguments.cmdline,
        qemu=arguments.qemu,
        seed=getattr(arguments, "seed", None),
    )


def setup(arguments: argparse.Namespace) -> ExitCode:
    """Fetch and build."""
    from harness.prepare import Request, prepare, series_of
    from harness.provision.setup import setup as provision

    request = Request(kernel=arguments.kernel)
    with Progress() as progress:
        if arguments.refresh:
            provision(series_of(request.kernel) or "6.12", refresh=True)
        plan = prepare(request, progress.say)
    print(f"kernel   {plan.kernel.release}")
    print(f"QEMU     {plan.qemu.version} ({plan.qemu.origin})")
    print(f"plugin   {plan.spec.plugin}")
    print(f"image    {plan.spec.initrd}")
    return ExitCode.PASS


def doctor(arguments: argparse.Namespace) -> ExitCode:
    """Say what is there and what is missing."""
    from harness.provision import doctor as checks
    from harness.report import text

    with Progress() as progress:
        progress.say("looking at this machine; a tiny guest tries KVM")
        found = checks.diagnose()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(check) for check in found], indent=2))
    else:
        text.console().print(checks.render(found))
    return ExitCode.PASS if checks.usable(found) else ExitCode.HOST


def build(arguments: argparse.Namespace) -> ExitCode:
    """Build a kernel."""
    from harness.kernel.build import build as build_kernel
    from harness.kernel.kconfig import config_of
    from harness.kernel.origin import base_of

    with Progress() as progress:
        config = config_of(arguments.config, arguments.base)
        kernel = build_kernel(base_of(arguments.base), arguments.patch, config, progress.say)
    for warning in kernel.new_warnings:
        print(f"new warning: {warning}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(kernel), indent=2, default=str))
    else:
        print(kernel.image)
    return ExitCode.PASS


def run(arguments: argparse.Namespace) -> ExitCode:
    """Boot, work, judge."""
    from harness.job import carry_out
    from harness.prepare import prepare

    if "list" in (arguments.fault, arguments.vmm):
        print(faults.render_list() if arguments.fault == "list" else vmm.render_list())
        return ExitCode.PASS
    request = dataclasses.replace(request_of(arguments), fault=arguments.fault, vmm=arguments.vmm)
    if arguments.keep and request.seed is not None:
        raise ConfigError("a guest with a seed powers off by itself: leave --keep or --seed out")
    steps = _steps(request, arguments.workload)
    with Progress() as progress, _judge_loaded_meanwhile():

        def keep(guest: "Guest") -> None:
            if arguments.keep:
                _keep(guest, progress)

        plan = prepare(request, progress.say, steps=steps)
        run = carry_out(
            plan, steps, arguments.runs, progress.say, progress.complain, before_stop=keep
        )
    return _conclude(run, arguments)


def bisect_step(arguments: argparse.Namespace) -> int:
    """Answer git bisect."""
    from harness import bisectstep

    request = request_of(arguments)
    own = arguments.kernel != "stock"
    with Progress() as progress:

        def ask() -> "Answer":
            question = bisectstep.Question(
                request=request,
                steps=_steps(request, arguments.workload),
                runs=arguments.runs,
                finding=arguments.finding,
                source=None if own else arguments.source,
                base=arguments.base,
                config=arguments.config,
            )
            return bisectstep.answer(question, progress)

        return bisectstep.exit_code(ask, progress.complain)


def _steps(request: "Request", workloads: list[str] | None) -> "tuple[Step, ...]":
    """The workloads asked for; what is tried one by one brings steps of its own."""
    from harness.workload import injected_steps, misbehaviour_steps, steps_for

    own = (
        *injected_steps(faults.parse(request.fault), cpus=request.smp),
        *misbehaviour_steps(vmm.parse(request.vmm)),
    )
    names = workloads or (() if own else NORMAL_WORKLOADS)
    is_td, devices = request.td_mode == "stub", request.seed is None
    return (*steps_for(names, cpus=request.smp, td=is_td, devices=devices), *own)


def _keep(guest: "Guest", progress: Progress) -> None:
    guest.let_end()
    progress.say(f"the guest runs: tdharness shell {guest.run.path}; Ctrl-C ends it")
    try:
        while not guest.machine.wait(1.0):
            pass
    except KeyboardInterrupt:
        return


def judge(arguments: argparse.Namespace) -> ExitCode:
    """Judge a saved run again."""
    return _conclude(RunDir.open(arguments.run), arguments)


def _conclude(run: RunDir, arguments: argparse.Namespace) -> ExitCode:
    from harness.conclude import conclude

    verdict = conclude(run, strict=arguments.strict, as_json=arguments.json, every=arguments.all)
    return verdict.outcome.exit_code


@contextmanager
def _judge_loaded_meanwhile() -> Iterator[None]:
    """Load the judge and the report while the guest boots, which leaves Python idle."""

    def load() -> None:
        from harness.report import html

        html.template()

    timer = threading.Timer(_QEMU_STARTED_S, load)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def events(arguments: argparse.Namespace) -> ExitCode:
    """Print a run's events."""
    path = RunDir.open(arguments.run).events
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"cannot read {path}: {error.strerror}") from error
    stream = ev.decode(data)
    line = ev.to_json_line if arguments.json else ev.to_text
    for event in stream.events:
        print(line(event))
    if not stream.complete:
        raise EvidenceError(
            f"the event stream was cut: no trailer behind record {len(stream.events)}"
        )
    return ExitCode.PASS


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


def bench(arguments: argparse.Namespace) -> ExitCode:
    """Measure."""
    from harness import bench as measuring
    from harness.report import text

    with Progress() as progress:
        result = measuring.bench(
            request_of(arguments), arguments.rounds, arguments.runs, progress.say
        )
    if arguments.json:
        print(json.dumps(result.to_json(), indent=2))
    else:
        text.console().print(measuring.render(result))
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


def mutate(arguments: argparse.Namespace) -> ExitCode:
    """Plant faults, and print the score."""
    from harness import mutate as trying
    from harness import scoretable
    from harness.report import text

    rows = []
    with Progress() as progress:
        lab = trying.Laboratory(
            guest=request_of(arguments), runs=arguments.runs, progress=progress.say
        )
        groups = arguments.group or trying.GROUPS
        tried = trying.mutate(lab, groups, arguments.patches, arguments.config, arguments.boots)
        for row in tried:
            rows.append(row)
            progress.say(f"{row.group} {row.name}: {scoretable.word_of(row)}")
    if arguments.json:
        print(json.dumps([row.to_json() for row in rows], indent=2))
    else:
        text.console().print(scoretable.render(rows))
    return ExitCode.PASS if rows and all(row.caught for row in rows) else ExitCode.FINDINGS

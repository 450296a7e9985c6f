# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that boot a guest."""

import argparse
import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness import faults, vmm
from harness.commands.request import conclude_run, request_of
from harness.errors import ConfigError, ExitCode
from harness.progress import Progress
from harness.workload import NORMAL

# What boots guests is imported by the commands that do: judging has to be quick.
if TYPE_CHECKING:
    from harness.prepare import Request
    from harness.series.bisect import Answer
    from harness.session import Guest
    from harness.workload import Step

_QEMU_STARTED_S = 1.0


def run(arguments: argparse.Namespace) -> ExitCode:
    """Boot, work, judge."""
    from harness.hosts.config import host_named
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
            plan,
            steps,
            arguments.runs,
            progress.say,
            progress.complain,
            before_stop=keep,
            host=host_named(arguments.host, arguments.hosts) if arguments.host else None,
        )
    return conclude_run(run, arguments)


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
    names = workloads or (() if own else NORMAL)
    mode, devices = request.td_mode, request.seed is None
    return (*steps_for(names, cpus=request.smp, td_mode=mode, devices=devices), *own)


def _keep(guest: "Guest", progress: Progress) -> None:
    guest.let_end()
    progress.say(f"the guest runs: tdharness shell {guest.run.path}; Ctrl-C ends it")
    try:
        while not guest.machine.wait(1.0):
            pass
    except KeyboardInterrupt:
        return


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""From the options of a command to what is asked for, and from a run to an exit code."""

import argparse
from typing import TYPE_CHECKING

from harness.errors import ExitCode
from harness.rundir import RunDir

# What boots guests is imported by the commands that do: judging has to be quick.
if TYPE_CHECKING:
    from harness.prepare import Request


def request_of(arguments: argparse.Namespace) -> "Request":
    """The guest that the options ask for."""
    from harness.prepare import Request

    return Request(
        kernel=arguments.kernel,
        td_mode=arguments.td_mode,
        firmware=arguments.firmware,
        smp=arguments.smp,
        memory_mib=arguments.memory,
        extra_cmdline=arguments.cmdline,
        qemu=arguments.qemu,
        libvirt=arguments.libvirt,
        patience=arguments.patience,
        trace=arguments.guest_trace,
        seed=getattr(arguments, "seed", None),
    )


def conclude_run(run: RunDir, arguments: argparse.Namespace) -> ExitCode:
    from harness.conclude import conclude

    verdict = conclude(
        run,
        strict=arguments.strict,
        as_json=arguments.json,
        every=arguments.all,
        by_trace=getattr(arguments, "by_trace", False),
    )
    return verdict.outcome.exit_code

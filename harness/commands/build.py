# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that fetch and build."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import ExitCode
from harness.progress import Progress


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
    from harness.series.patch import write
    from harness.series.read import read_patches

    patches = read_patches(arguments.patch)
    with Progress() as progress, TemporaryDirectory(prefix="tdharness-build-") as place:
        config = config_of(arguments.config, arguments.base)
        # What was checked is what is applied.
        files = write(patches, Path(place))
        kernel = build_kernel(base_of(arguments.base), files, config, progress.say)
    for warning in kernel.new_warnings:
        print(f"new warning: {warning}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(kernel), indent=2, default=str))
    else:
        print(kernel.image)
    return ExitCode.PASS

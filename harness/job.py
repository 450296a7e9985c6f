# SPDX-License-Identifier: GPL-2.0-or-later
"""One run, from a plan to a run directory that can be judged, whatever goes wrong on the way."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import proc
from harness.errors import GuestError, HarnessError, HostError, MachineError
from harness.hostguard import guarded
from harness.hosts.config import Host
from harness.plan import Plan
from harness.prepare import Request
from harness.rundir import RunDir
from harness.session import Guest, Progress
from harness.workload import Step


def carry_out(
    plan: Plan,
    steps: Sequence[Step],
    runs: Path,
    progress: Progress,
    complain: Callable[[HarnessError], None] = lambda _: None,
    *,
    before_stop: Callable[[Guest], None] = lambda _: None,
    host: Host | None = None,
) -> RunDir:
    """Boot, run the steps, stop; the run directory holds the evidence.

    What the guest or QEMU does wrong is noted in the run and handed to `complain`: the judge makes
    a finding or an ERROR of it. What `host` tells meanwhile is kept with it. Raises HostError, and
    what interrupts, after the guest has ended.
    """
    guest = Guest(plan, runs, progress)
    try:
        with guarded(guest, host):
            _work(guest, steps, complain, before_stop)
    finally:
        # Not begun, where the host did not answer.
        guest.stop(planned=False)
    return guest.run


def _work(
    guest: Guest,
    steps: Sequence[Step],
    complain: Callable[[HarnessError], None],
    before_stop: Callable[[Guest], None],
) -> None:
    planned = False
    try:
        if guest.plan.spec.seed is None:
            guest.boot()
            guest.run_steps(steps)
        else:
            guest.run_script(steps)
        before_stop(guest)
        planned = True
    except GuestError as error:
        planned = True
        complain(error)
    except MachineError as error:
        guest.note_harness_error(error)
        complain(error)
    except KeyboardInterrupt:
        guest.note_harness_error(HarnessError("the harness was interrupted"))
        raise
    finally:
        guest.stop(planned=planned)


def in_child(request: Request, workloads: Sequence[str], runs: Path, timeout_s: float) -> RunDir:
    """The same by `tdharness run` in a process of its own, so that many can go on at once.

    Raises HarnessError when the command ends without a run.
    """
    argv = [sys.executable, "-m", "harness.cli", "run", "--json", "--runs", str(runs)]
    argv += [word for name in workloads for word in ("--workload", name)]
    words = [*argv, *request.words()]
    result = proc.run(words, timeout_s=timeout_s, check=False, grace_s=proc.END_GRACE_S)
    try:
        return RunDir.open(Path(json.loads(result.stdout)["run"]))
    except (ValueError, KeyError, TypeError):
        said = result.stderr.strip().splitlines()[-2:]
        raise HostError(
            f"a guest could not be run (exit code {result.returncode}): {'; '.join(said)}",
            hint="run it by hand: tdharness run " + proc.pasteable(request.words()),
        ) from None

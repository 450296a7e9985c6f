# SPDX-License-Identifier: GPL-2.0-or-later
"""One run, from a plan to a run directory that can be judged, whatever goes wrong on the way."""

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import GuestError, HarnessError, MachineError
from harness.rundir import RunDir
from harness.session import Guest, Plan, Progress
from harness.workload import Step


def carry_out(
    plan: Plan,
    steps: Sequence[Step],
    runs: Path,
    progress: Progress,
    complain: Callable[[HarnessError], None] = lambda _: None,
    *,
    before_stop: Callable[[Guest], None] = lambda _: None,
) -> RunDir:
    """Boot, run the steps, stop; the run directory holds the evidence.

    What the guest or QEMU does wrong is noted in the run and handed to `complain`: the judge makes
    a finding or an ERROR of it. Raises HostError, and what interrupts, after the guest has ended.
    """
    guest = Guest(plan, runs, progress)
    planned = False
    try:
        if plan.spec.seed is None:
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
    return guest.run

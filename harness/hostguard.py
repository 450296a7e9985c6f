# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest and its host: what the host tells meanwhile is kept with the run, and its end ends both.

What is collected goes into the run's host.json, where the judge finds it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from harness import proc
from harness.errors import MachineError
from harness.hostmce.collect import Collector
from harness.hostmce.console import HostConsole, KeptConsole
from harness.hostmce.watch import Down
from harness.hosts.config import Host
from harness.hosts.ssh import reached
from harness.rundir import writing
from harness.session import Guest

_END_TIMEOUT_S = 10.0


@contextlib.contextmanager
def guarded(guest: Guest, host: Host | None) -> Iterator[None]:
    """Collect around what happens inside, in which the guest has to be started and stopped.

    A host that goes down ends every wait for the guest with MachineError, within
    watch.FOUND_OUT_S. Raises HarnessError when the host does not answer to begin with.
    """
    if host is None:
        yield
        return

    def end(down: Down) -> None:
        # Before its start, and behind its end, there is no agent to wait for.
        with contextlib.suppress(MachineError):
            guest.machine.agent.give_up(f"the host {host.name} failed: {down.how}")

    with (
        reached(host) as remote,
        _console(host, guest.run.host_console) as console,
        Collector(remote, console).around(guest.run, end),
    ):
        yield


@contextlib.contextmanager
def _console(host: Host, log: Path) -> Iterator[HostConsole | None]:
    """Keep what the host's console says, from the command that reaches it."""
    if not host.console:
        yield None
        return
    with writing(log):
        log.touch()
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as stream:  # noqa: PTH123
        with open(write_end, "wb") as output:  # noqa: PTH123
            child = proc.spawn(host.console, stdout=output)
        console = KeptConsole(stream, log)
        try:
            yield console
        finally:
            proc.kill_group(child)
            console.close(_END_TIMEOUT_S)

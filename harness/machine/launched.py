# SPDX-License-Identifier: GPL-2.0-or-later
"""What every launcher has of its guest: a private directory, console, disk, agent, last words."""

import contextlib
from abc import ABC, abstractmethod

from harness.agent import Agent
from harness.console import Console
from harness.errors import MachineError
from harness.machine import private
from harness.machine.base import Ending, MachineSpec, Monitor
from harness.machine.watchdog import Watchdog
from harness.provision.qemu import Qemu
from harness.rundir import RunDir

_REGISTERS_BYTES = 16 << 10


class Launched(ABC):
    """The part of a Machine that does not depend on who starts its QEMU; documented there."""

    def __init__(self, spec: MachineSpec, qemu: Qemu, run: RunDir) -> None:
        """Raises HostError when there is no place for its sockets."""
        self.spec = spec
        self.qemu = qemu
        self._run = run
        # Not in the run directory: that may be deep, and the paths of sockets are short.
        self.private = private.make()
        self.console = Console(self.private / private.CONSOLE_SOCKET, run.console_log)
        self.ssh_port = 0
        self.most_silence_s: float | None = None
        self._agent: Agent | None = None
        self._watch = Watchdog(self.console)

    @property
    def agent(self) -> Agent:
        if self._agent is None:
            raise MachineError("the machine is not running, so there is no agent")
        return self._agent

    @property
    @abstractmethod
    def qmp(self) -> Monitor: ...

    @abstractmethod
    def alive(self) -> bool: ...

    @abstractmethod
    def ending(self) -> Ending | None: ...

    def _look(self) -> None:
        self._watch.look(self.most_silence_s)

    def diagnose(self) -> str:
        parts = []
        with contextlib.suppress(MachineError):
            if ending := self.ending():
                parts.append(f"the machine ended: {ending.words}")
        parts.append(f"console:\n{self.console.tail(20) or 'nothing was printed'}")
        with contextlib.suppress(MachineError):
            if self.alive():
                parts.append(f"status: {self.qmp.execute('query-status')}")
                parts.append(self.qmp.human("info registers -a")[:_REGISTERS_BYTES])
        return "\n".join(parts) + "\n"

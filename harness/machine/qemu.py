# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher of a QEMU child process: no daemon, nothing left behind."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import proc
from harness.agent import Agent
from harness.errors import MachineError
from harness.machine import tries
from harness.machine.arguments import Wiring, arguments
from harness.machine.base import Ending, MachineSpec
from harness.machine.launched import Launched
from harness.machine.place import make_disk
from harness.provision.qemu import Qemu
from harness.rundir import RunDir

# Its import takes as long as QEMU's start: done side by side.
if TYPE_CHECKING:
    from harness.qmp import Qmp

_DEATH_TIMEOUT_S = 2.0
_REASON_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long QEMU itself may take; seconds."""

    start_s: float = 20.0
    quit_s: float = 10.0


class QemuMachine(Launched):
    """A guest in a QEMU child process. The members of Machine are documented there."""

    def __init__(
        self, spec: MachineSpec, qemu: Qemu, run: RunDir, patience: Patience | None = None
    ) -> None:
        """Raises HostError when there is no place for its sockets."""
        super().__init__(spec, qemu, run)
        self._patience = patience or Patience()
        self._child: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None

    @property
    def qmp(self) -> "Qmp":
        if self._qmp is None:
            raise MachineError("the machine is not running, so there is no QMP")
        return self._qmp

    @property
    def pid(self) -> int:
        """Process id of QEMU, 0 before its start."""
        return self._child.pid if self._child else 0

    def start(self) -> None:
        disk = make_disk(self.private)
        self.ssh_port = tries.start(partial(self._start_once, disk), self._run.qemu_log)

    def _start_once(self, disk: Path, ssh_port: int, sandbox: bool) -> None:
        (qmp, qmp_end), (agent, agent_end) = socket.socketpair(), socket.socketpair()
        wiring = Wiring(
            qmp_fd=qmp_end.fileno(),
            agent_fd=agent_end.fileno(),
            transcript=self._run.transcript,
            ssh_port=ssh_port,
            console_socket=self.console.socket_path,
            console_log=self._run.console_log,
            events=self._run.events,
            disk=disk,
            sandbox=sandbox,
        )
        argv = [*self.qemu.argv_prefix, *arguments(self.spec, wiring)]
        self._run.write_text(self._run.argv, proc.pasteable(argv) + "\n")
        self._agent = Agent(agent, self._look)
        # With our copies of QEMU's ends closed, its death ends every wait at once.
        with qmp_end, agent_end, self._run.open_log(self._run.qemu_log) as output:
            self._child = proc.spawn(
                argv,
                stdout=output,
                env={**os.environ, **self.qemu.env},
                pass_fds=[qmp_end.fileno(), agent_end.fileno()],
            )
        from harness.qmp import Qmp

        try:
            self._qmp = Qmp(qmp, self._run.qmp_log, timeout_s=self._patience.start_s)
            self._watch.restart()
            self._qmp.execute("cont", timeout_s=self._patience.start_s)
        except MachineError as error:
            raise self._start_failed(error) from error

    def _start_failed(self, error: MachineError) -> MachineError:
        self._close_ends()
        self.wait(_DEATH_TIMEOUT_S)
        ending = self.ending()
        self._kill()
        cause = ending.words if ending else error.message
        return MachineError(f"the guest did not start: {cause}", log=self._run.qemu_log)

    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def wait(self, timeout_s: float) -> bool:
        if self._child is None:
            return True
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def ending(self) -> Ending | None:
        code = self._child.poll() if self._child else None
        if code is None:
            return None
        if code == 0:
            reason = self._qmp.shutdown_reason(_REASON_TIMEOUT_S) if self._qmp else None
            return Ending(orderly=True, words=reason or "no reason given")
        how = f"ended with status {code}"
        if code < 0:
            name = signal.strsignal(-code) or "no known name"
            how = f"was ended by signal {-code} ({name})"
        said = tries.last_words(self._run.qemu_log)
        return Ending(orderly=False, words=f"QEMU {how}" + (f": {said}" if said else ""))

    def settle(self) -> None:
        # QEMU writes to the run itself.
        pass

    def stop(self) -> None:
        # Each in its turn, even when a second Ctrl-C comes in between.
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.private, ignore_errors=True)
            stack.callback(self._close_ends)
            stack.callback(self._kill)
            if self.alive() and self._qmp is not None:
                # Asked to quit, QEMU lets the plugin write the trailer of its event stream.
                with contextlib.suppress(MachineError):
                    self._qmp.execute("quit", timeout_s=self._patience.quit_s)
                self.wait(self._patience.quit_s)

    def _kill(self) -> None:
        if self._child is not None:
            proc.kill_group(self._child)

    def _close_ends(self) -> None:
        if self._qmp is not None:
            self._qmp.close()
        if self._agent is not None:
            self._agent.close()
        self._qmp = self._agent = None

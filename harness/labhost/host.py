# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual lab host, running: ssh on a port of 127.0.0.1, QMP for machine checks, a serial log.

What it writes to its disk is in a file that QEMU has unlinked: it is gone with the process, and a
process that is killed leaves nothing.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness import proc
from harness.console import Console
from harness.errors import HostError, MachineError
from harness.hosts.config import Host
from harness.labhost.arguments import Start, Wiring, arguments
from harness.labhost.checks import MachineCheck
from harness.labhost.image import Image
from harness.machine import private, tries
from harness.machine.tsc import host_tsc_khz
from harness.provision.qemu import Qemu
from harness.shell import Shell, ShellResult, parse_host_key
from harness.text import printable
from harness.timeouts import Deadline

if TYPE_CHECKING:
    from harness.qmp import Qmp

# Of a boot. Measured: 24 s on two idle cores, 119 s on two that three others used.
BOOT_TIMEOUT_S = 400.0
_START_TIMEOUT_S = 60.0
_SSH_TIMEOUT_S = 60.0
_COMMAND_TIMEOUT_S = 60.0
_SAVE_TIMEOUT_S = 120.0
_POLL_S = 0.1
_READY = "lab-host: ready ([0-9a-f-]{36})"


class LabHost:
    """A lab host in a QEMU child process. All that it leaves is in `directory`."""

    def __init__(self, image: Image, program: Qemu, directory: Path) -> None:
        """Nothing is started yet. Raises HostError when there is no place for its sockets."""
        self.image = image
        self.directory = directory
        self.ssh_port = 0
        self.key_path = image.key
        # the pinned key in OpenSSH's form, for [127.0.0.1]:port; written at the start
        self.known_hosts = directory / "known_hosts"
        # of each boot that came up, in order
        self.boot_ids: list[str] = []
        self._log = directory / "qemu.log"
        self._program = program
        self._private = private.make()
        self.console = Console(self._private / private.CONSOLE_SOCKET, directory / "console.log")
        self._child: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None

    @property
    def qmp(self) -> "Qmp":
        """The monitor of its QEMU, while that runs."""
        if self._qmp is None:
            raise MachineError("the lab host is not running, so there is no QMP")
        return self._qmp

    @property
    def pid(self) -> int:
        """Process id of QEMU, 0 before its start."""
        return self._child.pid if self._child else 0

    def alive(self) -> bool:
        """Whether QEMU runs; the host in it may have died."""
        return self._child is not None and self._child.poll() is None

    def start(self, start: Start = Start.SAVED) -> None:
        """Have it answer ssh. Raises HostError, MachineError, GuestError."""
        self.ssh_port = tries.start(partial(self._start_once, start), self._log)
        self.known_hosts.write_text(f"[127.0.0.1]:{self.ssh_port} {self.image.host_key}\n")
        if start is Start.SAVED:
            self._go_on()
        else:
            self.wait_ready()

    def _start_once(self, start: Start, ssh_port: int, sandbox: bool) -> None:
        from harness.qmp import Qmp

        qmp, qmp_end = socket.socketpair()
        wiring = Wiring(
            start=start,
            qmp_fd=qmp_end.fileno(),
            ssh_port=ssh_port,
            console_socket=self.console.socket_path,
            console_log=self.console.log_path,
            sandbox=sandbox,
            tsc_khz=host_tsc_khz(),
        )
        argv = [*self._program.argv_prefix, *arguments(self.image, wiring)]
        (self.directory / "argv").write_text(proc.pasteable(argv) + "\n")
        with qmp_end, self._log.open("wb") as output:
            self._child = proc.spawn(
                argv,
                stdout=output,
                env={**os.environ, **self._program.env},
                pass_fds=[qmp_end.fileno()],
            )
        try:
            self._qmp = Qmp(qmp, self.directory / "qmp.jsonl", timeout_s=_START_TIMEOUT_S)
        except MachineError as error:
            proc.kill_group(self._child)
            raise MachineError(
                f"the lab host did not start: {tries.last_words(self._log) or error.message}",
                log=self._log,
            ) from error

    def _go_on(self) -> None:
        """Wait until the saved machine runs and answers."""
        deadline = Deadline(_START_TIMEOUT_S)
        while self.qmp.execute("query-status")["status"] == "inmigrate":
            if deadline.expired():
                raise MachineError(f"no saved state was loaded in {deadline.timeout_s:.0f} s")
            time.sleep(_POLL_S)
        # It was stopped when it was saved.
        self.qmp.execute("cont")
        self.boot_ids.append(self.image.boot_id)
        self.run("true")

    def wait_ready(self, timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Wait for a boot that was not seen yet to come up; its boot id.

        Raises GuestError when none does in time, MachineError when QEMU ends.
        """
        seen = "".join(f"(?!{boot})" for boot in self.boot_ids)
        pattern = _READY.replace("(", f"{seen}(")
        found = self.console.wait_for(pattern, "boot that came up", timeout_s, self.alive)
        self.boot_ids.append(found[1])
        return found[1]

    @property
    def entry(self) -> Host:
        """What a hosts.toml says of it, from its start on."""
        return Host(
            name="lab-host",
            address="127.0.0.1",
            port=self.ssh_port,
            key=self.key_path,
            known_hosts=self.known_hosts,
            console=("tail", "-c", "+1", "-f", str(self.console.log_path)),
        )

    def shell(self, timeout_s: float = _SSH_TIMEOUT_S) -> Shell:
        """A new ssh connection as root, the host key checked. Raises GuestError."""
        host_key = parse_host_key(self.image.host_key)
        return Shell(self.ssh_port, self.key_path, host_key, timeout_s=timeout_s)

    def run(self, *argv: str, timeout_s: float = _COMMAND_TIMEOUT_S) -> ShellResult:
        """Run one command as root, over a connection of its own. Raises GuestError."""
        shell = self.shell()
        try:
            return shell.run(argv, timeout_s=timeout_s)
        finally:
            shell.close()

    def inject(self, check: MachineCheck) -> None:
        """Have a processor take a machine check. Raises MachineError.

        QEMU sets the registers of the bank and lets the host's kernel find them.
        """
        self.qmp.human(check.command)

    def power_cycle(self) -> str:
        """Press the reset button, whatever the host does; the boot id of the boot after it.

        The disk is as the host left it. Raises as wait_ready().
        """
        self.qmp.execute("system_reset")
        return self.wait_ready()

    def save(self) -> None:
        """Write the machine to the image's state file, and end it. Raises MachineError."""
        self.qmp.execute("stop")
        self.qmp.execute("migrate", {"uri": f"file:{self.image.state}"})
        deadline = Deadline(_SAVE_TIMEOUT_S)
        while (found := self.qmp.execute("query-migrate")).get("status") != "completed":
            if found.get("status") in ("failed", "cancelled") or deadline.expired():
                raise MachineError(
                    f"the lab host was not saved after {deadline.elapsed_s():.0f} s: "
                    f"{printable(str(found.get('error-desc', found.get('status'))))}"
                )
            time.sleep(_POLL_S)
        # Its disk is written out when QEMU ends by itself.
        self.qmp.execute("quit")
        assert self._child is not None
        try:
            self._child.wait(deadline.left_s())
        except subprocess.TimeoutExpired as error:
            raise HostError("QEMU did not end after saving the lab host") from error

    def stop(self) -> None:
        """End it; safe to call twice."""
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self._private, ignore_errors=True)
            if self._child is not None:
                stack.callback(proc.kill_group, self._child)
            if self._qmp is not None:
                stack.callback(self._qmp.close)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher of a QEMU child process: no daemon, nothing left behind."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.agent import Agent
from harness.console import Console
from harness.errors import GuestError, HostError, MachineError
from harness.machine.base import MachineSpec
from harness.provision.qemu import Qemu
from harness.qmp import Qmp
from harness.rundir import RunDir
from harness.timeouts import Deadline

GIB = 1 << 30
MIB = 1 << 20
LOW_MEMORY = 2 * GIB
DISK_BYTES = 16 * MIB
_START_TIMEOUT_S = 20.0
_QUIT_TIMEOUT_S = 10.0
_PORT_TRIES = 5
MOST_CONSOLE_BYTES = 64 * MIB
_VIRTIO = "iommu_platform=on,disable-legacy=on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Where QEMU's ends go: inherited file descriptors, paths, the forwarded port."""

    qmp_fd: int
    agent_fd: int
    ssh_port: int
    console_socket: Path
    console_log: Path
    events: Path
    disk: Path


def plugin_argument(spec: MachineSpec, events: Path) -> str:
    """QEMU's -plugin argument. Memory above 2 GiB lies above 4 GiB (see arguments())."""
    memory = spec.memory_mib * MIB
    below = min(memory, LOW_MEMORY)
    switches = f"track={'on' if spec.track else 'off'},single={_switch(spec.single_thread)}"
    # A comma inside a path is written twice.
    plugin, out = (str(path).replace(",", ",,") for path in (spec.plugin, events))
    return (
        f"{plugin},out={out},vcpus={spec.smp},below4g={below},above4g={memory - below},{switches}"
    )


def _switch(on: bool) -> str:
    return "on" if on else "off"


def arguments(spec: MachineSpec, wiring: Wiring) -> list[str]:
    """QEMU's arguments behind the program; pure.

    -cpu: without the vendor the kernel's AMD code resets what the TDX code found out, and without
    the level leaf 0x21 is out of range. smm=off: a TD has no SMM, and the plugin would not see
    the control registers that an SMI changes.
    """
    console = _path(wiring.console_socket), _path(wiring.console_log)
    words = ["-machine", f"q35,max-ram-below-4g={LOW_MEMORY},smm=off"]
    words += ["-accel", f"tcg,thread={'single' if spec.single_thread else 'multi'}"]
    words += ["-cpu", "max,vendor=GenuineIntel,level=0x21"]
    words += ["-m", str(spec.memory_mib), "-smp", str(spec.smp)]
    words += ["-no-reboot", "-display", "none", "-nodefaults", "-no-user-config"]
    words += ["-kernel", str(spec.kernel), "-initrd", str(spec.initrd), "-append", spec.cmdline]
    words += [
        "-chardev",
        f"socket,id=con,path={console[0]},server=on,wait=off,logfile={console[1]}",
    ]
    words += ["-serial", "chardev:con"]
    words += ["-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}", "-mon", "chardev=qmp,mode=control"]
    words += ["-device", f"virtio-serial-pci,{_VIRTIO}"]
    words += ["-chardev", f"socket,id=agent,fd={wiring.agent_fd}"]
    words += ["-device", "virtserialport,chardev=agent,name=tdharness.agent"]
    words += ["-device", "pvpanic-pci", "-device", "edu,dma_mask=0xffffffff"]
    words += ["-device", f"virtio-rng-pci,{_VIRTIO}"]
    words += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{wiring.ssh_port}-:22"]
    words += ["-device", f"virtio-net-pci,netdev=net,romfile=,{_VIRTIO}"]
    words += ["-drive", f"id=disk,file={_path(wiring.disk)},format=raw,if=none"]
    words += ["-device", "nvme,serial=tdharness,drive=disk"]
    if spec.td_mode == "stub":
        words += ["-plugin", plugin_argument(spec, wiring.events)]
    return words


def _path(path: Path) -> str:
    """A path inside a QEMU option, where a comma is written twice."""
    return str(path).replace(",", ",,")


def free_port() -> int:
    """A port of 127.0.0.1 that is free now; another program may take it before QEMU does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watch:
    """Looks at the console's log while someone waits for the guest."""

    def __init__(self, log_path: Path) -> None:
        self._log_path = log_path

    def look(self) -> None:
        """Raises GuestError when the guest floods its console."""
        try:
            size = self._log_path.stat().st_size
        except FileNotFoundError:
            return
        if size > MOST_CONSOLE_BYTES:
            raise GuestError(
                f"the guest flooded its console: {size // MIB} MiB were printed",
                hint="what it repeats is in the log",
                log=self._log_path,
            )


class QemuMachine:
    """A guest in a QEMU child process. The fields of Machine are documented there."""

    def __init__(self, spec: MachineSpec, qemu: Qemu, run: RunDir) -> None:
        self.spec = spec
        self._qemu = qemu
        self._run = run
        self._child: subprocess.Popen[bytes] | None = None
        self._qmp: Qmp | None = None
        self._agent: Agent | None = None
        # Paths of unix sockets are limited to 107 bytes, and a run directory may be deep.
        self.private = Path(tempfile.mkdtemp(prefix="tdharness-"))
        self.console = Console(self.private / "console", run.console_log)
        self.ssh_port = 0

    @property
    def qmp(self) -> Qmp:
        if self._qmp is None:
            raise MachineError("the machine is not running, so there is no QMP")
        return self._qmp

    @property
    def agent(self) -> Agent:
        if self._agent is None:
            raise MachineError("the machine is not running, so there is no agent")
        return self._agent

    @property
    def exit_code(self) -> int | None:
        """QEMU's exit status; None before its end."""
        return self._child.poll() if self._child else None

    @property
    def pid(self) -> int:
        """Process id of QEMU, 0 before its start."""
        return self._child.pid if self._child else 0

    def start(self) -> None:
        disk = self.private / "disk"
        disk.touch()
        os.truncate(disk, DISK_BYTES)
        for left in reversed(range(_PORT_TRIES)):
            self.ssh_port = free_port()
            try:
                self._start_once(disk)
                return
            except MachineError:
                # Someone took the port in between: QEMU says so and ends.
                if not left or "Could not set up host forwarding" not in self.last_words():
                    raise

    def _start_once(self, disk: Path) -> None:
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        wiring = Wiring(
            qmp_fd=theirs[0].fileno(),
            agent_fd=theirs[1].fileno(),
            ssh_port=self.ssh_port,
            console_socket=self.console.socket_path,
            console_log=self._run.console_log,
            events=self._run.events,
            disk=disk,
        )
        argv = [*self._qemu.argv_prefix, *arguments(self.spec, wiring)]
        self._run.argv.write_text(proc.pasteable(argv) + "\n")
        try:
            with self._run.qemu_log.open("wb") as output:
                self._child = proc.spawn(
                    argv,
                    stdout=output,
                    env={**os.environ, **self._qemu.env},
                    pass_fds=[end.fileno() for end in theirs],
                )
        finally:
            for end in theirs:
                end.close()
        self._agent = Agent(ours[1], Watch(self._run.console_log).look)
        try:
            self._qmp = Qmp(ours[0], self._run.qmp_log, timeout_s=_START_TIMEOUT_S)
        except MachineError as error:
            raise self._start_failed() from error

    def _start_failed(self) -> MachineError:
        self._close_ends()
        deadline = Deadline(2.0)
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(deadline.left_s())
            code = self._child.poll()
            proc.kill_group(self._child)
            state = "did not answer" if code is None else f"ended with {code}"
        words = self.last_words() or "it said nothing"
        return MachineError(f"QEMU {state} at its start: {words}", log=self._run.qemu_log)

    def last_words(self) -> str:
        """The last line of QEMU's own output, bounded."""
        try:
            text = self._run.qemu_log.read_bytes()[-4096:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""

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

    def diagnose(self) -> str:
        if not self.alive():
            code = self._child.poll() if self._child else None
            return f"QEMU has ended with {code}: {self.last_words() or 'it said nothing'}"
        parts = [f"console: {self.console.tail() or 'nothing was printed'}"]
        with contextlib.suppress(MachineError):
            parts.append(f"status: {self.qmp.execute('query-status')}")
            parts.append(self.qmp.human("info registers -a")[: 16 << 10])
        return "\n".join(parts)

    def stop(self) -> None:
        if self.alive() and self._qmp is not None:
            # Asked to quit, QEMU lets the plugin write the trailer of its event stream.
            with contextlib.suppress(MachineError):
                self._qmp.execute("quit")
            self.wait(_QUIT_TIMEOUT_S)
        if self._child is not None:
            proc.kill_group(self._child)
        self._close_ends()
        shutil.rmtree(self.private, ignore_errors=True)

    def _close_ends(self) -> None:
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self._agent is not None:
            self._agent.close()
            self._agent = None


def remove_leftovers(parent: Path | None = None) -> int:
    """Remove private directories of harnesses that were killed; how many there were.

    A directory is left over when no process holds its console socket: connecting is refused.
    """
    removed = 0
    for path in (parent or Path(tempfile.gettempdir())).glob("tdharness-*"):
        console = path / "console"
        if path.stat().st_uid != os.getuid() or not console.exists():
            continue
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(console))
                continue
            except ConnectionRefusedError:
                shutil.rmtree(path, ignore_errors=True)
                removed += 1
            except OSError:
                continue
    return removed


def check_space(path: Path, needed_bytes: int) -> None:
    """Raises HostError when the file system of `path` has less than `needed_bytes` left."""
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        raise HostError(
            f"{path} has {free // MIB} MiB left and a run needs {needed_bytes // MIB} MiB",
            hint="remove old run directories, or name another place with --runs",
        )

# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher of a transient domain of libvirt, on this machine.

The guest is the direct launcher's: the same devices, plugin and files. libvirt starts and ends it,
says how it ended, and hands QMP on.
"""

import contextlib
import hashlib
import secrets
import shlex
import shutil
import socket
from pathlib import Path

from harness.agent import Agent
from harness.errors import ConfigError, MachineError
from harness.live import process
from harness.machine import tries
from harness.machine.arguments import DomainWiring
from harness.machine.base import Ending, MachineSpec
from harness.machine.domain import PREFIX, Owner, domain_xml
from harness.machine.launched import Launched
from harness.machine.libvirtconsole import ConsoleServer
from harness.machine.libvirtlink import Link, library
from harness.machine.libvirtmonitor import Monitor
from harness.provision.cache import cache_dir
from harness.provision.qemu import Qemu
from harness.rundir import RunDir, put, writing
from harness.text import printable
from harness.timeouts import Deadline

_POLL_S = 1.0
_LOCAL = ("qemu:///", "qemu+unix://")
# VIR_CONNECT_CONFIG_FORMAT_QEMU_ARGV, which the Python binding leaves out
_ARGV = "qemu-argv"


def boot_id() -> str:
    """Of this boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def this_owner(run: Path) -> Owner:
    """This process, as the owner of a domain."""
    return Owner(boot_id=boot_id(), process=process(), run=str(run))


def emulator_of(qemu: Qemu, directory: Path) -> Path:
    """One program for libvirt to start: QEMU itself, or a script that starts it.

    Its path is the same in every run, for libvirt asks each new one what it can.
    """
    if len(qemu.argv_prefix) == 1 and not qemu.env:
        return Path(qemu.argv_prefix[0])
    settings = [f"{name}={shlex.quote(value)}" for name, value in qemu.env.items()]
    words = " ".join([*settings, "exec", *map(shlex.quote, qemu.argv_prefix)])
    text = f'#!/bin/sh\n{words} "$@"\n'
    path = directory / f"qemu-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if not path.is_file():
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        put(path, text.encode(), mode=0o755)
    return path


class LibvirtMachine(Launched):
    """A guest in a domain of libvirt. The members of Machine are documented there."""

    def __init__(self, spec: MachineSpec, qemu: Qemu, run: RunDir, uri: str) -> None:
        """Raises ConfigError for what libvirt cannot start, HostError."""
        if not uri.startswith(_LOCAL):
            raise ConfigError(
                f"{printable(uri, 120)}: a guest under the stub needs a libvirt of this machine, "
                "as its files are here",
                hint="qemu:///system, qemu:///session, or qemu+unix:///system?socket=PATH",
            )
        if spec.seed is not None:
            raise ConfigError("a guest with a seed needs the direct launcher: leave --libvirt out")
        self._link = Link(uri)
        super().__init__(spec, qemu, run)
        self._name = f"{PREFIX}{secrets.token_hex(6)}"
        self._monitor = Monitor(self._link, self._name, run.qmp_log)
        self._console_server: ConsoleServer | None = None
        self._started = False

    @property
    def qmp(self) -> Monitor:
        if not self._started:
            raise MachineError("the machine is not running, so there is no QMP")
        return self._monitor

    def start(self) -> None:
        disk = self._make_disk()
        self.ssh_port = tries.free_port()
        agent_socket = self.private / "agent"
        self._create(self._xml(agent_socket, disk))
        self._console_server = ConsoleServer(self._link, self._name, self.console.socket_path)
        self._agent = Agent(_connected(agent_socket), self._look)
        self._watch.restart()
        self._link.call(lambda c: c.lookupByName(self._name).resume(), "the guest's first step")

    def _xml(self, agent_socket: Path, disk: Path) -> str:
        wiring = DomainWiring(
            agent_socket=agent_socket,
            ssh_port=self.ssh_port,
            console_log=self._run.console_log,
            events=self._run.events,
            disk=disk,
        )
        return domain_xml(
            self.spec,
            name=self._name,
            owner=this_owner(self._run.path),
            emulator=emulator_of(self._qemu, cache_dir() / "builds"),
            wiring=wiring,
        )

    def _create(self, xml: str) -> None:
        """The domain, and in the run what a person needs to start it again."""
        libvirt = library()
        self._run.write_text(self._run.domain_xml, xml + "\n")
        words = f"QEMU's own words are in libvirt's log of {self._name}\n"
        self._run.write_text(self._run.qemu_log, words)
        argv = self._link.call(
            lambda c: c.domainXMLToNative(_ARGV, xml),
            "the check of the guest's XML",
        )
        self._run.write_text(self._run.argv, argv)
        # Paused: none of its events comes before someone listens to the agent.
        self._link.call(
            lambda c: c.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED), "the start of the guest"
        )
        self._started = True

    def alive(self) -> bool:
        return self._started and self._monitor.alive()

    def wait(self, timeout_s: float) -> bool:
        deadline = Deadline(timeout_s)
        # The event is lost with a daemon that is restarted, so the daemon is asked besides.
        while not self._monitor.wait(min(_POLL_S, deadline.left_s())):
            if not self.alive():
                return True
            if deadline.expired():
                return False
        return True

    def ending(self) -> Ending | None:
        if not self._started or self.alive():
            return None
        return self._monitor.ending()

    def stop(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.private, ignore_errors=True)
            stack.callback(self._link.close)
            stack.callback(self._close_ends)
            with contextlib.suppress(MachineError):
                if self.alive():
                    destroy(self._link, self._name)

    def _close_ends(self) -> None:
        if self._agent is not None:
            self._agent.close()
        if self._console_server is not None:
            self._console_server.close()
        self._agent = self._console_server = None
        self._started = False


def destroy(link: Link, name: str) -> None:
    """End a domain by SIGTERM and by nothing harder: QEMU lets the plugin write its trailer.

    Raises MachineError.
    """
    graceful = library().VIR_DOMAIN_DESTROY_GRACEFUL
    link.call(lambda c: c.lookupByName(name).destroyFlags(graceful), "the end of the guest")


def _connected(path: Path) -> socket.socket:
    """Our end of the agent's port. Raises MachineError."""
    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(str(path))
    except OSError as error:
        end.close()
        raise MachineError(
            f"the guest's QEMU offers no port for the agent: {error.strerror or error}",
            hint="the user that libvirt runs QEMU as has to write to the temporary directory",
        ) from error
    return end

# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher of a transient domain of libvirt, on this machine or another.

The guest is the direct launcher's: the same devices, plugin and files. libvirt starts and ends it,
says how it ended, and hands QMP on.
"""

import contextlib
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

from harness.agent import Agent
from harness.errors import ConfigError, MachineError
from harness.hosts.ssh import SshRemote, host_of
from harness.live import process
from harness.machine.away import Away
from harness.machine.base import Ending, MachineSpec
from harness.machine.domain import PREFIX, Owner, domain_xml
from harness.machine.launched import Launched
from harness.machine.libvirtconsole import ConsoleServer
from harness.machine.libvirtlink import Link, library
from harness.machine.libvirtmonitor import Monitor
from harness.machine.place import Here, Laid, Place
from harness.provision.qemu import Qemu
from harness.rundir import RunDir
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


class LibvirtMachine(Launched):
    """A guest in a domain of libvirt. The members of Machine are documented there."""

    def __init__(
        self, spec: MachineSpec, qemu: Qemu, run: RunDir, uri: str, place: Place | None = None
    ) -> None:
        """`place`: None for the one that the URI says.

        Raises ConfigError for what libvirt cannot start, HostError.
        """
        host = host_of(uri)
        if not host and not uri.startswith(_LOCAL):
            raise ConfigError(
                f"{printable(uri, 120)}: a guest needs a libvirt of this machine, or one over ssh",
                hint="qemu:///system, qemu:///session, or qemu+ssh://root@HOST/system",
            )
        if spec.seed is not None:
            raise ConfigError("a guest with a seed needs the direct launcher: leave --libvirt out")
        self._link = Link(uri)
        super().__init__(spec, qemu, run)
        self._remote = SshRemote(host) if host and not place else None
        self._place = place or (
            Away(self._remote, run) if self._remote else Here(qemu, run, self.private)
        )
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
        laid = self._place.lay(self.spec, self._link)
        self._create(self._xml(laid))
        self.qemu = replace(laid.qemu, version=self._version())
        self._console_server = ConsoleServer(self._link, self._name, self.console.socket_path)
        self._agent = Agent(self._place.agent(), self._look)
        self.ssh_port = self._place.ssh_port()
        self._watch.restart()
        self._link.call(lambda c: c.lookupByName(self._name).resume(), "the guest's first step")

    def _version(self) -> str:
        found = self._monitor.execute("query-version")["qemu"]
        return ".".join(str(found[part]) for part in ("major", "minor", "micro"))

    def _xml(self, laid: Laid) -> str:
        return domain_xml(
            laid.spec,
            name=self._name,
            owner=this_owner(self._run.path),
            emulator=laid.emulator,
            wiring=laid.wiring,
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
            self.settle()

    def settle(self) -> None:
        if self._started:
            self._place.settle()

    def _close_ends(self) -> None:
        self._place.close()
        if self._remote:
            self._remote.close()
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

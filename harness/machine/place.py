# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a domain has its files and ends: on this machine, or on another (harness.machine.away)."""

import hashlib
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import MachineError
from harness.machine import tries
from harness.machine.arguments import DomainWiring
from harness.machine.base import DISK_BYTES, MachineSpec
from harness.machine.libvirtlink import Link
from harness.provision.cache import cache_dir
from harness.provision.qemu import Qemu
from harness.rundir import RunDir, put, writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """What the domain's XML is made of; its paths are those of the machine that it runs on."""

    spec: MachineSpec
    emulator: Path
    # its version may be left out
    qemu: Qemu
    wiring: DomainWiring


class Place(Protocol):
    """The files of one guest."""

    def lay(self, spec: MachineSpec, link: Link) -> Laid:
        """Have all there that the guest starts from. Raises HarnessError."""

    def agent(self) -> socket.socket:
        """Our end of the agent's port, once the guest was made. Raises HarnessError."""

    def ssh_port(self) -> int:
        """A port of this machine that leads to the guest's ssh server, from then on."""

    def settle(self) -> None:
        """Have in the run what the guest has left so far. Raises HarnessError."""

    def close(self) -> None:
        """Take away what was laid; safe to call twice."""


class Here:
    """A guest of this machine: the run is written to by QEMU itself."""

    def __init__(self, qemu: Qemu, run: RunDir, private: Path) -> None:
        self._qemu = qemu
        self._run = run
        self._private = private
        self._agent = private / "agent"
        self._port = 0

    def lay(self, spec: MachineSpec, link: Link) -> Laid:
        self._port = tries.free_port()
        return Laid(
            spec=spec,
            emulator=emulator_of(self._qemu, cache_dir() / "builds"),
            qemu=self._qemu,
            wiring=DomainWiring(
                agent_socket=self._agent,
                ssh_port=self._port,
                console_log=self._run.console_log,
                events=self._run.events,
                disk=make_disk(self._private),
            ),
        )

    def agent(self) -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(str(self._agent))
        except OSError as error:
            end.close()
            raise MachineError(
                f"the guest's QEMU offers no port for the agent: {error.strerror or error}",
                hint="the user that libvirt runs QEMU as has to write to the temporary directory",
            ) from error
        return end

    def ssh_port(self) -> int:
        return self._port

    def settle(self) -> None:
        pass

    def close(self) -> None:
        pass


def make_disk(directory: Path) -> Path:
    """The guest's empty disk. Raises HostError."""
    disk = directory / "disk"
    with writing(disk), disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    return disk


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""A real libvirtd for tests: in mounts and processes of its own, as root of them only.

Directories of the host that are not the system's (the cache, the place of runs) have the same
paths inside. The machine's own libvirt, if it has one, is neither used nor seen.
"""

import contextlib
import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness import proc
from harness.errors import HostError
from harness.machine.domain import Owner, owner_element
from harness.machine.libvirtlink import Link, library
from harness.machine.private import MOST_SOCKET_PATH_BYTES
from harness.provision.libvirt import STATE, daemon_root
from harness.timeouts import Deadline

_START_TIMEOUT_S = 30.0
# Of the host; no more of /sys, for where libvirtd sees cgroups it makes some.
_CPUS = Path("/sys/devices/system")
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
remember_owner = 0
dynamic_ownership = 0
namespaces = []
cgroup_controllers = []
"""
_LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0700"
"""
# The first process of its namespace: guests outlive the daemon, as on a host, but not this one,
# which ends with the pipe of its commands. Not dash: it keeps orphans that have ended as zombies,
# and libvirtd waits 40 s for each QEMU that it tried.
_KEEPER = """
start() { libvirtd --config /etc/libvirt/libvirtd.conf & daemon=$!; }
start
while read -r word; do
    kill "-$word" "$daemon"
    wait "$daemon"
    start
done
kill "$daemon"
wait "$daemon"
"""


@dataclass(frozen=True, slots=True)
class Libvirtd:
    """A running daemon."""

    uri: str
    socket: Path
    log: Path
    _commands: IO[bytes]

    def restart(self, signal: str = "TERM") -> None:
        """End the daemon by a signal and start it again; guests go on."""
        self.socket.unlink(missing_ok=True)
        self._commands.write(f"{signal}\n".encode())
        self._commands.flush()


@contextlib.contextmanager
def libvirtd(home: Path, visible: Sequence[Path]) -> Iterator[Libvirtd]:
    """A daemon whose state is in `home`, a short path, and that sees the `visible` directories.

    Raises HostError.
    """
    places = {home / path.relative_to("/"): path for path in STATE}
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    (home / "etc/libvirt/qemu.conf").write_text(_QEMU_CONF)
    (home / "etc/libvirt/libvirtd.conf").write_text(_LIBVIRTD_CONF)
    socket = home / "run/libvirt/libvirt-sock"
    if len(str(socket)) > MOST_SOCKET_PATH_BYTES:
        raise HostError(f"the path of libvirt's socket is too long: {socket}")
    binds = {**places, **{path: path for path in (_CPUS, *visible)}}
    argv = daemon_root().command(["bash", "-c", _KEEPER], binds=binds, cwd=Path("/"))
    log = home / "libvirtd.log"
    reader, writer = (os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    with log.open("wb") as output, reader:
        child = proc.spawn(argv, stdout=output, stdin=reader)
    try:
        daemon = Libvirtd(f"qemu+unix:///system?socket={socket}", socket, log, writer)
        wait_for_socket(daemon, child.poll)
        yield daemon
    finally:
        writer.close()
        proc.kill_group(child)


def wait_for_socket(daemon: Libvirtd, status: Callable[[], int | None] = lambda: None) -> None:
    """Wait until the daemon listens, while it has no status yet. Raises HostError."""
    deadline = Deadline(_START_TIMEOUT_S)
    while not daemon.socket.exists():
        if deadline.expired() or status() is not None:
            raise HostError(
                f"libvirtd did not come up within {_START_TIMEOUT_S:.0f} s", log=daemon.log
            )
        time.sleep(0.05)


def idle_domain(link: Link, name: str, emulator: Path, owner: Owner | None) -> None:
    """Start a guest that does nothing and belongs to someone. Raises MachineError."""
    facts = ET.tostring(owner_element(owner), encoding="unicode") if owner else ""
    xml = (
        f"<domain type='qemu'><name>{name}</name><metadata>{facts}</metadata>"
        "<memory unit='MiB'>16</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>"
        f"<devices><emulator>{emulator}</emulator></devices></domain>"
    )
    link.call(lambda c: c.createXML(xml, library().VIR_DOMAIN_START_PAUSED), "a guest")

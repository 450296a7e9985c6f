# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest on another machine: its files are taken there, its evidence is brought here as it grows.

A host needs python3, coreutils and a QEMU that the plugin runs in (11.1). Nothing stays there.
"""

import contextlib
import socket
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import HarnessError, HostError
from harness.hosts import there
from harness.machine.arguments import DomainWiring
from harness.machine.base import DISK_BYTES, MachineSpec
from harness.machine.libvirtlink import Link
from harness.machine.place import Laid
from harness.provision.qemu import Qemu
from harness.pump import cut, join, pump
from harness.remote import Remote, StreamingRemote
from harness.rundir import RunDir, writing
from harness.text import printable
from harness.timeouts import Deadline

# On the host; not /tmp, which is often memory, or a unit's own.
PARENT = Path("/var/tmp")
HOME = "tdharness-guest-"
_TIMEOUT_S = 60.0
_PUSH_TIMEOUT_S = 600.0
_SETTLE_TIMEOUT_S = 120.0
_POLL_S = 0.02
_PROGRAM = Path(there.__file__)


class Away:
    """A Place on a host; `emulator`: None for the QEMU that its libvirt takes."""

    def __init__(
        self,
        remote: StreamingRemote,
        run: RunDir,
        *,
        parent: Path = PARENT,
        emulator: Path | None = None,
    ) -> None:
        self._remote = remote
        self._run = run
        self._parent = parent
        self._emulator = emulator
        self._stub = False
        self._home: Path | None = None
        self._wiring: DomainWiring | None = None
        self._listener: socket.socket | None = None
        self._followed: list[socket.socket] = []

    def lay(self, spec: MachineSpec, link: Link) -> Laid:
        self._stub = spec.td_mode == "stub"
        template = str(self._parent / f"{HOME}XXXXXXXX")
        self._home = home = Path(self._ask(["mktemp", "-d", template]).strip())
        self._wiring = DomainWiring(
            agent_socket=home / "agent",
            ssh_port=int(self._ask([*_there("port")])),
            console_log=home / "console.log",
            events=home / "events",
            disk=home / "disk",
        )
        self._ask(["truncate", "-s", str(DISK_BYTES), str(self._wiring.disk)])
        laid = replace(
            spec,
            kernel=self._push(spec.kernel),
            initrd=self._push(spec.initrd),
            plugin=self._push(spec.plugin) if spec.plugin else None,
            td=replace(spec.td, firmware=self._push(spec.td.firmware)) if spec.td else None,
        )
        self._hand_over(link)
        path = self._emulator or Path(link.call(_emulator, "a look at the host's QEMU"))
        qemu = Qemu(argv_prefix=(str(path),), env={}, version="", origin="the host's libvirt")
        return Laid(spec=laid, emulator=path, qemu=qemu, wiring=self._wiring)

    def _push(self, file: Path) -> Path:
        assert self._home
        to = self._home / PurePosixPath(file).name
        with writing(file):
            data = file.read_bytes()
        words = ["sh", "-c", 'cat > "$1" && chmod 0755 "$1"', "sh", str(to)]
        self._ask(words, stdin=data, timeout_s=_PUSH_TIMEOUT_S)
        return to

    def _hand_over(self, link: Link) -> None:
        """Give the directory to the user that libvirt runs QEMU as, where that is not ours."""
        assert self._home
        user = link.call(_qemu_user, "a look at the host's users")
        if not user or user.split(":")[0] == self._ask(["id", "-u"]).strip():
            return
        try:
            self._ask(["chown", "-R", user, str(self._home)])
        except HostError as error:
            raise HostError(
                f"libvirt there runs QEMU as user {user}, who gets no files of ours: "
                f"{error.message}",
                hint="log in as root, or name your own libvirt: qemu+ssh://HOST/session",
            ) from error

    def agent(self) -> socket.socket:
        assert self._wiring
        end = self._remote.stream(_there("unix", str(self._wiring.agent_socket)))
        for path, here in self._evidence():
            self._follow(path, here)
        return end

    def _evidence(self) -> list[tuple[Path, Path]]:
        """Files there, and what they are here."""
        if not self._wiring:
            return []
        wiring, run = self._wiring, self._run
        events = [(wiring.events, run.events)] if self._stub else []
        return [*events, (wiring.console_log, run.console_log)]

    def _follow(self, path: Path, here: Path) -> None:
        with writing(here):
            file = here.open("wb", buffering=0)
        end = self._remote.stream(_there("follow", str(path)))
        self._followed.append(end)
        pump(end.recv, file.write, file.close)

    def ssh_port(self) -> int:
        assert self._wiring
        command = _there("tcp", str(self._wiring.ssh_port))
        self._listener = listener = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(HarnessError):
                    end = self._remote.stream(command)
                    threading.Thread(target=join, args=(client, end), daemon=True).start()
                    continue
                client.close()

        threading.Thread(target=serve, name="guest ssh", daemon=True).start()
        return int(listener.getsockname()[1])

    def settle(self) -> None:
        if not self._followed:
            return
        deadline = Deadline(_SETTLE_TIMEOUT_S)
        for path, here in self._evidence():
            size = int(self._ask(["stat", "-c", "%s", str(path)]))
            while here.stat().st_size < size:
                if deadline.expired():
                    raise HostError(
                        f"of {path} on the host {here.stat().st_size} bytes of {size} came here "
                        f"within {deadline.timeout_s:.0f} s"
                    )
                time.sleep(_POLL_S)

    def close(self) -> None:
        for end in self._followed:
            cut(end)
        self._followed.clear()
        if self._listener:
            cut(self._listener)
            self._listener = None
        if self._home:
            # Where the host cannot be reached any more it stays there.
            with contextlib.suppress(HarnessError):
                self._ask(["rm", "-rf", str(self._home)])
            self._home = None

    def _ask(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = _TIMEOUT_S) -> str:
        """Output of a command. Raises HostError when it fails."""
        answer = self._remote.run(argv, timeout_s=timeout_s, stdin=stdin)
        if answer.exit_code:
            said = printable(answer.stderr.decode(errors="replace").strip(), 300)
            raise HostError(
                f"{argv[0]} failed on the host with {answer.exit_code}: {said or 'no word'}",
                hint=f"a guest there needs python3, coreutils and space in {self._parent}",
            )
        return answer.stdout.decode(errors="replace")


def remove_home(remote: Remote, kernel: Path) -> None:
    """Take away the directory of the guest that was started from a kernel in it.

    Raises HarnessError when the host cannot be reached.
    """
    if kernel.parent.name.startswith(HOME):
        remote.run(["rm", "-rf", str(kernel.parent)], timeout_s=_TIMEOUT_S)


def _there(*words: str) -> list[str]:
    return ["python3", "-c", _PROGRAM.read_text(), *words]


def _emulator(connection: Any) -> str:
    """The QEMU that libvirt takes for the stub's machine."""
    facts = ET.fromstring(connection.getDomainCapabilities(None, "x86_64", "q35", "qemu", 0))
    return facts.findtext("path") or ""


def _qemu_user(connection: Any) -> str:
    """uid:gid of QEMU as libvirt starts it; "" where it does not say."""
    for model in ET.fromstring(connection.getCapabilities()).iterfind("host/secmodel"):
        if model.findtext("model") == "dac":
            label = model.findtext("baselabel[@type='qemu']") or ""
            return label.replace("+", "")
    return ""

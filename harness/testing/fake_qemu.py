# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that stands for QEMU, with a guest in it that boots at once and answers its agent.

    python -m harness.testing.fake_qemu <options of the real one>

It speaks QMP and the agent's protocol, keeps the console's log, and writes an event stream. The
variable FAKE_QEMU says what goes wrong, and when: `boot=panic,quit=cut`. The moments are start,
qmp, boot, convert (at a `tdh convert` of the guest) and quit; what can go wrong is in FAULTS. A
command `fake NAME` in the guest does it then.
"""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.testing.events import StreamBuilder, encode_header, encode_trailer

RELEASE = "6.12.0-fake"
BOOT_ID = "0f0f0f0f-1111-2222-3333-444444444444"
LAST_WORDS = "qemu-system-x86_64: no such luck"
PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
FLOOD_LINE = "the same line again and again"
GARBAGE = b"\xff\x00\x1b[2J{{{ 7 = 8 = \r\n1 =\n0 ! what\n\n" * 20
_FLOOD_BYTES = 8 << 20
_VARIABLE = "FAKE_QEMU"
_STAMP = {"seconds": 1, "microseconds": 2}
_GPA, _PAGE = 0x1234000, 4096
_TOKEN = re.compile(
    r"tdh mark kind=(?P<kind>\d) id=(?P<mark>\d+)|tdh (?P<verb>convert|fault)|fake (?P<fault>\S+)"
)


def host_key() -> str:
    """A public key as the guest's ssh server would show it."""
    words = (b"ssh-ed25519", bytes(range(32)))
    data = b"".join(struct.pack(">I", len(word)) + word for word in words)
    return f"ssh-ed25519 {base64.b64encode(data).decode()} root@guest"


def option(argv: Sequence[str], name: str, wanted: str = "") -> dict[str, str]:
    """The fields of the option `name` whose value holds the word `wanted`; empty without one."""
    for at, word in enumerate(argv[:-1]):
        if word == name:
            parts = argv[at + 1].replace(",,", "\0").split(",")
            if not wanted or wanted in parts:
                pairs = (part.replace("\0", ",").partition("=") for part in parts)
                return {key: value for key, _, value in pairs}
    return {}


class Fake:
    """One run of the program."""

    def __init__(self, argv: Sequence[str], faults: dict[str, str]) -> None:
        self._faults = faults
        self._start_s = time.monotonic()
        console = option(argv, "-chardev", "id=con")
        self.private = Path(console["path"]).parent
        self._log = Path(console["logfile"])
        self._log.write_bytes(b"")
        self._console = socket.socket(socket.AF_UNIX)
        self._console.bind(console["path"])
        self._console.listen()
        self.qmp = socket.socket(fileno=int(option(argv, "-chardev", "id=qmp")["fd"]))
        self.agent = self._agent(argv)
        plugin = option(argv, "-plugin")
        self._events = Path(plugin["out"]) if plugin else None
        self._stream = StreamBuilder(vcpus=int(plugin.get("vcpus", "1")))
        self._written = 0
        self._lock = threading.Lock()
        self._continued = threading.Event()
        if self._events:
            self._events.write_bytes(encode_header(vcpus=self._stream.vcpus))

    def _agent(self, argv: Sequence[str]) -> socket.socket:
        if agent := option(argv, "-chardev", "id=agent"):
            return socket.socket(fileno=int(agent["fd"]))
        # A guest that has a script in its agent's place; here it never gets to it.
        Path(option(argv, "-chardev", "id=transcript")["path"]).touch()
        end, self._nobody = socket.socketpair()
        return end

    def happen(self, moment: str) -> None:
        """Do what is to go wrong at this moment."""
        if fault := self._faults.get(moment):
            FAULTS[fault](self)

    def print(self, words: str) -> None:
        """A line of the guest's kernel on the console."""
        stamp = time.monotonic() - self._start_s
        with self._log.open("ab") as file:
            file.write(f"[{stamp:12.6f}] {words}\r\n".encode())

    def record(self) -> None:
        """Let the stream's file hold what the builder has."""
        if self._events:
            with self._events.open("ab") as file:
                file.write(b"".join(self._stream.records[self._written :]))
        self._written = len(self._stream.records)

    def end(self, status: int = 0, *, whole: bool = True) -> NoReturn:
        """Exit as QEMU does, the stream's trailer written."""
        with self._lock:
            if self._events and whole:
                with self._events.open("ab") as file:
                    file.write(encode_trailer(b"".join(self._stream.records)))
            sys.stderr.flush()
            os._exit(status)

    def serve_console(self) -> None:
        """Say back what a person types."""
        while True:
            end, _ = self._console.accept()
            while data := end.recv(4096):
                end.sendall(data)
            end.close()

    def serve_qmp(self) -> None:
        """Answer every command; `quit` ends the program."""
        self.happen("qmp")
        version = {"qemu": {"major": 11, "minor": 1, "micro": 0}, "package": ""}
        self._tell({"QMP": {"version": version, "capabilities": []}})
        for command in self._commands():
            name = command["execute"]
            answer = {"id": command["id"]} if "id" in command else {}
            if name == "quit":
                self.happen("quit")
            if name == "query-status":
                self._tell({"return": {"status": "running", "running": True}, **answer})
            elif name == "human-monitor-command":
                self._tell({"return": "CPU#0\r\nRIP=ffffffff81000010\r\n", **answer})
            elif name in ("qmp_capabilities", "cont", "stop", "quit"):
                self._tell({"return": {}, **answer})
            else:
                error = {"class": "CommandNotFound", "desc": f"no command {name}"}
                self._tell({"error": error, **answer})
            if name == "cont":
                self._continued.set()
            if name == "stop":
                self._tell({"event": "STOP", "timestamp": _STAMP})
            if name == "quit":
                self.shut_down("host-qmp-quit")

    def shut_down(self, reason: str) -> NoReturn:
        """Say why, and exit in order."""
        self._tell({"event": "SHUTDOWN", "data": {"reason": reason}, "timestamp": _STAMP})
        self.end()

    def _commands(self) -> Iterator[dict[str, Any]]:
        """What the host says on QMP; nothing parts one command from the next."""
        rest = ""
        while data := self.qmp.recv(4096):
            rest += data.decode()
            with contextlib.suppress(json.JSONDecodeError):
                while rest.lstrip():
                    command, end = json.JSONDecoder().raw_decode(rest.lstrip())
                    rest = rest.lstrip()[end:]
                    yield command

    def _tell(self, message: object) -> None:
        self.qmp.sendall(json.dumps(message).encode() + b"\r\n")

    def boot(self) -> None:
        """The guest, from QMP's `cont` to the greeting of its agent."""
        self._continued.wait()
        self.print(f"Linux version {RELEASE} (nobody@nowhere)")
        self.print("tdx: Guest detected")
        self.print("Memory Encryption Features active: Intel TDX")
        self.happen("boot")
        self.print("tdharness: user space")
        # A host that has left is none of QEMU's business.
        with contextlib.suppress(OSError):
            self.agent.sendall(f"ready {BOOT_ID}\n".encode())

    def serve_agent(self) -> NoReturn:
        """Run commands; when the host leaves, the program goes on as QEMU does."""
        with contextlib.suppress(OSError):
            for line in self.agent.makefile("rb"):
                number, _, command = line.decode(errors="replace").rstrip("\n").partition(" ")
                with self._lock:
                    output = self._run(command)
                text = "".join(f"{number} | {shown}\n" for shown in output)
                self.agent.sendall(f"{text}{number} = 0\n".encode())
        threading.Event().wait()
        raise AssertionError

    def _run(self, command: str) -> list[str]:
        if command.startswith("uname -r"):
            return [RELEASE, "ffffffff81000000 T _text"]
        if "host_key.pub" in command:
            return [host_key()]
        for token in _TOKEN.finditer(command):
            if token["kind"]:
                word = "begin" if token["kind"] == "1" else "end"
                self.print(f"tdharness: mark {word} {token['mark']}")
                self._stream.mark(int(token["kind"]), int(token["mark"]))
            elif token["verb"]:
                self._convert(bad=token["verb"] == "fault")
            else:
                self._fail(token["fault"])
            self.record()
        return ["ok"]

    def _fail(self, fault: str) -> None:
        # A fault may end the program, which takes the lock, or hang while the host says quit.
        self._lock.release()
        FAULTS[fault](self)
        self._lock.acquire()

    def _convert(self, *, bad: bool) -> None:
        if not bad and (fault := self._faults.get("convert")):
            self._fail(fault)
        if bad:
            self._stream.convert(_GPA, _PAGE, to_shared=True, dirty=64, flushed=0)
        else:
            self._stream.convert(_GPA, _PAGE, to_shared=True)
        self._stream.convert(_GPA, _PAGE, to_shared=False)
        self._stream.accept(_GPA)


def _die(fake: Fake) -> None:
    print(LAST_WORDS, file=sys.stderr)
    fake.end(1, whole=False)


def _port_taken_once(fake: Fake) -> None:
    marker = fake.private / "taken"
    if not marker.exists():
        marker.touch()
        # QEMU removes its socket at its end.
        (fake.private / "console").unlink()
        print("qemu: -netdev user: Could not set up host forwarding rule", file=sys.stderr)
        fake.end(1, whole=False)


def _hang(_: Fake) -> None:
    threading.Event().wait()


def _panic(fake: Fake) -> None:
    fake.print(PANIC)
    fake.record()
    fake.shut_down("guest-panic")


def _reboot(fake: Fake) -> None:
    fake.print("reboot: Restarting system")
    fake.record()
    fake.shut_down("guest-reset")


def _lose(_: Fake) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _flood(fake: Fake) -> None:
    for _ in range(0, _FLOOD_BYTES, 256 * len(FLOOD_LINE)):
        fake.print("\r\n".join([FLOOD_LINE] * 256))
        time.sleep(0.001)
    _hang(fake)


def _qmp_garbage(fake: Fake) -> None:
    fake.qmp.sendall(GARBAGE)
    _hang(fake)


def _agent_garbage(fake: Fake) -> None:
    fake.agent.sendall(GARBAGE)
    _hang(fake)


def _cut(fake: Fake) -> None:
    fake.end(whole=False)


def _warn(fake: Fake) -> None:
    fake.print("WARNING: CPU: 0 PID: 80 at kernel/dma/direct.c:333 f+0x5c/0x90")


FAULTS: dict[str, Callable[[Fake], None]] = {
    "die": _die,
    "port-taken-once": _port_taken_once,
    "hang": _hang,
    "panic": _panic,
    "reboot": _reboot,
    "lose": _lose,
    "flood": _flood,
    "qmp-garbage": _qmp_garbage,
    "agent-garbage": _agent_garbage,
    "cut": _cut,
    "warn": _warn,
}


def faults_of(words: str) -> dict[str, str]:
    """`boot=panic,quit=cut` as moments and faults."""
    return dict(word.split("=", 1) for word in words.split(",") if word)


def main() -> None:
    """Start as QEMU does, and run until told to quit."""
    fake = Fake(sys.argv[1:], faults_of(os.environ.get(_VARIABLE, "")))
    fake.happen("start")
    for serve in (fake.serve_console, fake.serve_qmp):
        threading.Thread(target=serve, daemon=True).start()
    fake.boot()
    fake.serve_agent()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0-or-later
"""ssh, against a real server in this process that can also misbehave."""

import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from harness import proc
from harness import shell as module
from harness.errors import GuestError
from harness.shell import Shell, make_key, parse_host_key

PROMPT_S = 5.0
Work = Callable[[paramiko.Channel, str], None]


def obey(channel: paramiko.Channel, command: str) -> None:
    """Run the command as an ssh server does: by a shell."""
    result = proc.run(["sh", "-c", command], timeout_s=PROMPT_S, check=False)
    channel.sendall(result.stdout.encode())
    channel.sendall_stderr(result.stderr.encode())
    channel.send_exit_status(result.returncode)


class Server(paramiko.ServerInterface):
    """Lets one key in, and gives commands to `work`."""

    def __init__(self, public_key: str, work: Work | None) -> None:
        self._public_key = public_key
        self._work = work

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = username == "root" and key.get_base64() == self._public_key.split()[1]
        return AUTH_SUCCESSFUL if known else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        work = self._work
        if work is None:
            # Never answer: this is the server's only thread.
            time.sleep(1.0)
            return False

        def run() -> None:
            with suppress(OSError, EOFError), channel:
                work(channel, command.decode())

        start_after_reply(channel.get_transport(), run)
        return True


def start_after_reply(transport: Any, run: Callable[[], None]) -> None:
    """Start `run` in a thread once the request has been answered: not sooner, or it races."""
    send = transport._send_user_message

    def send_and_start(message: object) -> None:
        transport._send_user_message = send
        send(message)
        threading.Thread(target=run, daemon=True).start()

    transport._send_user_message = send_and_start


class Guest:
    """An ssh server on a port of its own, and the client's key."""

    def __init__(self, directory: Path) -> None:
        self.key_path = directory / "key"
        self.public_key = make_key(self.key_path)
        make_key(directory / "host_key")
        self._host_key = paramiko.Ed25519Key(filename=str(directory / "host_key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._transports: list[paramiko.Transport] = []
        self.work: Work | None = obey
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def host_key_line(self) -> str:
        return f"ssh-ed25519 {self._host_key.get_base64()} root@guest"

    def _serve(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(end)
            transport.add_server_key(self._host_key)
            self._transports.append(transport)
            with suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=Server(self.public_key, self.work))

    def lose(self) -> None:
        """Cut all connections."""
        for transport in self._transports:
            transport.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.lose()


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    server = Guest(tmp_path)
    yield server
    server.close()


@pytest.fixture
def connect(guest: Guest) -> Iterator[Callable[[], Shell]]:
    connections: list[Shell] = []

    def start() -> Shell:
        key = parse_host_key(guest.host_key_line)
        connections.append(Shell(guest.port, guest.key_path, key, timeout_s=PROMPT_S))
        return connections[-1]

    yield start
    for connection in connections:
        connection.close()
        connection.close()


def test_status_and_outputs(connect: Callable[[], Shell]) -> None:
    shell = connect()
    result = shell.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=PROMPT_S)
    assert (result.rc, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert shell.run(["true"], timeout_s=PROMPT_S).rc == 0


def test_words_arrive_as_they_are(connect: Callable[[], Shell]) -> None:
    words = ["", " ", "a b", "'", '"', "`id`", "$(id)", "$HOME", "\\", "*", ";", "&", "\n", "-n"]
    words += ["ä", "!", "last"]
    result = connect().run(["printf", "[%s]", *words], timeout_s=PROMPT_S)
    assert result.stdout == "".join(f"[{word}]" for word in words)


def test_output_beyond_the_window_on_either_side(
    connect: Callable[[], Shell], guest: Guest
) -> None:
    size = 3 << 20

    def talk(channel: paramiko.Channel, command: str) -> None:
        channel.sendall_stderr(b"e" * size)
        channel.sendall(b"o" * size)
        channel.sendall_stderr(b"e")
        channel.send_exit_status(0)

    guest.work = talk
    result = connect().run(["talk"], timeout_s=30.0)
    assert (len(result.stdout), len(result.stderr)) == (size, size + 1)


def test_output_is_bounded(
    connect: Callable[[], Shell], guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OUTPUT_BYTES", 1000)

    def talk(channel: paramiko.Channel, command: str) -> None:
        channel.sendall(b"o" * 300_000)
        channel.sendall_stderr(b"\xff" * 999)
        channel.send_exit_status(0)

    guest.work = talk
    result = connect().run(["talk"], timeout_s=PROMPT_S)
    assert (len(result.stdout), len(result.stderr)) == (1000, 999)


def never_ends(channel: paramiko.Channel, command: str) -> None:
    channel.recv(1)


def drips(channel: paramiko.Channel, command: str) -> None:
    while True:
        channel.sendall(b".")
        time.sleep(0.01)


def keeps_output_open(channel: paramiko.Channel, command: str) -> None:
    channel.send_exit_status(0)
    channel.recv(1)


@pytest.mark.parametrize("work", [never_ends, drips, keeps_output_open])
def test_command_that_does_not_end(connect: Callable[[], Shell], guest: Guest, work: Work) -> None:
    guest.work = work
    shell = connect()
    start_s = time.monotonic()
    with pytest.raises(GuestError, match=r"sleep over ssh failed after 0\.\d s: it did not end"):
        shell.run(["sleep", "9"], timeout_s=0.3)
    assert time.monotonic() - start_s < PROMPT_S


def test_server_that_stands_still(
    connect: Callable[[], Shell], guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_S", 0.1)
    guest.work = None
    shell = connect()
    start_s = time.monotonic()
    with pytest.raises(GuestError, match="true over ssh failed"):
        shell.run(["true"], timeout_s=0.2)
    assert time.monotonic() - start_s < 0.9


def test_command_without_a_status(connect: Callable[[], Shell], guest: Guest) -> None:
    guest.work = lambda channel, command: channel.sendall(b"bye")
    with pytest.raises(GuestError, match="ended without an exit status"):
        connect().run(["true"], timeout_s=PROMPT_S)


def test_lost_connection(
    connect: Callable[[], Shell], guest: Guest, quiet: Callable[[], None]
) -> None:
    guest.work = lambda channel, command: guest.lose()
    shell = connect()
    start_s = time.monotonic()
    for _ in range(2):
        with pytest.raises(GuestError, match="over ssh"):
            shell.run(["true"], timeout_s=60.0)
    shell.close()
    with pytest.raises(GuestError, match="the connection is closed"):
        shell.run(["true"], timeout_s=60.0)
    assert time.monotonic() - start_s < PROMPT_S
    quiet()


def test_another_host_key(guest: Guest, tmp_path: Path, quiet: Callable[[], None]) -> None:
    other = parse_host_key(make_key(tmp_path / "other"))
    with pytest.raises(GuestError, match="another host key than the one that the guest") as caught:
        Shell(guest.port, guest.key_path, other, timeout_s=PROMPT_S)
    assert "another program may listen" in str(caught.value)
    quiet()


def test_key_that_the_guest_refuses(guest: Guest, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    with pytest.raises(GuestError, match="refused the key"):
        key = parse_host_key(guest.host_key_line)
        Shell(guest.port, tmp_path / "other", key, timeout_s=PROMPT_S)


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50])
def test_port_that_speaks_no_ssh(guest: Guest, greeting: bytes) -> None:
    ends = []

    def greet() -> None:
        ends.append(listener.accept()[0])
        with suppress(OSError):
            ends[0].sendall(greeting)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet)
        thread.start()
        port = listener.getsockname()[1]
        start_s = time.monotonic()
        with pytest.raises(GuestError, match=f"no ssh to the guest on port {port}"):
            Shell(port, guest.key_path, parse_host_key(guest.host_key_line), timeout_s=0.3)
        assert time.monotonic() - start_s < PROMPT_S
        thread.join()
    ends[0].close()


def test_port_without_a_listener(guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(GuestError, match="no ssh to the guest"):
        Shell(port, guest.key_path, parse_host_key(guest.host_key_line), timeout_s=PROMPT_S)


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    line = make_key(tmp_path / "key")
    assert line.startswith("ssh-ed25519 ") and "\n" not in line
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_key(tmp_path / "key")
    assert make_key(tmp_path / "other") != line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\x1b[2J",
        "ssh-ed25519",
        "ssh-ed25519 ????",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC7",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAQA=",
    ],
)
def test_what_is_no_host_key(line: str) -> None:
    with pytest.raises(GuestError, match="host key is not one") as caught:
        parse_host_key(line)
    assert "\x1b" not in str(caught.value)

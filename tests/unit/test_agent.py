# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's side of the agent, against guests that do as they like."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from harness import agent as module
from harness.agent import MOST_LINE_BYTES, OUTPUT_CUT, Agent
from harness.errors import GuestError, MachineError

PROMPT_S = 2.0


def no_watch() -> None:
    """Sees nothing."""


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The host's end and the guest's."""
    ours, guests = socket.socketpair()
    with ours, guests:
        yield ours, guests


@pytest.fixture
def guest(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    return pair[1]


@pytest.fixture
def agent(pair: tuple[socket.socket, socket.socket]) -> Agent:
    return Agent(pair[0], no_watch)


@pytest.fixture
def stream(guest: socket.socket) -> Iterator[Callable[[bytes], None]]:
    """Lets the guest send the same bytes again and again until the test's end."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def start(data: bytes) -> None:
        def send() -> None:
            guest.settimeout(0.1)
            while not ended.is_set():
                with suppress(TimeoutError):
                    guest.sendall(data)

        threads.append(threading.Thread(target=send))
        threads[-1].start()

    yield start
    ended.set()
    for thread in threads:
        thread.join()


def test_greeting_and_commands(agent: Agent, guest: socket.socket) -> None:
    guest.sendall(b"ready 1234-5678\n")
    assert agent.wait_ready(PROMPT_S) == agent.boot_id == "1234-5678"
    guest.sendall(b"1 | one\n1 | \n1 |  two = 3\n1 = 7\n2 = 0\n")
    assert agent.run("echo one", PROMPT_S) == (7, "one\n\n two = 3\n")
    assert agent.run("true", PROMPT_S) == (0, "")
    assert guest.recv(100) == b"1 echo one\n2 true\n"


def test_output_that_comes_in_pieces(agent: Agent, guest: socket.socket) -> None:
    def send() -> None:
        for piece in (b"1", b" | a\xc3", b"\xa4b", b"c\n1 ", b"= ", b"0\n"):
            guest.sendall(piece)
            time.sleep(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    assert agent.run("x", PROMPT_S) == (0, "aäbc\n")
    thread.join()


def test_garbage_is_dropped_and_counted(agent: Agent, guest: socket.socket) -> None:
    garbage = [b"\xff\x00", b"", b"0 ! what", b"1", b"1 ?", b"2 = 0", b"-1 = 0", b"=", b"1 =0"]
    guest.sendall(b"\n".join(garbage) + b"\nready x\n")
    agent.wait_ready(PROMPT_S)
    assert agent.dropped_lines == len(garbage)
    guest.sendall(b"\n".join(garbage) + b"\n1 = 3\n")
    assert agent.run("true", PROMPT_S) == (3, "")
    assert agent.dropped_lines == 2 * len(garbage)


def test_late_answers_belong_to_no_one(agent: Agent, guest: socket.socket) -> None:
    with pytest.raises(GuestError):
        agent.run("slow", 0.05)
    guest.sendall(b"1 | late\n1 = 0\n2 | mine\n2 = 1\n")
    assert agent.run("quick", PROMPT_S) == (1, "mine\n")


@pytest.mark.parametrize("status", [b"", b"x", b"0x", b"\xff"])
def test_status_that_is_none(agent: Agent, guest: socket.socket, status: bytes) -> None:
    guest.sendall(b"1 = " + status + b"\n")
    with pytest.raises(GuestError, match="exit status"):
        agent.run("true", PROMPT_S)


def test_guest_that_never_reports(agent: Agent) -> None:
    start_s = time.monotonic()
    with pytest.raises(GuestError, match=r"within 0 s of the wait for user space") as caught:
        agent.wait_ready(0.2)
    assert 0.2 <= time.monotonic() - start_s < PROMPT_S
    assert caught.value.hint


def test_command_that_never_ends(agent: Agent) -> None:
    with pytest.raises(GuestError, match=r"within 0 s of 'sleep 9'"):
        agent.run("sleep 9", 0.2)


@pytest.mark.parametrize("data", [b"noise\n" * 1000, b"x" * 5000, b"1 | y\n" * 1000])
def test_guest_that_never_stops_talking(
    agent: Agent, stream: Callable[[bytes], None], data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OUTPUT_BYTES", 10_000)
    stream(data)
    start_s = time.monotonic()
    with pytest.raises(GuestError, match="no answer"):
        agent.run("true", 0.1)
    with pytest.raises(GuestError, match="no answer"):
        agent.wait_ready(0.1)
    assert time.monotonic() - start_s < PROMPT_S
    assert len(agent._rest) <= MOST_LINE_BYTES


def test_line_without_end_is_cut(agent: Agent, guest: socket.socket) -> None:
    size = 3 * MOST_LINE_BYTES
    sender = threading.Thread(target=guest.sendall, args=(b"1 | " + b"z" * size + b"\n1 = 0\n",))
    sender.start()
    rc, output = agent.run("yes", PROMPT_S)
    sender.join()
    assert rc == 0
    assert output.rstrip("\n").strip("z") == ""
    assert 0 < len(output) <= MOST_LINE_BYTES


def test_output_is_bounded(
    agent: Agent, guest: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OUTPUT_BYTES", 100)
    guest.sendall(b"1 | 123456789\n" * 50 + b"1 = 0\n")
    rc, output = agent.run("yes", PROMPT_S)
    assert rc == 0
    assert output == "123456789\n" * 10 + OUTPUT_CUT


def test_end_of_qemu_is_seen_at_once(agent: Agent, guest: socket.socket) -> None:
    guest.sendall(b"1 | half a li")
    guest.close()
    start_s = time.monotonic()
    with pytest.raises(MachineError, match=r"QEMU .*'true'"):
        agent.run("true", 60.0)
    with pytest.raises(MachineError, match="QEMU is gone"):
        agent.run("true", 60.0)
    with pytest.raises(MachineError):
        agent.wait_ready(60.0)
    assert time.monotonic() - start_s < PROMPT_S


def test_agent_that_starts_anew(agent: Agent, guest: socket.socket) -> None:
    guest.sendall(b"1 | a\nready 99\n")
    with pytest.raises(GuestError, match="started anew"):
        agent.run("kill 1", PROMPT_S)


def test_agent_that_takes_no_command(agent: Agent) -> None:
    start_s = time.monotonic()
    with pytest.raises(GuestError, match="took no command for 0 s: 'echo xxx"):
        agent.run("echo " + "x" * (4 << 20), 0.2)
    assert time.monotonic() - start_s < PROMPT_S


def test_watch_looks_also_at_a_busy_guest(
    pair: tuple[socket.socket, socket.socket],
    stream: Callable[[bytes], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def watch() -> None:
        raise GuestError("it floods")

    monkeypatch.setattr(module, "_WATCH_S", 0.1)
    agent = Agent(pair[0], watch)
    with pytest.raises(GuestError, match="it floods"):
        agent.run("quiet", PROMPT_S)
    stream(b"noise\n" * 100)
    with pytest.raises(GuestError, match="it floods"):
        agent.run("busy", PROMPT_S)


@pytest.mark.parametrize("command", ["", "  ", "a\nb", "a\n"])
def test_command_is_one_line(agent: Agent, command: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        agent.run(command, PROMPT_S)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The synchronous face of QMP, against servers that break its rules."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.qmp import Qmp

PROMPT_S = 2.0
GREETING = {"QMP": {"version": {"qemu": {"major": 11, "minor": 1, "micro": 3}}, "capabilities": []}}
STAMP = {"seconds": 1, "microseconds": 2}
Serve = Callable[[socket.socket], None]


def tell(end: socket.socket, message: object) -> None:
    end.sendall(json.dumps(message).encode() + b"\r\n")


def greet(end: socket.socket) -> Iterator[dict[str, object]]:
    """Greet, take the negotiation, and give the commands that follow."""
    tell(end, GREETING)
    # Commands come one at a time, with nothing in between.
    while data := end.recv(1 << 16):
        command = json.loads(data)
        if command["execute"] == "qmp_capabilities":
            tell(end, {"return": {}})
        else:
            yield command


def obey(end: socket.socket) -> None:
    for command in greet(end):
        if command["execute"] == "bad":
            error = {"class": "GenericError", "desc": "no \x1b[2J such thing"}
            tell(end, {"error": error, "id": command["id"]})
        elif command["execute"] == "quit":
            tell(end, {"return": {}, "id": command["id"]})
            data = {"guest": True, "reason": "guest-panic"}
            tell(end, {"event": "SHUTDOWN", "data": data, "timestamp": STAMP})
        else:
            tell(end, {"return": command, "id": command["id"]})


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., Qmp]]:
    """Connects with a server that runs in a thread; nothing may be left of it."""
    before, threads = set(threading.enumerate()), []
    connections: list[Qmp] = []
    descriptors = open_files()

    def start(serve: Serve, timeout_s: float = PROMPT_S) -> Qmp:
        ours, theirs = socket.socketpair()

        def work() -> None:
            with theirs:
                serve(theirs)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        connections.append(Qmp(ours, tmp_path / "qmp.jsonl", timeout_s=timeout_s))
        return connections[-1]

    yield start
    for connection in connections:
        connection.close()
        connection.close()
    for thread in threads:
        thread.join(PROMPT_S)
    assert set(threading.enumerate()) == before
    assert open_files() == descriptors


def events(path: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (path / "qmp.jsonl").read_text().splitlines()]


def test_commands_and_events(connect: Callable[..., Qmp], tmp_path: Path) -> None:
    qmp = connect(obey)
    assert qmp.execute("x", {"a": 1})["arguments"] == {"a": 1}
    answer = qmp.human("info registers")
    assert "human-monitor-command" in answer and "info registers" in answer
    assert qmp.shutdown_reason(0.0) is None
    qmp.execute("quit")
    assert qmp.shutdown_reason(PROMPT_S) == "guest-panic"
    qmp.close()
    assert events(tmp_path) == ["SHUTDOWN"]
    assert qmp.shutdown_reason(0.0) == "guest-panic"


def test_command_that_fails_is_no_end(connect: Callable[..., Qmp]) -> None:
    qmp = connect(obey)
    with pytest.raises(MachineError, match=r"QMP bad failed after 0\.\d s: no \\x1b\[2J such"):
        qmp.execute("bad")
    assert qmp.execute("good")


def silent(end: socket.socket) -> None:
    end.recv(1)


def leave(end: socket.socket) -> None:
    pass


def no_json(end: socket.socket) -> None:
    end.sendall(b"\xff\x00{{{\n" * 100)
    end.recv(1)


def no_greeting(end: socket.socket) -> None:
    tell(end, {"return": {}})
    end.recv(1)


def endless_line(end: socket.socket) -> None:
    with suppress(BrokenPipeError):
        for _ in range(40):
            end.sendall(b"x" * (1 << 19))


@pytest.mark.parametrize("serve", [leave, no_json, no_greeting, endless_line])
def test_broken_greeting(
    connect: Callable[..., Qmp], serve: Serve, quiet: Callable[[], None]
) -> None:
    start_s = time.monotonic()
    with pytest.raises(MachineError, match="QMP connection failed after"):
        connect(serve, 20.0)
    assert time.monotonic() - start_s < PROMPT_S
    quiet()


def test_no_greeting_in_time(connect: Callable[..., Qmp]) -> None:
    with pytest.raises(MachineError, match=r"no answer to QMP connection within 0\.2 s"):
        connect(silent, 0.2)


def test_no_answer_in_time(connect: Callable[..., Qmp]) -> None:
    def serve(end: socket.socket) -> None:
        for _ in greet(end):
            pass

    qmp = connect(serve)
    with pytest.raises(MachineError, match=r"no answer to QMP query-status within 0\.2 s"):
        qmp.execute("query-status", timeout_s=0.2)


@pytest.mark.parametrize("last", [b"", b"no json\n", b'{"return": 1, "id": "another"}\n'])
def test_end_during_a_command(
    connect: Callable[..., Qmp], last: bytes, quiet: Callable[[], None]
) -> None:
    def serve(end: socket.socket) -> None:
        next(greet(end))
        end.sendall(last)

    qmp = connect(serve)
    start_s = time.monotonic()
    with pytest.raises(MachineError, match="QMP query-status failed"):
        qmp.execute("query-status", timeout_s=60.0)
    with pytest.raises(MachineError, match="QMP query-status failed"):
        qmp.execute("query-status", timeout_s=60.0)
    assert time.monotonic() - start_s < PROMPT_S
    qmp.close()
    quiet()


def test_end_just_after_the_connection(
    connect: Callable[..., Qmp], quiet: Callable[[], None]
) -> None:
    def serve(end: socket.socket) -> None:
        tell(end, GREETING)
        end.recv(1 << 16)
        tell(end, {"return": {}})

    for _ in range(30):
        with pytest.raises(MachineError):
            connect(serve, 20.0).execute("query-status", timeout_s=20.0)
    quiet()


def test_closed_connection(connect: Callable[..., Qmp]) -> None:
    qmp = connect(obey)
    qmp.close()
    with pytest.raises(MachineError, match="the connection is closed"):
        qmp.execute("query-status")


def test_flood_of_events_is_bounded(
    connect: Callable[..., Qmp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.qmplog.MOST_EVENTS_LOGGED", 10)

    def serve(end: socket.socket) -> None:
        for command in greet(end):
            for _ in range(100):
                tell(end, {"event": "RTC_CHANGE", "data": [], "timestamp": STAMP})
            tell(end, {"return": {}, "id": command["id"]})

    qmp = connect(serve)
    qmp.execute("query-status")
    qmp.close()
    assert events(tmp_path) == ["RTC_CHANGE"] * 10

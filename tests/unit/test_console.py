# SPDX-License-Identifier: GPL-2.0-or-later
"""The console: waiting on its log, and sessions on its socket."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness import console as module
from harness.console import Console, expect
from harness.errors import GuestError, MachineError

PROMPT_S = 2.0
Serve = Callable[[socket.socket], None]


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path / "socket", tmp_path / "console.log")


def running() -> bool:
    return True


def ended() -> bool:
    return False


def test_line_that_is_there(console: Console) -> None:
    console.log_path.write_text("one\r\nLinux version 6.12\r\nthree\r\n")
    found = console.wait_for(r"version (\S+)", "version", PROMPT_S, running)
    assert found[1] == "6.12"
    # Also when QEMU has ended since.
    assert console.wait_for("three", "third line", PROMPT_S, ended)


def test_line_that_comes_in_pieces(console: Console) -> None:
    def write() -> None:
        for piece in ("begin", "ning\nuser ", "space", " begins\n"):
            time.sleep(0.02)
            with console.log_path.open("a") as file:
                file.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    found = console.wait_for("user space .*", "user space", PROMPT_S, running)
    thread.join()
    assert found[0] == "user space begins"


@pytest.mark.parametrize("log", ["", "something else\n", "half a user spa"])
def test_line_that_does_not_come(console: Console, log: str) -> None:
    console.log_path.write_text(log)
    start_s = time.monotonic()
    with pytest.raises(GuestError, match=r"no user space within 0 s; last: \w") as caught:
        console.wait_for("user space", "user space", 0.2, running)
    assert 0.2 <= time.monotonic() - start_s < PROMPT_S
    assert caught.value.log == console.log_path


def test_qemu_that_ended(console: Console) -> None:
    start_s = time.monotonic()
    with pytest.raises(MachineError, match="into the wait for user space"):
        console.wait_for("user space", "user space", 60.0, ended)
    assert time.monotonic() - start_s < PROMPT_S


def test_flood_does_not_outlast_the_deadline(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "_read", lambda *_: b"the same line\n" * 1000)
    start_s = time.monotonic()
    with pytest.raises(GuestError, match="no user space"):
        console.wait_for("user space", "user space", 0.2, running)
    assert time.monotonic() - start_s < PROMPT_S


def test_tail_is_short_and_harmless(console: Console) -> None:
    assert console.tail() == "" and console.size() == 0
    lines = b"first\n" + b"x" * 20_000 + b"\n\x1b]0;evil\x07\xff\r\n\r\n  \nlast"
    console.log_path.write_bytes(lines)
    tail = console.tail(3).splitlines()
    assert tail[0].startswith("xxx") and len(tail[0]) == 300
    assert tail[1:] == ["\\x1b]0;evil\\x07\ufffd", "last"]
    assert console.size() == len(lines)


def test_last_words(console: Console) -> None:
    assert console.last_words() == ""
    panic = "[    1.0] Kernel panic - not syncing: Oh"
    console.log_path.write_text("[    0.9] one\r\n[    0.95] two\r\n")
    assert console.last_words() == "[    0.95] two"
    with console.log_path.open("a") as log:
        trace = "".join(f"[    1.1]  f{n}+0x1/0x2\n" for n in range(20))
        log.write(f"{panic}\n{trace}[    1.2] ---[ end {panic[11:]} ]---\n")
    assert console.last_words() == panic


@pytest.fixture
def serve(console: Console) -> Iterator[Callable[[Serve], None]]:
    """Serves one client of the console's socket in a thread."""
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(console.socket_path))
        listener.listen()

        def start(work: Serve) -> None:
            def accept() -> None:
                end, _ = listener.accept()
                with end, suppress(OSError):
                    work(end)

            threads.append(threading.Thread(target=accept))
            threads[-1].start()

        yield start
        for thread in threads:
            thread.join(PROMPT_S)
            assert not thread.is_alive()


def echo(end: socket.socket) -> None:
    while data := end.recv(4096):
        end.sendall(data.upper() + b"\r\n# ")


def silent(end: socket.socket) -> None:
    end.recv(1)


def test_session(console: Console, serve: Callable[[Serve], None]) -> None:
    serve(echo)
    with console.attach(PROMPT_S) as session:
        session.sendline("first ä")
        assert expect(session, "# ", "prompt").strip() == "FIRST ä"
        session.sendline("second")
        assert "SECOND" in expect(session, "# ", "prompt")


def test_session_without_an_answer(console: Console, serve: Callable[[Serve], None]) -> None:
    serve(silent)
    with (
        console.attach(0.2) as session,
        pytest.raises(GuestError, match=r"no prompt within 0\.2 s"),
    ):
        expect(session, "# ", "prompt")


def test_session_that_qemu_ends(console: Console, serve: Callable[[Serve], None]) -> None:
    serve(lambda end: end.sendall(b"begin"))
    start_s = time.monotonic()
    with console.attach(60.0) as session:
        with pytest.raises(MachineError, match="into the wait for prompt"):
            expect(session, "# ", "prompt")
        with pytest.raises(MachineError, match="the console has ended"):
            session.sendline("hello")
    assert time.monotonic() - start_s < PROMPT_S


def test_session_with_a_flood(
    console: Console, serve: Callable[[Serve], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SESSION_BYTES", 100_000)

    def flood(end: socket.socket) -> None:
        while True:
            end.sendall(b"the same line\r\n" * 100)

    serve(flood)
    start_s = time.monotonic()
    with console.attach(60.0) as session:
        with pytest.raises(MachineError, match="flooded") as caught:
            expect(session, "# ", "prompt")
        assert len(session.before or "") <= 200_000
    assert caught.value.hint
    assert time.monotonic() - start_s < PROMPT_S


def test_no_one_to_attach_to(console: Console) -> None:
    with pytest.raises(MachineError, match="cannot reach the console"), console.attach():
        pytest.fail("attached")
    console.socket_path.touch()
    with pytest.raises(MachineError, match="Connection refused"):
        console.connect()

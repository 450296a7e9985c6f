# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host's console said: bounded, safe to show, and its last words always there."""

import socket
from pathlib import Path

from harness.hostmce.console import KeptConsole, last_words


def test_last_words_are_bounded_and_safe() -> None:
    assert last_words(b"") == ()
    words = last_words(b"\n".join(b"%d \x1b]0;x\x07" % i + b"A" * 5000 for i in range(100)))
    assert len(words) == 12
    assert all(word.isprintable() and len(word) <= 200 for word in words)


def kept(log: Path, most: int, *, lines: int) -> KeptConsole:
    """What is kept of a console that said so much."""
    reads, writes = socket.socketpair()
    with reads, writes:
        console = KeptConsole(reads.makefile("rb"), log, most)
        writes.sendall(b"the first words\n")
        writes.sendall(b"".join(b"line %06d\n" % number for number in range(lines)))
        writes.sendall(b"the last words\n")
        writes.shutdown(socket.SHUT_WR)
        console.close(10.0)
    return console


def test_a_kept_console_is_bounded_and_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log, most = tmp_path / "host-console.log", 64 << 10
    console = kept(log, most, lines=40_000)
    assert console.size() == 31 + 12 * 40_000 > 4 * most
    text = log.read_bytes()
    assert len(text) <= most
    assert text.startswith(b"the first words\nline 000000\n")
    assert text.endswith(b"line 039999\nthe last words\n")
    assert text.count(b" was left out ...\n") == 1
    assert len(console.tail(0)) == 256 << 10
    assert console.tail(console.size() - 15) == b"the last words\n"
    assert console.tail(console.size()) == console.tail(1 << 40) == b""
    # and all of one that says less
    assert kept(tmp_path / "short", most, lines=3).size() == (tmp_path / "short").stat().st_size


def test_last_words_take_no_file(tmp_path: Path) -> None:
    console = kept(tmp_path, 1 << 10, lines=500)
    assert last_words(console.tail(0))[-2:] == ("line 000499", "the last words")

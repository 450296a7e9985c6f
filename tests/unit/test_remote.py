# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands on this machine, and the one place where words become a line for a shell."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.errors import HostError
from harness.remote import LocalRemote, quoted

LOCAL = LocalRemote()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
@example(["a b", "$(id)", "`id`", "'", '"', "\n", "-n", "", "*", "~", "\\", "é", "!!", ";", "&"])
def test_a_shell_gets_just_the_words(words: list[str]) -> None:
    script = 'eval set -- "$1"; for word; do printf "%s\\0" "$word"; done'
    answer = LOCAL.run(["sh", "-c", script, "sh", quoted(words)], timeout_s=10)
    assert answer.stdout.decode().split("\0")[:-1] == words


def test_output_errors_and_exit_code() -> None:
    answer = LOCAL.run(["sh", "-c", "cat; echo no >&2; exit 3"], timeout_s=10, stdin=b"\0in")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, b"\0in", b"no\n")
    assert not answer.truncated


def test_more_output_than_asked_for_is_dropped() -> None:
    argv = ["sh", "-c", "head -c 1000000 /dev/zero; echo end >&2"]
    answer = LOCAL.run(argv, timeout_s=10, max_bytes=1000)
    assert (answer.exit_code, len(answer.stdout), answer.stderr) == (0, 1000, b"end\n")
    assert answer.truncated


def test_input_that_nobody_reads() -> None:
    assert LOCAL.run(["true"], timeout_s=10, stdin=bytes(1 << 20)).exit_code == 0


def test_a_command_that_takes_too_long_is_ended() -> None:
    start_s = time.monotonic()
    with pytest.raises(HostError, match="sleep 60 was still running"):
        LOCAL.run(["sleep", "60"], timeout_s=0.2)
    assert time.monotonic() - start_s < 10


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(HostError, match="cannot start no-such-program"):
        LOCAL.run(["no-such-program"], timeout_s=1)

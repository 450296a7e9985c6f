# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's scripts, run by real shells: FIFOs stand in for the virtio port."""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import proc
from harness.image import RECIPE

SHELLS = [["sh"]] + ([["busybox", "sh"]] if shutil.which("busybox") else [])


class Host:
    """The host's end of the two FIFOs."""

    def __init__(self, commands: io.BufferedWriter, answers: io.BufferedReader) -> None:
        self.commands = commands
        self.answers = answers

    def send(self, line: bytes) -> None:
        """One line, as it is."""
        self.commands.write(line + b"\n")
        self.commands.flush()

    def line(self) -> bytes:
        """The next answer, without its end."""
        line = self.answers.readline()
        assert line.endswith(b"\n")
        return line[:-1]

    def run(self, number: int, command: str) -> tuple[int, list[bytes]]:
        """Exit status and lines of a command; what belongs to no command of ours fails."""
        self.send(f"{number} {command}".encode())
        lines: list[bytes] = []
        while True:
            line = self.line()
            head, mark, rest = line.split(b" ", 2)
            assert head == b"%d" % number, line
            if mark == b"=":
                return int(rest), lines
            assert mark == b"|", line
            lines.append(rest)


@contextmanager
def agent(shell: list[str], directory: Path) -> Iterator[Host]:
    """A running agent; it must end by itself when its input does."""
    ends = [directory / "in", directory / "out"]
    for end in ends:
        os.mkfifo(end)
    log = directory / "log"
    with log.open("wb") as output:
        child = proc.spawn([*shell, RECIPE / "agent", *ends], stdout=output)
    try:
        with ends[0].open("wb") as commands, ends[1].open("rb") as answers:
            yield Host(commands, answers)
            commands.close()
            assert answers.read() == b""
        assert child.wait(10) == 0
        assert log.read_bytes() == b""
    finally:
        proc.kill_group(child)


@pytest.fixture(params=SHELLS, ids=" ".join)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    with agent(request.param, tmp_path) as running:
        assert running.line().startswith(b"ready ")
        yield running


pytestmark = pytest.mark.timeout(60)


def test_it_says_ready_with_the_boot_id(tmp_path: Path) -> None:
    with agent(["sh"], tmp_path) as host:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert host.line().decode() == f"ready {boot_id}"


@pytest.mark.parametrize(
    ("command", "status", "lines"),
    [
        ("true", 0, []),
        ("exit 7", 7, []),
        ("echo one; echo two >&2; false", 1, [b"one", b"two"]),
        ("printf 'no newline'", 0, [b"no newline"]),
        ("printf 'a\\n\\nb'", 0, [b"a", b"", b"b"]),
        ("cat", 0, []),
        ("echo '3 = 0'; echo '| x'", 0, [b"3 = 0", b"| x"]),
        ("printf '%s\\n' 'back\\slash' '$HOME' '%d'", 0, [b"back\\slash", b"$HOME", b"%d"]),
        ("no-such-command-here 2>/dev/null", 127, []),
    ],
)
def test_commands(host: Host, command: str, status: int, lines: list[bytes]) -> None:
    assert host.run(3, command) == (status, lines)


def test_a_killed_command_has_the_status_of_its_signal(host: Host) -> None:
    assert host.run(1, "kill -9 $$")[0] == 137


def test_commands_in_a_row_do_not_mix(host: Host) -> None:
    for number in range(5):
        host.send(b"%d echo %d; exit %d" % (number, number * 10, number))
    for number in range(5):
        assert host.line() == b"%d | %d" % (number, number * 10)
        assert host.line() == b"%d = %d" % (number, number)


def test_long_output_is_complete(host: Host) -> None:
    status, lines = host.run(1, "seq 20000")
    assert status == 0
    assert lines == [b"%d" % i for i in range(1, 20001)]


def test_a_long_line_is_split_so_that_the_host_can_bound_it(host: Host) -> None:
    status, lines = host.run(1, "head -c 20000 /dev/zero | tr '\\000' x")
    assert status == 0
    assert [len(line) for line in lines] == [8000, 8000, 4000]


def test_bytes_that_are_no_text_do_not_break_the_protocol(host: Host) -> None:
    status, lines = host.run(1, "printf 'a\\000b\\r\\033[2J\\377c\\n'; echo after")
    assert status == 0
    assert lines[-1] == b"after"
    assert b"".join(lines[:-1]).replace(b"\0", b"") in (b"ab\r\x1b[2J\xffc", b"a")


def test_a_line_without_end_is_cut(host: Host) -> None:
    status, lines = host.run(1, "while :; do printf '%08000d' 0; done; exit 3")
    assert status not in (0, 3)
    assert sum(len(line) for line in lines) == 16 << 20
    assert host.run(2, "echo still here") == (0, [b"still here"])


def test_the_port_is_closed_to_commands(host: Host) -> None:
    status, lines = host.run(1, "echo 9 = 9 >&3; echo 9 = 9 >&4; echo 9 = 9 >&5")
    assert status != 0
    assert all(b"9 = 9" not in line.split(b" | ", 1)[0] for line in lines)


@pytest.mark.parametrize(
    "line",
    [b"", b"x", b"x echo no", b"12", b"12 ", b"-1 echo no", b"1e3 echo no", b"9" * 40 + b" true"],
)
def test_what_is_no_command_is_answered(host: Host, line: bytes) -> None:
    host.send(line)
    assert host.line().startswith(b"0 ! ")
    assert host.run(5, "echo fine") == (0, [b"fine"])


@pytest.mark.parametrize("result", ["ok", "value=1\nok", "failed: no (-22)", "", "not ok at all"])
def test_tdh_tells_ok_from_failed(result: str, tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_text(result + "\n")
    script = tmp_path / "tdh"
    # A file is no device: what is written goes elsewhere, what is read is there before.
    script.write_text(
        (RECIPE / "tdh")
        .read_text()
        .replace("3<>/dev/tdharness", f"3<{device}")
        .replace(">&3;", f">{tmp_path / 'command'};")
    )
    done = proc.run(["sh", script, "convert", "size=4K"], timeout_s=10, check=False)
    assert done.stdout.strip() == result
    assert done.returncode == (0 if result.endswith("ok") else 1)
    assert (tmp_path / "command").read_text() == "convert size=4K\n"


def test_every_script_of_the_image_is_clean() -> None:
    scripts = [p for p in RECIPE.iterdir() if p.read_bytes().startswith(b"#!")]
    assert {p.name for p in scripts} >= {"init", "agent", "tdh", "device", "net-up"}
    tool = shutil.which("shellcheck") or str(Path(sys.executable).with_name("shellcheck"))
    proc.run([tool, "-s", "sh", *scripts], timeout_s=60)

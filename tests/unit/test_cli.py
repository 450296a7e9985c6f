# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: help, exit codes, what a wrong input is told. Boots are in test_bad_input."""

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cli, proc, progress
from harness.arguments import build_parser
from harness.errors import ExitCode
from harness.kernel.built import BuiltKernel
from harness.rundir import RunDir
from harness.testing.events import StreamBuilder
from harness.testing.fakenight import write_series

COMMANDS = ("setup", "doctor", "build", "run", "judge", "events", "shell", "console", "bench")
TD_LOG = b"[    0.040000] Memory Encryption Features active: Intel TDX\n"
GPA, PAGE = 0x1234000, 4096


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def saved(base: Path, *, dirty: int = 0, trailer: bool = True, conversions: int = 1) -> Path:
    """A run directory with a few conversions in it."""
    base.mkdir(parents=True, exist_ok=True)
    run, stream = RunDir(base), StreamBuilder()
    for _ in range(conversions):
        stream.convert(GPA, PAGE, to_shared=True, dirty=dirty, flushed=64 - dirty)
        stream.convert(GPA, PAGE, to_shared=False)
        stream.accept(GPA)
    run.write_json(
        run.run_json, {"schema": 1, "td_mode": "stub", "planned_stop": True, "kernel": {}}
    )
    run.events.write_bytes(stream.encode(trailer=trailer))
    run.console_log.write_bytes(TD_LOG)
    return base


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == ExitCode.PASS
    output = capsys.readouterr().out
    assert output.startswith(f"usage: tdharness {command}")
    assert (f"example: tdharness {command} " in output) == (command != "doctor")


def test_help_of_all_lists_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == ExitCode.PASS
    output = capsys.readouterr().out
    assert [word for word in COMMANDS if f"\n    {word} " not in output] == []
    for code in ExitCode:
        assert f"{code.value} " in output.partition("exit codes:")[2]


def test_the_examples_of_the_help_can_be_parsed() -> None:
    lines = [line.split("  ")[1] for line in (build_parser().epilog or "").splitlines()
             if line.startswith("  tdharness ")]  # fmt: skip
    assert len(lines) >= 5
    for line in lines:
        words = line.partition("|")[0].split()[1:]
        assert build_parser().parse_args(words).command == words[0]


@pytest.mark.parametrize(
    "words", [[], ["boot"], ["run", "--td-mode", "real"], ["run", "--smp", "many"], ["judge"]]
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == ExitCode.USAGE
    assert capsys.readouterr().err.startswith("usage: tdharness")


def test_wrong_usage_is_no_answer_to_git_bisect() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bisect-step", "--smp", "many"])
    assert ended.value.code == cli.GIT_STOPS
    with pytest.raises(SystemExit) as ended:
        cli.main(["bisect-step", "--help"])
    assert ended.value.code == ExitCode.PASS


def bzimage(release: str, mark: bytes) -> bytes:
    """The parts of a bzImage that are looked at."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x600)
    version = release.encode() + b" (somebody@somewhere)\0"
    image[0x800 : 0x800 + len(version)] = version
    return bytes(image) + mark


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read the kernel "),
        (b"", "is not a bzImage: it has no Linux boot header\nhint: name arch/x86/boot/bzImage"),
        (b"\x7fELF" * 4096, "is not a bzImage: it has no Linux boot header\nhint: "),
        (bzimage("5.10.0-28-amd64", b"IntelTDX"), "is Linux 5.10.0-28-amd64: too old, a TD needs"),
        (bzimage("6.12.1", b""), "was built without TDX guest support\nhint: build it with CONFIG"),
    ],
)
def test_a_kernel_that_cannot_be_used(
    content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = tmp_path / "vmlinuz"
    if content is not None:
        kernel.write_bytes(content)
    runs = tmp_path / "runs"
    assert cli.main(["run", "--kernel", str(kernel), "--runs", str(runs)]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert str(kernel) in said.err.splitlines()[0]
    assert "checking the cache" not in said.err
    assert not runs.exists()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'QEMU emulator version 10.0.2'", "is QEMU 10.0.2: too old, the stub's plugin"),
        ("echo 'QEMU emulator version 11.1.0'", "was built without TCG plugins"),
        ("echo hello", "is no QEMU: --version said 'hello\\n'"),
        (None, "no QEMU to run at "),
    ],
)
def test_a_qemu_that_cannot_be_used(
    script: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "qemu"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    runs = tmp_path / "runs"
    assert cli.main(["run", "--qemu", str(program), "--runs", str(runs)]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert words in said.err
    assert str(program) in said.err
    assert not runs.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--smp", "9"], "9 vCPUs: from 1 to 8 can be started"),
        (["--memory", "64"], "64 MiB of memory: an even number from 512 to 8192 can be given"),
        (["--memory", "1025"], "1025 MiB of memory: an even number from 512 to 8192"),
    ],
)
def test_a_size_that_cannot_be_started(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "--runs", str(tmp_path / "r"), *words]) == ExitCode.USAGE
    assert f"tdharness: {sentence}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dirty", "trailer", "outcome", "code"),
    [
        (0, True, "PASS", ExitCode.PASS),
        (8, True, "FAIL", ExitCode.FINDINGS),
        (0, False, "ERROR", ExitCode.CANNOT_JUDGE),
    ],
)
def test_a_saved_run_is_judged_again(
    dirty: int, trailer: bool, outcome: str, code: ExitCode, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = saved(tmp_path / "run", dirty=dirty, trailer=trailer)
    assert cli.main(["judge", str(run)]) == code
    assert f" {outcome} " in capsys.readouterr().out
    first = (run / "verdict.json").read_bytes()
    assert cli.main(["judge", str(run), "--json"]) == code
    parsed = json.loads(capsys.readouterr().out)
    assert (parsed["outcome"], parsed["run"]) == (outcome, str(run))
    assert (run / "verdict.json").read_bytes() == first
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("command", ["judge", "events"])
def test_a_directory_that_is_no_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, str(tmp_path)]) == ExitCode.USAGE
    assert (
        f"{tmp_path} is no run directory: it holds no run.json\nhint: " in capsys.readouterr().err
    )


def test_build_prints_the_image_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = BuiltKernel(
        image=tmp_path / "arch/x86/boot/bzImage",
        vmlinux=tmp_path / "vmlinux",
        system_map=tmp_path / "System.map",
        build_tree=tmp_path,
        log=tmp_path / "build.log",
        commit="0123",
        patchset="4567",
        warnings=("a.c: old", "a.c: fresh"),
        new_warnings=("a.c: fresh",),
        missing=(),
        seconds=1.5,
        cached=False,
    )
    asked: list[object] = []
    patches = write_series(tmp_path / "patches", "a", "b")
    files = sorted(patches.iterdir())

    def build(base: str, given: tuple[Path, ...], *words: object) -> BuiltKernel:
        asked.append((base, [path.read_bytes() for path in given]))
        return kernel

    monkeypatch.setattr("harness.kernel.build.build", build)
    monkeypatch.setattr("harness.kernel.origin.base_of", lambda word: f"the base {word}")
    words = ["build", "--base", "linux-source-9.9", *map(str, files)]
    assert cli.main(words) == ExitCode.PASS
    said = capsys.readouterr()
    assert said.out == f"{kernel.image}\n"
    assert said.err == "new warning: a.c: fresh\n"
    texts = [path.read_bytes() for path in files]
    assert asked == [("the base linux-source-9.9", texts)]
    assert cli.main(["build", "--json"]) == ExitCode.PASS
    assert json.loads(capsys.readouterr().out)["patchset"] == "4567"
    files[1].write_text(files[1].read_text().replace("mm/", "mm/../../"))
    assert cli.main(words) == ExitCode.USAGE
    assert "0002-p.patch is refused: the path mm/../../a2.c leads" in capsys.readouterr().err
    assert len(asked) == 2


@pytest.mark.parametrize("command", ["shell", "console"])
def test_no_guest_to_talk_to(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, "--runs", str(tmp_path)]) == ExitCode.USAGE
    assert f"no guest runs in {tmp_path}\nhint: start one with" in capsys.readouterr().err


def test_events_for_people_and_for_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(tmp_path / "run")
    assert cli.main(["events", str(run)]) == ExitCode.PASS
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "convert" in lines[0]
    assert "[to_shared]" in lines[0]
    assert cli.main(["events", str(run), "--json"]) == ExitCode.PASS
    parsed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["kind"] for event in parsed] == ["convert", "convert", "accept"]


def test_events_of_a_cut_stream_are_shown_and_called_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(tmp_path / "run", trailer=False)
    assert cli.main(["events", str(run)]) == ExitCode.CANNOT_JUDGE
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert said.err == "tdharness: the event stream was cut: no trailer behind record 3\n"
    (run / "events").unlink()
    assert cli.main(["events", str(run)]) == ExitCode.CANNOT_JUDGE
    assert f"cannot read {run / 'events'}: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_leaves_early_is_no_error(lines: int, tmp_path: Path) -> None:
    run = saved(tmp_path / "run", conversions=3000 if lines else 1)
    ours, theirs = os.pipe()
    errors = tmp_path / "errors"
    argv: list[str | Path] = [
        "/bin/sh",
        "-c",
        'exec "$@" 2>"$0"',
        errors,
        sys.executable,
        "-m",
        "harness.cli",
    ]
    with os.fdopen(theirs, "wb") as output:
        # Without a buffer the short output would fail where the long one does.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        child = proc.spawn([*argv, "events", run], stdout=output, env=env)
    with os.fdopen(ours, "rb") as reader:
        assert all(b"convert" in reader.readline() for _ in range(lines))
    try:
        assert child.wait(20) == ExitCode.PASS
    except subprocess.TimeoutExpired:
        proc.kill_group(child)
        raise
    assert errors.read_text() == ""


def test_progress_without_a_terminal_is_a_line_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.Progress() as shown:
        shown.say("looking [bold]around[/bold]")
        shown.complain(ValueError("a sentence"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "   0.0 s  looking [bold]around[/bold]\ntdharness: a sentence\n"


def test_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--fault", "list"]) == ExitCode.PASS
    said = capsys.readouterr().out
    assert "cache-second-lines" in said and "caller=FUNCTION" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fault", "cache-some"], "there is no fault 'cache-some'\nhint: `tdharness run --fault"),
        (["--fault", "cache-all:n=1"], "cannot be picked by 'n=1'\nhint: which conversion"),
        (["--fault", "cache-all", "--td-mode", "none"], "they need --td-mode stub"),
    ],
)
def test_a_fault_that_cannot_be_made(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *words, "--runs", str(tmp_path / "runs")]) == ExitCode.USAGE
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()

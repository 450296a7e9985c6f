# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's own script: what it is told, and what is read from its answers."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import GuestError
from harness.rundir import RunDir
from harness.workload import Answers, Step, commands_of, marks_of, read_symbols, run_step, script_of
from harness.workload.script import parse_transcript

AGENT = Path(__file__).resolve().parents[2] / "guest-images" / "initramfs" / "agent"
STEPS = (
    Step(name="good", command="echo one; echo two"),
    Step(name="bad", command="echo three >&2; exit 3"),
)


def test_a_script_holds_what_a_session_would_send() -> None:
    commands = commands_of(STEPS)
    lines = script_of(commands).decode().splitlines()
    assert [line.split(" ", 1) for line in lines] == [
        [str(i), c] for i, c in enumerate(commands, 1)
    ]
    assert "tdh mark kind=1 id=1 " in commands[1] and "( echo one; echo two )" in commands[1]
    assert "id=2" in commands[2]
    own = (STEPS[0], replace(STEPS[1], mark=70))
    assert "id=70" in commands_of(own)[2] and marks_of(own) == [1, 70]


def test_the_agent_and_the_answers_agree(tmp_path: Path) -> None:
    script, transcript = tmp_path / "script", tmp_path / "transcript"
    commands = ["echo one; echo two", "exit 3", "printf 'a  | b\\n'"]
    script.write_bytes(script_of(commands))
    transcript.touch()
    subprocess.run(["sh", str(AGENT), str(script), str(transcript)], check=True, timeout=20)
    answers = Answers(commands, transcript.read_bytes())
    assert [answers.run(command, 1.0) for command in commands] == [
        (0, "one\ntwo\n"),
        (3, ""),
        (0, "a  | b\n"),
    ]


def test_steps_and_symbols_are_recorded_as_ever(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "script")
    text = "ready 1\n1 | 6.12\n1 | ffffffff81000000 T _text\n1 = 0\n2 | one\n2 = 0\n3 = 3\n"
    answers = Answers(commands_of(STEPS), text.encode())
    assert read_symbols(answers)["text_base"] == 0xFFFFFFFF81000000
    records = [run_step(answers, step, run, mark=mark) for mark, step in enumerate(STEPS, 1)]
    assert [(r.rc, r.ok, r.output) for r in records] == [(0, True, "one\n"), (3, False, "")]
    assert len(run.steps.read_text().splitlines()) == 2


def test_a_guest_that_died_gives_no_answer() -> None:
    answers = Answers(["true", "echo x"], b"1 = 0\n2 | x\n")
    answers.run("true", 1.0)
    with pytest.raises(GuestError, match="never ended 'echo x'"):
        answers.run("echo x", 1.0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"1 =\n",
        b"1 = x\n",
        b"x = 0\n",
        b"99999999999 = 0\n",
        b"1 = -1\n",
        b"1 =0\n",
        "1 = ٣\n2".encode(),
    ],
)
def test_what_is_no_answer_is_dropped(data: bytes) -> None:
    assert parse_transcript(data) == {}


def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.workload.script.MOST_OUTPUT_BYTES", 10)
    results = parse_transcript(b"1 | 12345678\n1 | 12345678\n1 | 12345678\n1 = 0\n2 | ok\n2 = 0\n")
    assert results[1].output.startswith("12345678\n...") and results[1].output.count("\n") == 2
    assert results[2].output == "ok\n"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The workload: its data, its runner against a fake guest, and what it reads of symbols."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from harness import proc
from harness.errors import ConfigError, GuestError
from harness.rundir import RunDir
from harness.steps import parse_steps
from harness.workload import WORKLOADS, Agent, Record, Step, read_symbols, run_step, steps_for
from harness.workload.runner import MARK_FAILED, OUTPUT_MAX, bounded, marked, parse_dma

Answer = tuple[int, str] | Exception

DMA_LINE = "dma device=edu direction=from-device method=stream bytes=4096 mismatches=2 first=17"


class FakeAgent:
    """A guest that answers by the step's command."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.answer = answer
        self.commands: list[str] = []

    def run(self, command: str, timeout_s: float) -> tuple[int, str]:
        self.commands.append(command)
        answer = self.answer(command)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


def written(run_dir: RunDir) -> list[dict[str, object]]:
    return [json.loads(line) for line in run_dir.steps.read_text().splitlines()]


def run_steps(agent: Agent, steps: Iterable[Step], run_dir: RunDir, mark: int = 1) -> list[Record]:
    return [run_step(agent, step, run_dir, mark=mark + i) for i, step in enumerate(steps)]


def test_each_step_runs_between_its_marks_and_is_written_down(run_dir: RunDir) -> None:
    agent = FakeAgent(lambda command: (0, "ok\n"))
    steps = (Step(name="a", command="tdh a"), Step(name="b", command="tdh b"))
    records = run_steps(agent, steps, run_dir, mark=5)
    assert [r.ok for r in records] == [True, True]
    for number, command in zip((5, 6), agent.commands, strict=True):
        begin, end = f"tdh mark kind=1 id={number} ", f"tdh mark kind=2 id={number} "
        name = {5: "tdh a", 6: "tdh b"}[number]
        assert command.index(begin) < command.index(name) < command.index(end)
    assert [(s["name"], s["mark"], s["rc"], s["argv"]) for s in written(run_dir)] == [
        ("a", 5, 0, "tdh a"),
        ("b", 6, 0, "tdh b"),
    ]


def test_a_failing_step_does_not_stop_the_others(run_dir: RunDir) -> None:
    agent = FakeAgent(lambda c: (1, "failed: no memory (-12)\n") if "bad" in c else (0, ""))
    steps = [Step(name=n, command=n) for n in ("good", "bad", "good")]
    assert [r.ok for r in run_steps(agent, steps, run_dir)] == [True, False, True]


def test_a_step_that_does_not_end_is_written_down(run_dir: RunDir) -> None:
    error = GuestError("no answer after 60 s")
    agent = FakeAgent(lambda c: error if "slow" in c else (0, ""))
    steps = [Step(name=n, command=n) for n in ("good", "slow", "never")]
    with pytest.raises(GuestError):
        run_steps(agent, steps, run_dir)
    last = written(run_dir)[-1]
    assert (last["name"], last["rc"], last["ok"]) == ("slow", None, False)
    assert "no answer after 60 s" in str(last["output"])
    assert len(agent.commands) == 2


def test_a_mark_that_cannot_be_set_fails_the_step(run_dir: RunDir) -> None:
    agent = FakeAgent(lambda c: (MARK_FAILED, "the mark could not be set\n"))
    step = Step(name="a", command="a", must_fail=True)
    assert not run_steps(agent, [step], run_dir)[0].ok


def test_a_planted_mismatch_must_be_seen(run_dir: RunDir) -> None:
    step = Step(name="dma", command="x", must_fail=True, expected_rules=("dma-data",))
    agent = FakeAgent(lambda c: (1, f"{DMA_LINE}\nfailed: 2 differ (-5)\n"))
    (record,) = run_steps(agent, [step], run_dir)
    assert record.ok
    (line,) = parse_steps(run_dir.steps.read_text().splitlines())
    assert line.expected_rules == ("dma-data",)
    (dma,) = line.dma
    assert (dma.device, dma.mismatches, dma.first_mismatch) == ("edu", 2, 17)
    blind = FakeAgent(lambda c: (0, "ok\n"))
    assert not run_steps(blind, [step], run_dir)[0].ok


def test_hostile_output_is_kept_and_bounded(run_dir: RunDir) -> None:
    output = 'quote " \x1b[2J \x00 \udcff \u2028 \n{"name": "forged"}\n' + "x" * 200_000 + "end"
    agent = FakeAgent(lambda c: (0, output))
    run_steps(agent, [Step(name="a", command="a")], run_dir)
    (step,) = written(run_dir)
    text = str(step["output"])
    assert text.startswith('quote " \x1b[2J \x00')
    assert text.endswith("end")
    assert "bytes left out" in text
    assert len(text.encode(errors="surrogatepass")) <= OUTPUT_MAX
    assert len(run_dir.steps.read_text().splitlines()) == 1


@pytest.mark.parametrize("size", [0, 1, OUTPUT_MAX, OUTPUT_MAX + 1, 3 * OUTPUT_MAX])
def test_bounds_hold_for_any_size(size: int) -> None:
    for character in ("x", "\u20ac", "\U0001f600"):
        text = bounded(character * (size // len(character.encode())))
        assert len(text.encode()) <= OUTPUT_MAX + 16


@pytest.mark.parametrize(
    "line",
    [
        "dma device=edu direction=sideways bytes=1 mismatches=0 first=none",
        "dma device=edu direction=to-device bytes=-1 mismatches=0 first=none",
        "dma device=edu direction=to-device bytes=1 mismatches=0",
        "dma device=../etc direction=to-device bytes=1 mismatches=0 first=none x",
        "dma device=edu direction=to-device bytes=99999999999999999999 mismatches=0 first=none",
        " a dma device=edu direction=to-device bytes=1 mismatches=0 first=none",
    ],
)
def test_lines_that_only_look_like_a_transfer(line: str) -> None:
    assert parse_dma(line) == ()
    assert len(parse_dma(f"{DMA_LINE}\n{line}\n{DMA_LINE}\r\n")) == 2


def test_a_flood_of_transfers_is_bounded() -> None:
    assert len(parse_dma(f"{DMA_LINE}\n" * 5000)) == 100


@pytest.mark.parametrize(
    ("command", "log", "status"),
    [
        ("true", ["1", "2"], 0),
        ("false", ["1", "2"], 1),
        ("exit 7", ["1", "2"], 7),
        ("echo x; kill -9 $$", ["1"], -9),
    ],
)
def test_the_marked_command_in_a_real_shell(
    tmp_path: Path, command: str, log: list[str], status: int
) -> None:
    tdh = f'tdh() {{ echo "$2" | cut -d= -f2 >>{tmp_path / "log"}; }}; '
    done = proc.run(["sh", "-c", tdh + marked(command, 3)], timeout_s=10, check=False)
    assert done.returncode == status
    assert (tmp_path / "log").read_text().split() == log


def test_a_guest_that_cannot_mark_does_not_run_the_step(tmp_path: Path) -> None:
    shell = f"tdh() {{ false; }}; {marked(f'touch {tmp_path}/ran', 3)}"
    done = proc.run(["sh", "-c", shell], timeout_s=10, check=False)
    assert done.returncode == MARK_FAILED
    assert not (tmp_path / "ran").exists()


def test_without_marks_the_command_is_as_it_is() -> None:
    assert marked("echo a", None) == "echo a"


def test_the_plan_is_one_line_each_with_names_of_their_own() -> None:
    steps = [step for steps in WORKLOADS.values() for step in steps]
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for step in steps:
        assert "\n" not in step.command
        assert re.fullmatch(r"[a-z0-9-]+", step.name)
    assert all(step.expected_rules for step in WORKLOADS["faults"])


def test_small_guests_and_plain_vms_leave_steps_out() -> None:
    def chosen(cpus: int, td_mode: str = "stub") -> set[str]:
        names = ["conversion", "kexec", "faults"]
        return {s.name for s in steps_for(names, cpus=cpus, td_mode=td_mode)}

    assert "fault-local-tlb-flush" in chosen(2) - chosen(1)
    assert "parallel-4k" in chosen(2) - chosen(1)
    for mode in ("tdx", "none"):
        assert "fault-no-cache-flush" in chosen(1) - chosen(1, mode)
        assert {"convert-4k", "fault-warn", "fault-dma-mismatch"} <= chosen(1, mode)
    assert "kexec" in chosen(1, "tdx") - chosen(1, "none")


def test_a_guest_without_devices_leaves_steps_out() -> None:
    def chosen(devices: bool) -> set[str]:
        steps = steps_for(["dma", "devices", "faults"], cpus=2, devices=devices)
        return {step.name for step in steps}

    left_out = chosen(True) - chosen(False)
    assert {"edu-stream", "net-use", "nvme-rebind", "fault-dma-mismatch"} <= left_out
    assert {"stream-4k", "coherent-1m", "fault-warn"} <= chosen(False)
    assert not any(name.startswith(("edu", "net", "nvme", "rng")) for name in chosen(False))


def test_an_unknown_workload_is_named() -> None:
    with pytest.raises(ConfigError, match="'sums'"):
        steps_for(["sums"], cpus=2)


SECTIONS = (
    "6.12.95\n"
    "ffffffff84a00000 T _text\n"
    "tdharness/sections/.text:0xffffffffc02fb000\n"
    "tdharness/sections/.text.unlikely:0xffffffffc02fd000\n"
    "tdharness/sections/.exit.text:nonsense\n"
    "tsm/sections/.text:0xffffffffc02ea000\n"
    "../sections/.text:0xffffffffc02ea000\n"
)
OFFSETS = {
    "tdharness": {".text": {"tdh_fault": 0x10}, ".text.unlikely": {"tdh_fault.cold": 4}},
    "other": {".text": {"elsewhere": 0}},
}


def test_symbols_of_the_guest(tmp_path: Path) -> None:
    offsets = tmp_path / "offsets"
    offsets.write_text(json.dumps(OFFSETS))
    symbols = read_symbols(FakeAgent(lambda c: (0, SECTIONS)), offsets)
    assert symbols == {
        "release": "6.12.95",
        "text_base": 0xFFFFFFFF84A00000,
        "modules": {
            "tdharness": {
                "base": 0xFFFFFFFFC02FB000,
                "symbols": {
                    "tdh_fault": 0xFFFFFFFFC02FB010,
                    "tdh_fault.cold": 0xFFFFFFFFC02FD004,
                },
            },
            "tsm": {"base": 0xFFFFFFFFC02EA000, "symbols": {}},
        },
    }


HIDDEN = "6.12\n0000000000000000 T _text\nx/sections/.text:0x00000000\n"


@pytest.mark.parametrize("output", ["", HIDDEN])
def test_a_guest_that_hides_its_addresses(output: str) -> None:
    symbols = read_symbols(FakeAgent(lambda c: (1, output)))
    assert symbols["text_base"] is None
    assert symbols["modules"] == {}

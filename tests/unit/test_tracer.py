# SPDX-License-Identifier: GPL-2.0-or-later
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.errors import GuestError, HostError
from harness.events import Kind
from harness.evidence import load
from harness.judge import judge
from harness.rundir import RunDir
from harness.testing.events import StreamBuilder
from harness.testing.saved import Saved
from harness.testing.traces import Area, TraceBuilder, answers
from harness.testing.vmlinux import TEXT, elf, kallsyms
from harness.tracer import Tracer
from harness.verdict import Outcome

PUT = "probe=map at=tdx_map_gpa+9 error=0\nprobe=lines at=cpa_flush+388 error=-2\n"
TRACE = "tdh trace && test -r /sys/kernel/debug/tdharness/trace"
CAT = "cat /sys/kernel/debug/tdharness/trace"
AREA = Area()
TDX: dict[str, Any] = {"td_mode": "tdx", "trace": True, "planned_stop": True, "kernel": {}}
STUB = {**TDX, "td_mode": "stub"}


@dataclass
class FakeAgent:
    """A guest whose module takes all probes; `has` is what its trace holds, None without one."""

    has: str | None = ""
    said: str = PUT + "ok\n"
    cat_rc: int = 0
    commands: list[str] = field(default_factory=list)
    timeouts: set[float] = field(default_factory=set)

    def run(self, command: str, timeout_s: float) -> tuple[int, str]:
        self.commands.append(command)
        self.timeouts.add(timeout_s)
        if command == CAT:
            return self.cat_rc, self.has or ""
        if command == TRACE:
            return (1, "tdh: no such command\n") if self.has is None else (0, "cpus=0-1\nok\n")
        return 0, self.said


def tracer(path: Path, image: bytes = b"", slowness: float = 1.0) -> Tracer:
    path.joinpath("vmlinuz").write_bytes(image)
    return Tracer(path / "vmlinuz", RunDir(path), slowness)


def test_only_answers_of_the_module_are_kept(tmp_path: Path) -> None:
    said = (
        f"sh: evil\nok\nfailed: no probe evil (-22)\n{PUT}evil probe=map at=evil error=0\n"
        "probe=map at=evil error=0 evil\nprobe=Evil at=evil error=0\ncpus=evil\n"
    )
    tracer(tmp_path).begin(FakeAgent(said=said))
    assert RunDir(tmp_path).trace.read_text() == f"{PUT}cpus=0-1\n"


def test_the_probes_are_those_of_the_kernel_that_was_booted(tmp_path: Path) -> None:
    rows = [(TEXT + 64 * number, "t", f"function_{number}") for number in range(300)]
    rows[7] = (TEXT + 64 * 7, "t", "tdx_map_gpa")
    code = bytes(64 * len(rows))
    image = elf([(".text", code, True), (".rodata", kallsyms(rows) + bytes(64), False)])
    agent = FakeAgent()
    tracer(tmp_path, image, slowness=2.5).begin(agent)
    put, trace = agent.commands
    _, *probes, last = put.split("; ")
    assert (probes, last) == (["tdh probe kind=map symbol=tdx_map_gpa offset=0"], "true")
    assert put.startswith("echo 0 2>/dev/null >/proc/sys/debug/kprobes-optimization; ")
    assert "\n" not in put
    assert trace == TRACE
    assert agent.timeouts == {150.0}


def test_an_image_that_cannot_be_read_leaves_no_probe_to_put(tmp_path: Path) -> None:
    agent = FakeAgent(said="")
    tracer(tmp_path, b"no kernel").begin(agent)
    assert "tdh probe" not in agent.commands[0]
    assert RunDir(tmp_path).trace.read_text() == "cpus=0-1\n"


def test_a_guest_without_a_trace_is_not_asked_for_it(tmp_path: Path) -> None:
    one, mute = tracer(tmp_path), FakeAgent(has=None)
    one.collect(mute)
    assert mute.commands == []
    one.begin(mute)
    one.collect(mute)
    assert CAT not in mute.commands
    assert RunDir(tmp_path).trace.read_text() == PUT
    one.begin(FakeAgent())
    one.collect(mute)
    assert mute.commands[-1] == CAT


def test_a_second_kernel_without_a_trace_is_not_asked_for_it(tmp_path: Path) -> None:
    one, mute = tracer(tmp_path), FakeAgent(has=None)
    one.begin(FakeAgent())
    one.begin(mute)
    one.collect(mute)
    assert CAT not in mute.commands


def test_what_was_traced_since_is_appended(tmp_path: Path) -> None:
    one, agent = tracer(tmp_path, slowness=0.5), FakeAgent()
    one.begin(agent)
    for text in ("0 0 1 mark 1 1 0 0\n", "", "1 0 1 mark 2 1 0 0\n2 0 1 changed 0 0 0 0\n"):
        agent.has = text
        one.collect(agent)
    assert RunDir(tmp_path).trace.read_text() == (
        f"{PUT}cpus=0-1\n0 0 1 mark 1 1 0 0\n1 0 1 mark 2 1 0 0\n2 0 1 changed 0 0 0 0\n"
    )
    assert agent.commands[2:] == [CAT] * 3
    assert agent.timeouts == {30.0}


def test_a_second_kernel_continues_the_trace(tmp_path: Path) -> None:
    one, agent = tracer(tmp_path), FakeAgent(has="0 0 1 mark 1 1 0 0\n")
    for _ in range(2):
        one.begin(agent)
        one.collect(agent)
    assert RunDir(tmp_path).trace.read_text() == 2 * f"{PUT}cpus=0-1\n0 0 1 mark 1 1 0 0\n"


def test_a_trace_that_cannot_be_read_is_the_guests_failure(tmp_path: Path) -> None:
    one, agent = tracer(tmp_path), FakeAgent(has="cat: evil\n", cat_rc=1)
    one.begin(agent)
    with pytest.raises(GuestError, match=r"^the guest's trace cannot be read: cat ended with 1$"):
        one.collect(agent)
    assert RunDir(tmp_path).trace.read_text() == f"{PUT}cpus=0-1\n"


def test_a_run_that_cannot_be_written_to_is_the_hosts_failure(tmp_path: Path) -> None:
    one = tracer(tmp_path)
    RunDir(tmp_path).trace.mkdir()
    with pytest.raises(HostError, match="cannot write"):
        one.begin(FakeAgent())


def traced(*, flushes: bool = True, head: str | None = None) -> TraceBuilder:
    """A slice with one conversion to shared."""
    trace = TraceBuilder(head=answers() if head is None else head)
    trace.mark(1, 5)
    trace.to_shared(AREA, pieces=None if flushes else ())
    trace.mark(2, 5)
    return trace


def recorded(*, gpa: int = AREA.gpa) -> bytes:
    """The stub's record of that slice."""
    s = StreamBuilder()
    s.mark(1, 5)
    s.convert(gpa, AREA.bytes, to_shared=True)
    s.mark(2, 5)
    return s.encode()


def saved(path: Path, facts: dict[str, Any], trace: str | None, **stub: Any) -> Saved:
    found = Saved(path, **stub)
    found.facts(facts)
    if trace is not None:
        found.run.trace.write_text(trace)
    return found


def test_on_hardware_the_trace_is_what_is_judged(tmp_path: Path) -> None:
    run = saved(tmp_path, TDX, traced().text).run
    evidence = load(run)
    assert evidence.broken == ()
    assert evidence.trace and evidence.stream == evidence.trace.stream
    kinds = [event.kind for event in evidence.events]
    assert kinds == [Kind.MARK, Kind.PTE_CHANGE, Kind.CONVERT, Kind.MARK]
    verdict = judge(run)
    assert (verdict.outcome, verdict.reason) == (Outcome.PASS, "")
    assert verdict.evidence == ("guest-trace", "guest-kernel-log")
    assert verdict.counts["conversions"] == 1
    run.trace.write_text(traced(flushes=False).text)
    verdict = judge(run)
    assert verdict.outcome is Outcome.FAIL
    assert [f.rule for f in verdict.findings] == ["guest-cache-flush"]


@pytest.mark.parametrize(
    ("told", "outcome"), [(1, Outcome.PASS), (2, Outcome.ERROR), (0, Outcome.PASS)]
)
def test_conversions_that_were_made_and_not_traced_are_an_error(
    tmp_path: Path, told: int, outcome: Outcome
) -> None:
    here = saved(tmp_path, TDX, traced().text)
    here.step(mark=5, output=f"conversions={told}\nok\n")
    verdict = judge(here.run)
    assert verdict.outcome is outcome
    missing = "the guest told of 2 conversions and traced 1"
    assert verdict.reason == (missing if outcome is Outcome.ERROR else "")


def test_a_run_that_asked_for_no_trace_has_none(tmp_path: Path) -> None:
    run = saved(tmp_path, {**TDX, "trace": False}, traced().text).run
    assert (load(run).trace, load(run).stream, load(run).broken) == (None, None, ())
    assert judge(run).outcome is Outcome.EMPTY


def test_a_guest_that_did_not_come_so_far_has_no_trace(tmp_path: Path) -> None:
    run = saved(tmp_path, TDX, None).run
    assert (load(run).trace, load(run).stream, load(run).broken) == (None, None, ())
    assert judge(run).outcome is Outcome.EMPTY


@pytest.mark.parametrize("facts", [TDX, STUB])
def test_a_blind_trace_is_an_error(tmp_path: Path, facts: dict[str, Any]) -> None:
    run = saved(tmp_path, facts, traced(head=answers(without=("map",))).text).run
    evidence = load(run)
    (sentence,) = evidence.broken
    assert sentence.startswith("the guest's trace shows no conversion: the kernel has no probe")
    assert evidence.trace is None
    assert (evidence.stream is None) == (facts is TDX)
    assert (judge(run).outcome, judge(run).reason) == (Outcome.ERROR, sentence)


@pytest.mark.parametrize("flushes", [True, False])
def test_a_trace_with_losses_proves_what_is_wrong_and_nothing_else(
    tmp_path: Path, flushes: bool
) -> None:
    trace = traced(flushes=flushes)
    trace.add("lost", 0x1F)
    run = saved(tmp_path, TDX, trace.text).run
    assert load(run).broken == ("31 records of the guest's trace were lost",)
    assert judge(run).outcome is (Outcome.ERROR if flushes else Outcome.FAIL)


@pytest.mark.parametrize(
    "end", ["evil\n", "0 0 1 mark 1 1 0 0\n", "ff 64 1 changed 0 0 0 0\n", "f"]
)
def test_a_broken_trace_is_an_error(tmp_path: Path, end: str) -> None:
    run = saved(tmp_path, TDX, traced(flushes=False).text + end).run
    evidence = load(run)
    (sentence,) = evidence.broken
    assert "of the guest's trace" in sentence and "evil" not in sentence
    assert (evidence.trace, evidence.stream) == (None, None)
    assert judge(run).outcome is Outcome.ERROR


def test_a_trace_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    run = saved(tmp_path, TDX, None).run
    run.trace.write_bytes(traced().text.encode() + b"\xff\xfe\0\n")
    assert judge(run).outcome is Outcome.ERROR


def test_a_stubs_run_can_be_judged_by_its_trace(tmp_path: Path) -> None:
    run = saved(tmp_path, STUB, traced(flushes=False).text, stream=recorded()).run
    record, trace = load(run), load(run, by_trace=True)
    assert (record.td_mode, trace.td_mode) == ("stub", "tdx")
    assert record.trace == trace.trace and trace.trace
    assert trace.stream == trace.trace.stream != record.stream
    verdict = judge(run, evidence=trace, write=False)
    assert [f.rule for f in verdict.findings] == ["guest-cache-flush"]
    run.events.unlink()
    assert load(run, by_trace=True).broken == ()
    assert load(run).broken


def test_a_trace_that_agrees_with_the_record_is_counted(tmp_path: Path) -> None:
    verdict = judge(saved(tmp_path, STUB, traced().text, stream=recorded()).run)
    assert (verdict.outcome, verdict.reason) == (Outcome.PASS, "")
    assert verdict.counts["conversions_traced"] == 1
    assert verdict.evidence == ("events", "guest-trace", "guest-kernel-log")


def test_a_trace_that_contradicts_the_record_is_an_error(tmp_path: Path) -> None:
    other = recorded(gpa=AREA.gpa + AREA.bytes)
    verdict = judge(saved(tmp_path, STUB, traced().text, stream=other).run)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason == (
        "the guest's trace alone, not the stub's record, tells of 1 conversions of 8 KiB at "
        f"{AREA.gpa:#x}, private to shared, not 0"
    )
    dirty = judge(saved(tmp_path, STUB, traced(flushes=False).text, stream=recorded()).run)
    assert dirty.outcome is Outcome.ERROR
    assert "128 dirty lines, where all were flushed" in dirty.reason


def test_a_trace_is_not_compared_with_itself(tmp_path: Path) -> None:
    run = saved(tmp_path, STUB, traced().text, stream=recorded(gpa=AREA.gpa + AREA.bytes)).run
    verdict = judge(run, evidence=load(run, by_trace=True), write=False)
    assert verdict.outcome is Outcome.PASS
    assert "conversions_traced" not in verdict.counts

# SPDX-License-Identifier: GPL-2.0-or-later
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import EvidenceError
from harness.events import HEADER, RECORD, Flag, Kind, decode
from harness.evidence import Evidence
from harness.judge import MOST_PER_RULE, judge, judge_slice, verdict_of
from harness.steps import parse_step
from harness.testing.events import StreamBuilder, encode_header, encode_record, encode_trailer
from harness.testing.saved import BOOT, TD_LOG, Saved, bad, good
from harness.verdict import Outcome, Severity

GPA, GVA, PAGE = 0x1234000, 0xFF11000001234000, 4096
WARN = b"[    2.000010] WARNING: CPU: 0 PID: 80 at kernel/dma/direct.c:333 f+0x5c/0x90\n"


def test_a_correct_run_passes(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    saved.step(dma=[{"device": "edu", "direction": "to-device", "bytes": 64, "mismatches": 0}])
    verdict = judge(saved.run)
    assert (verdict.outcome, verdict.reason, verdict.findings) == (Outcome.PASS, "", ())
    assert verdict.evidence == ("events", "guest-kernel-log", "dma-data")
    assert verdict.counts["conversions"] == 2
    assert verdict.counts["conversions_to_shared"] == 1
    assert verdict.counts["lines_flushed"] == 64
    assert verdict.counts["stub_invlpg"] == 77
    assert verdict.counts["dma_bytes"] == 64
    assert json.loads(saved.run.verdict_json.read_text()) == verdict.to_json()


def test_a_finding_fails_the_run(tmp_path: Path) -> None:
    verdict = judge(Saved(tmp_path, bad().encode()).run)
    assert verdict.outcome is Outcome.FAIL
    assert [f.rule for f in verdict.findings] == ["guest-cache-flush"]


def test_judged_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    saved = Saved(tmp_path, bad().encode(), TD_LOG + WARN)
    judge(saved.run)
    first = saved.run.verdict_json.read_bytes()
    judge(saved.run)
    assert saved.run.verdict_json.read_bytes() == first
    assert b"WARNING in f" in first


def test_strict_makes_a_report_fail(tmp_path: Path) -> None:
    s = good()
    s.convert(GPA, PAGE, to_shared=False, flushed=1)
    saved = Saved(tmp_path, s.encode())
    relaxed, strict = judge(saved.run), judge(saved.run, strict=True)
    assert (relaxed.outcome, strict.outcome) == (Outcome.PASS, Outcome.FAIL)
    assert [f.rule for f in relaxed.findings] == ["redundant-flush"]


def cut(data: bytes) -> dict[str, bytes]:
    """The stream broken in each way there is."""
    header, records, trailer = data[:64], data[64 : -RECORD.size], data[-RECORD.size :]
    first, second, rest = records[:64], records[64:128], records[128:]
    return {
        "empty file": b"",
        "in the magic": data[:5],
        "in the header": data[: HEADER.size - 1],
        "after the header": header,
        "in the first record": data[: HEADER.size + 1],
        "in the last record": data[: -RECORD.size - 10],
        "before the trailer": data[: -RECORD.size],
        "in the trailer": data[:-1],
        "wrong crc": header + records + trailer[:32] + b"\xff" + trailer[33:],
        "wrong count": header + records + trailer[:24] + b"\xff" + trailer[25:],
        "changed record": header + records[:40] + bytes([records[40] ^ 1]) + records[41:] + trailer,
        "trailing garbage": data + b"x",
        "trailing record": data + first,
        "reordered": header + second + first + rest + trailer,
        "a record missing": header + first + rest + trailer,
        "a record twice": header + first + first + second + rest + trailer,
        "another magic": b"TDHEVENX" + data[8:],
        "another version": encode_header(version=2) + records + trailer,
        "unknown kind": header + encode_record(0, 999) + encode_trailer(encode_record(0, 999)),
        "begins with a stack": header
        + encode_record(0, Kind.STACK, (1,))
        + encode_trailer(encode_record(0, Kind.STACK, (1,))),
    }


@pytest.mark.parametrize("how", cut(good().encode()))
def test_a_broken_stream_is_an_error_and_never_a_pass(tmp_path: Path, how: str) -> None:
    verdict = judge(Saved(tmp_path, cut(good().encode())[how]).run)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason


@pytest.mark.parametrize("at", range(0, len(good().encode()), 13))
def test_a_stream_cut_anywhere_never_passes(tmp_path: Path, at: int) -> None:
    assert judge(Saved(tmp_path, good().encode()[:at]).run).outcome is Outcome.ERROR


def test_a_proven_violation_counts_although_the_stream_was_cut(tmp_path: Path) -> None:
    verdict = judge(Saved(tmp_path, bad().encode(trailer=False)).run)
    assert verdict.outcome is Outcome.FAIL
    assert "cut short" in verdict.reason


def test_an_oops_counts_although_the_stream_is_broken(tmp_path: Path) -> None:
    verdict = judge(Saved(tmp_path, b"junk", TD_LOG + WARN).run)
    assert verdict.outcome is Outcome.FAIL
    assert "shorter than its header" in verdict.reason
    assert verdict.evidence == ("guest-kernel-log",)


def test_no_stream_at_all_is_an_error(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    saved.run.events.unlink()
    verdict = judge(saved.run)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason == "the run's events cannot be read: No such file or directory"


def test_nothing_converted_is_empty(tmp_path: Path) -> None:
    s = StreamBuilder()
    s.add(Kind.TDCALL, 1)
    verdict = judge(Saved(tmp_path, s.encode()).run)
    assert verdict.outcome is Outcome.EMPTY
    assert "nothing to judge" in verdict.reason


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"", "no line of a kernel"),
        (b"SeaBIOS\nMemory Encryption Features active: Intel TDX\n", "no line of a kernel"),
        (BOOT, "did not run as a TD"),
        (BOOT + b"Memory Encryption Features active: Intel TDX\n", "did not run as a TD"),
    ],
)
def test_a_kernel_that_did_not_run_as_a_td_is_empty(tmp_path: Path, log: bytes, words: str) -> None:
    verdict = judge(Saved(tmp_path, log=log).run)
    assert verdict.outcome is Outcome.EMPTY
    assert words in verdict.reason


def test_a_machine_that_stopped_by_itself_is_an_error(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    saved.facts({"td_mode": "stub", "planned_stop": False})
    assert judge(saved.run).outcome is Outcome.ERROR


def test_what_the_session_saw_counts(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    facts = {"td_mode": "stub", "planned_stop": True, "harness_errors": ["no space"]}
    saved.facts(facts)
    assert (judge(saved.run).outcome, judge(saved.run).reason) == (Outcome.ERROR, "no space")
    saved.facts({**facts, "planned_stop": False, "guest_failures": ["boot: it hung\x1b"]})
    verdict = judge(saved.run)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.findings[0].summary == "the guest failed: boot: it hung\\x1b"


def test_without_a_td_no_events_are_expected(tmp_path: Path) -> None:
    saved = Saved(tmp_path, log=BOOT)
    saved.run.events.unlink()
    saved.facts({"td_mode": "none", "planned_stop": True})
    assert judge(saved.run).outcome is Outcome.PASS
    saved.run.console_log.write_bytes(BOOT + WARN)
    assert judge(saved.run).outcome is Outcome.FAIL
    saved.run.console_log.write_bytes(b"")
    assert judge(saved.run).outcome is Outcome.EMPTY


def test_a_td_on_hardware_is_judged_by_its_guest_and_its_log(tmp_path: Path) -> None:
    saved = Saved(tmp_path, log=TD_LOG)
    saved.run.events.unlink()
    saved.facts({"td_mode": "tdx", "planned_stop": True})
    assert judge(saved.run).outcome is Outcome.EMPTY
    saved.step(name="convert", ok=True, rc=0, output="bytes=4096\nconversions=6\nconversions=4\n")
    verdict = judge(saved.run)
    assert verdict.outcome is Outcome.PASS
    assert verdict.counts["conversions_told"] == 10 and not verdict.counts["conversions"]
    assert {"conversions-told", "guest-kernel-log"} <= set(verdict.evidence)
    saved.run.console_log.write_bytes(BOOT)
    assert judge(saved.run).outcome is Outcome.EMPTY
    assert "did not run as a TD" in judge(saved.run).reason
    saved.run.console_log.write_bytes(TD_LOG + WARN)
    assert judge(saved.run).outcome is Outcome.FAIL


def test_dma_mismatch_and_failed_step(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    dma = {"device": "edu", "direction": "to-device", "bytes": 64, "mismatches": 2}
    saved.step(name="dma", ok=False, rc=1, dma=[dma])
    saved.step(name="other", ok=False, rc=1, output="x\nfailed: \x1b[31mno\n")
    verdict = judge(saved.run)
    assert verdict.outcome is Outcome.FAIL
    # The failed step with the mismatch is explained by it.
    assert [(f.rule, f.extra["step"]) for f in verdict.findings] == [
        ("dma-data", "dma"),
        ("workload", "other"),
    ]
    assert verdict.findings[1].summary.endswith("failed: \\x1b[31mno")
    assert verdict.counts["steps_failed"] == 2


def planted(rule: str, *, fault: bool) -> Evidence:
    s = good()
    s.mark(1, 9)
    s.convert(GPA, PAGE, to_shared=True, dirty=1 if fault else 0)
    s.mark(2, 9)
    step = {"name": "fault", "mark": 9, "ok": True, "rc": 0, "expected_rules": [rule]}
    return Evidence(td_mode="stub", stream=s.decode(), log=TD_LOG, steps=(parse_step(step),))


def test_a_planted_fault_that_is_caught_passes() -> None:
    verdict = verdict_of(planted("guest-cache-flush", fault=True), strict=True)
    assert verdict.outcome is Outcome.PASS
    (finding,) = verdict.findings
    assert finding.severity is Severity.REPORT and finding.extra["expected"] is True


def test_a_planted_fault_that_is_missed_is_an_error() -> None:
    verdict = verdict_of(planted("guest-cache-flush", fault=False))
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason == "the fault that step fault plants was not caught by guest-cache-flush"


def test_a_fault_of_another_rule_than_the_planted_one_fails() -> None:
    assert verdict_of(planted("guest-tlb-flush", fault=True)).outcome is Outcome.FAIL


def test_a_planted_fault_excuses_nothing_outside_its_step() -> None:
    evidence = planted("guest-cache-flush", fault=True)
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True, dirty=1)
    outside = Evidence(td_mode="stub", stream=s.decode(), log=TD_LOG, steps=evidence.steps)
    assert verdict_of(outside).outcome is Outcome.FAIL


def test_log_findings_belong_to_the_step_between_whose_marks_they_are() -> None:
    log = (
        TD_LOG
        + b"[    1.000000] tdharness: mark begin 5\n"
        + WARN
        + b"[    3.000000] tdharness: mark end 5\n"
        + b"[    4.000000] Kernel panic - not syncing: late\n"
    )
    step = {"name": "warn", "mark": 5, "ok": True, "expected_rules": ["kernel-log"]}
    verdict = judge_slice(good().events, log.decode(), [step])
    assert [(f.extra["step"], f.severity) for f in verdict.findings] == [
        ("", Severity.FAIL),
        ("warn", Severity.REPORT),
    ]


def test_a_slice_is_judged_by_itself() -> None:
    assert judge_slice(good().events, "").outcome is Outcome.PASS
    assert judge_slice(bad().events, "").outcome is Outcome.FAIL
    assert judge_slice((), "").outcome is Outcome.EMPTY
    assert judge_slice(good().events, WARN.decode()).outcome is Outcome.FAIL
    dma = {"device": "edu", "direction": "to-device", "bytes": 64, "mismatches": 0}
    assert judge_slice((), "", [{"name": "d", "ok": True, "dma": [dma]}]).outcome is Outcome.PASS


def test_findings_of_one_rule_are_bounded() -> None:
    s = good()
    for _ in range(MOST_PER_RULE + 7):
        s.convert(GPA, PAGE, to_shared=True, dirty=1)
    verdict = judge_slice(s.events, "")
    assert len(verdict.findings) == MOST_PER_RULE
    assert verdict.counts["findings_left_out"] == 7


@given(st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    for candidate in (data, encode_header() + data):
        try:
            decode(candidate)
        except EvidenceError:
            continue


@given(
    st.lists(
        st.tuples(st.integers(0, 14), st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)),
        max_size=8,
    )
)
def test_any_records_are_judged_the_same_twice(records: list[tuple[int, int, int]]) -> None:
    body = b"".join(
        encode_record(i, kind, (value, kind, value), flags=flags)
        for i, (kind, flags, value) in enumerate(records)
    )
    try:
        stream = decode(encode_header() + body + encode_trailer(body))
    except EvidenceError:
        return
    evidence = Evidence(td_mode="stub", stream=stream, log=TD_LOG)
    first, second = verdict_of(evidence), verdict_of(evidence)
    assert first == second
    assert json.dumps(first.to_json()) == json.dumps(second.to_json())


def test_flags_of_builders_are_those_of_the_schema() -> None:
    s = StreamBuilder()
    s.stale(GVA, GPA, 0, to_shared=True, vcpu=1, used=True)
    assert s.events[0].flags == Flag.TO_SHARED | Flag.USED

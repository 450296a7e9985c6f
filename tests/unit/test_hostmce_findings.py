# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host told as findings and verdicts: its faults are its own, and pages have a past."""

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import EvidenceError
from harness.events import VmmBehaviour
from harness.evidence import Evidence
from harness.hostmce import edac, qmp
from harness.hostmce import told as host_told
from harness.hostmce.findings import host_findings
from harness.hostmce.merge import merge
from harness.hostmce.page import MOST_EVENTS, history_of
from harness.hostmce.record import PHYS_BITS, MceRecord, Source
from harness.hostmce.told import HostState, HostTold
from harness.judge import judge, verdict_of
from harness.report.model import load as load_report
from harness.rules.context import context_of
from harness.rundir import RunDir
from harness.testing.events import StreamBuilder
from harness.verdict import Finding, Outcome, Severity, Verdict

GPA, PAGE = 0x1234000, 4096
TD_LOG = b"[    0.040000] Memory Encryption Features active: Intel TDX\n"
SRAR, CORRECTED, FATAL = 0xBD80000000000134, 0x9C00004000010092, 0xBE00000000800400
ADDRESS = 16 << PHYS_BITS | GPA | 0x86


def told(*statuses: int, **more: Any) -> HostTold:
    records = [
        MceRecord(
            bank=1, status=status, mcgstatus=0x1007, cpu=3, addr=ADDRESS, misc=0x86, tsc=i + 1,
            sources=(Source.KERNEL_LOG,),
        )
        for i, status in enumerate(statuses)
    ]  # fmt: skip
    return HostTold(merged=merge({Source.KERNEL_LOG: records}), **more)


def converted() -> StreamBuilder:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True)
    return s


def verdict(host: HostTold | None, **more: Any) -> Verdict:
    stream = converted().decode()
    return verdict_of(Evidence(td_mode="stub", stream=stream, log=TD_LOG, host=host, **more))


def of_rule(result: Verdict, rule: str) -> list[Finding]:
    return [finding for finding in result.findings if finding.rule == rule]


def test_an_uncorrected_error_fails_the_run_and_names_the_host() -> None:
    result = verdict(told(SRAR))
    assert result.outcome is Outcome.FAIL
    (finding,) = of_rule(result, "host-mce")
    assert finding.summary.startswith("the host: CPU 3 took a machine check, SRAR: bank 1")
    assert finding.summary.endswith("address 0x1234080, KeyID 16")
    assert finding.extra["of_tdx"]
    assert "host-mce" in result.evidence


def test_a_corrected_error_is_reported_only() -> None:
    result = verdict(told(CORRECTED))
    assert result.outcome is Outcome.PASS
    assert [f.severity for f in of_rule(result, "host-mce")] == [Severity.REPORT]


def test_an_address_of_the_host_s_is_no_page_of_the_guest() -> None:
    s = converted()
    (finding,) = host_findings(told(SRAR), context_of(s.events))
    assert (finding.gpa, finding.lines, finding.extra["address"]) == (None, (), GPA | 0x80)
    # Unless QEMU names it, or the host is the stub's.
    one = told(SRAR, guest_addresses=(GPA, GPA))
    assert host_findings(one, context_of(s.events))[0].extra["page_history"]
    for unclear in (
        told(SRAR, guest_addresses=(GPA, GPA + PAGE)),
        told(SRAR, SRAR | 1, guest_addresses=(GPA,)),
        told(CORRECTED, guest_addresses=(GPA,)),
    ):
        assert host_findings(unclear, context_of(s.events))[0].gpa is None
    (finding,) = host_findings(told(SRAR, guest_physical=True), context_of(s.events))
    assert (finding.gpa, finding.lines) == (GPA, (2,))
    assert finding.direction == "private to shared"


def test_a_host_that_went_down_is_an_error_of_the_host_and_not_the_guest_s() -> None:
    lost = ("convert: no answer from the guest's agent within 60 s",)
    assert verdict(None, guest_failures=lost).outcome is Outcome.FAIL
    host = told(
        state=HostState.REBOOTED,
        down="it rebooted (boot id 1 became 2)",
        last_words=("first", "Kernel panic - not syncing: x"),
    )
    result = verdict(host, guest_failures=lost)
    assert result.outcome is Outcome.ERROR
    assert result.reason.startswith("the host failed, not the guest: it rebooted (boot id")
    assert result.reason.endswith("its console said last: Kernel panic - not syncing: x")
    (finding,) = of_rule(result, "workload")
    assert (finding.severity, finding.extra["host_down"]) == (Severity.REPORT, True)


def test_a_host_that_a_machine_check_took_down_fails_by_its_own_rule() -> None:
    host = told(FATAL, state=HostState.UNREACHABLE, down="it gave no answer", panic="Fatal #MC")
    result = verdict(host, guest_failures=("convert: lost",))
    assert result.outcome is Outcome.FAIL
    failed = {finding.rule for finding in result.findings if finding.severity is Severity.FAIL}
    assert failed == {"host-mce"}
    (finding,) = of_rule(result, "host-mce")
    assert finding.summary.endswith("and the host panicked: Fatal #MC")


def test_what_the_guest_s_own_kernel_said_stays_the_guest_s() -> None:
    bug = b"[    2.000010] WARNING: CPU: 0 PID: 80 at kernel/dma/direct.c:333 f+0x5c/0x90\n"
    host = told(state=HostState.UNREACHABLE, down="it gave no answer")
    stream = converted().decode()
    result = verdict_of(Evidence(td_mode="stub", stream=stream, log=TD_LOG + bug, host=host))
    assert result.outcome is Outcome.FAIL


def test_a_storm_is_one_finding_with_the_count_of_all() -> None:
    (finding,) = host_findings(told(*[SRAR | 1 << 62] * 50), context_of(()))
    assert finding.count == 50
    assert finding.extra["in_all"].startswith("the host took at least 50 machine checks (50 fatal)")
    assert "50 records say that their bank had lost some" in finding.extra["in_all"]


def test_the_history_of_a_page_is_told_in_order_and_bounded() -> None:
    s = StreamBuilder()
    s.vmm(VmmBehaviour.CACHE, GPA, PAGE, to_shared=False)
    s.convert(GPA, PAGE, to_shared=False)
    s.convert(GPA + PAGE, PAGE, to_shared=True)
    history = history_of(GPA + 5, context_of(s.events))
    assert history.words == (
        "event 0: the VMM flushed no cache line",
        "event 1: shared to private",
    )
    assert history.last is not None and history.last.seq == 1
    for _ in range(20):
        s.convert(GPA, PAGE, to_shared=True)
    words = history_of(GPA, context_of(s.events)).words
    assert (len(words), words[0]) == (MOST_EVENTS + 1, "14 before these")
    assert history_of(0, context_of(s.events)).last is None


def test_the_guest_s_own_machine_check_has_a_past_too() -> None:
    head = b"[    3.000000] mce: [Hardware Error]: CPU 1: Machine Check Exception: 7 Bank 9: "
    log = head + b"bd80000000000134\n[    3.000001] mce: [Hardware Error]: TSC 1 ADDR 1234000 \n"
    stream = converted().decode()
    result = verdict_of(Evidence(td_mode="stub", stream=stream, log=TD_LOG + log))
    (finding,) = of_rule(result, "guest-mce")
    assert finding.direction == "private to shared"
    assert finding.extra["page_history"] == ["event 0: private to shared"]


def saved(tmp_path: Path, text: str) -> RunDir:
    run = RunDir(tmp_path)
    run.write_json(run.run_json, {"td_mode": "none", "planned_stop": True})
    run.console_log.write_bytes(TD_LOG)
    run.host_json.write_text(text)
    return run


def test_a_saved_run_is_judged_with_what_its_host_told(tmp_path: Path) -> None:
    host = told(SRAR, gaps=("rasdaemon: it has no database",), notes=("EDAC mc0/ue_count",))
    run = saved(tmp_path, json.dumps(host.to_json()))
    result = judge(run)
    assert len(of_rule(result, "host-mce")) == 1
    notes = load_report(run, result).notes
    assert "Not read: rasdaemon: it has no database." in notes
    assert "The host: EDAC mc0/ue_count" in notes


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', '{"schema": 2}', "\x00"])
def test_a_host_json_that_is_broken_is_an_error_of_the_evidence(tmp_path: Path, text: str) -> None:
    result = judge(saved(tmp_path, text))
    assert result.outcome is Outcome.ERROR
    assert "host" in result.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(st.sampled_from(sorted(told(SRAR).to_json())), JSON)
def test_a_host_json_with_any_field_replaced_is_read_or_refused(name: str, value: Any) -> None:
    with contextlib.suppress(EvidenceError):
        host_told.read({**told(SRAR).to_json(), name: value})


@given(st.sampled_from([f.name for f in dataclasses.fields(MceRecord)]), JSON)
def test_a_record_with_any_field_replaced_is_read_or_refused(name: str, value: Any) -> None:
    data = told(SRAR).to_json()
    data["records"][0][name] = value
    with contextlib.suppress(EvidenceError):
        host_told.read(data)


def test_edac_s_counters_are_compared() -> None:
    text = (
        "/sys/devices/system/edac/mc/mc0/ce_count:5\n/x/mc1/ue_noinfo_count:1\n/x/mc0/size_mb:9\n"
    )
    before = edac.read_counters(text)
    assert before == {"mc0/ce_count": 5, "mc1/ue_noinfo_count": 1}
    assert edac.counted(before, {"mc0/ce_count": 7, "mc1/ue_noinfo_count": 1}) == {
        "mc0/ce_count": 2
    }
    # The driver was loaded anew, or is new.
    assert edac.counted(before, {"mc0/ce_count": 2, "mc2/ue_count": 1}) == {
        "mc0/ce_count": 2,
        "mc2/ue_count": 1,
    }
    assert edac.counted({}, {}) == {}


def test_qemu_s_events_in_words() -> None:
    flags = {"action-required": True, "recursive": False}
    lines = [
        json.dumps({"event": "RESUME"}),
        json.dumps({"event": "MEMORY_FAILURE", "data": {
            "recipient": "guest", "action": "inject", "flags": flags}}),
        json.dumps({"event": "GUEST_PANICKED", "data": {"action": "pause", "info": {
            "type": "tdx", "error-code": 5, "message": "bad\x1b", "gpa": 4096}}}),
        "MEMORY_FAILURE", '["GUEST_PANICKED"]', '{"event": "GUEST_PANICKED", "data": 5}',
    ]  # fmt: skip
    assert qmp.read_events(lines) == [
        "MEMORY_FAILURE of the guest, action inject (action-required)",
        "GUEST_PANICKED, action pause, type tdx, error-code 5, message bad\\x1b, gpa 4096",
        "GUEST_PANICKED, action None",
    ]


def test_qemu_s_log_names_the_guest_s_address() -> None:
    text = (
        "qemu-system-x86_64: warning: Guest MCE Memory Error at QEMU addr 0x7f0000 and GUEST addr "
        "0x12345000 of type BUS_MCEERR_AR injected\nKVM internal error. Suberror: 4\n"
        "extra data[0]: 0x6000000500000000\n"
    )
    notes, addresses = qmp.read_log(text)
    assert (len(notes), addresses) == (3, [0x12345000])

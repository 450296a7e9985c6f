# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMM's misbehaviours: the catalogue, and how a guest's handling of each is judged."""

import time
from pathlib import Path
from typing import Any

import pytest

from harness import vmm
from harness.errors import ConfigError, MachineError
from harness.events import Flag, Kind, PoisonAction, VmmBehaviour
from harness.evidence import Evidence
from harness.hostlog import KEY_ID, STATUS, host_log
from harness.hostmce.findings import host_findings
from harness.hostmce.told import of_stub
from harness.injector import Injector, mce_command
from harness.judge import verdict_of
from harness.rules.context import context_of
from harness.rules.mapgpa import mapgpa_failure_handling
from harness.rules.vmm import vmm_cache_flush, vmm_ept_flush
from harness.steps import Step
from harness.testing.events import StreamBuilder
from harness.verdict import Finding, Severity
from harness.workload import misbehaviour_steps

GPA, GVA, PAGE = 0x1234000, 0xFF11000001234000, 4096
SHARED_BIT = 1 << 52
REFUSED = 1 << 63
RETRY = VmmBehaviour.RETRY
TD_LOG = b"[    0.040000] Memory Encryption Features active: Intel TDX\n"
WARN = (
    b"[    2.000000] WARNING: CPU: 0 PID: 80 at arch/x86/mm/pat/set_memory.c:2224 "
    b"__set_memory_enc_pgtable+0x1b8/0x1f0\n"
    b"[    2.000001] RIP: 0010:__set_memory_enc_pgtable+0x1b8/0x1f0\n"
    b"[    2.000002] ---[ end trace 0000000000000000 ]---\n"
)


def test_names_and_selectors_become_the_plugin_s_option() -> None:
    shown = vmm.parse("retry-2m:to=shared,min=64K,max=2M+error:index=2,boot=on")
    assert vmm.plugin_option(shown) == (
        "retry/chunk=0x200000/to=shared/min=65536/max=2097152+error/index=2/boot=on"
    )
    assert vmm.parse("") == ()
    assert vmm.plugin_option(()) == ""


@pytest.mark.parametrize(
    "text",
    ["no-such", "error:index", "error:index=x", "error:to=both", "error:min=4X", "+",
     "error:mark=1", "error:index=1/2", "error,index=1", "error:boot=off", "+".join(["slow"] * 33)],
)  # fmt: skip
def test_what_is_no_behaviour_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        vmm.parse(text)


def test_every_behaviour_that_leaves_the_guest_alive_has_a_step() -> None:
    shown = vmm.parse(vmm.EVERY)
    steps = misbehaviour_steps(shown)
    assert len(steps) == len(shown) >= 12
    assert len({step.mark for step in steps}) == len(steps)
    assert all(f"mark={s.mark}" in vmm.plugin_option(shown).split("/")
               or f"mark={s.mark}+" in vmm.plugin_option(shown) for s in steps)  # fmt: skip
    assert not any(one.behaviour.on is not None for one in shown)
    assert misbehaviour_steps(vmm.parse("error")) == ()


def test_the_list_names_all() -> None:
    text = vmm.render_list()
    assert all(name in text for name in vmm.BEHAVIOURS)


def test_the_verdict_says_what_the_vmm_did() -> None:
    s = retried(GPA + PAGE, 3 * PAGE)
    s.vmm(RETRY, GPA, 4 * PAGE, to_shared=False, done=PAGE, r10=1, r11=GPA + PAGE)
    s.vmm(VmmBehaviour.SLOW, GPA, PAGE, to_shared=False)
    assert vmm.told(vmm.parse("retry-4k"), s.events) == (
        "retry-4k at 2 MapGPAs",
        "behaviour 7 at 1 MapGPA",
    )
    evidence = Evidence(td_mode="stub", stream=s.decode(), misbehaviours=vmm.parse("slow"))
    assert "slow at 1 MapGPA" in verdict_of(evidence).to_json()["misbehaved"]


def handling(s: StreamBuilder) -> list[Finding]:
    return mapgpa_failure_handling(s.events, context_of(s.events))


def retried(next_gpa: int, size: int, *, to_shared: bool = True) -> StreamBuilder:
    s = StreamBuilder()
    told = GPA + PAGE | (SHARED_BIT if to_shared else 0)
    s.vmm(RETRY, GPA, 4 * PAGE, to_shared=to_shared, done=PAGE, r10=1, r11=told)
    if size:
        s.convert(next_gpa, size, to_shared=to_shared)
    return s


@pytest.mark.parametrize("to_shared", [False, True])
def test_a_retry_from_where_the_vmm_said_is_right(to_shared: bool) -> None:
    assert handling(retried(GPA + PAGE, 3 * PAGE, to_shared=to_shared)) == []


@pytest.mark.parametrize(
    ("next_gpa", "size", "words"),
    [
        (GPA, 4 * PAGE, "the guest asked for"),
        (GPA + 2 * PAGE, 2 * PAGE, "the guest asked for"),
        (GPA + PAGE, PAGE, "the guest asked for"),
        (GPA + 64 * PAGE, PAGE, "the guest gave up"),
        (0, 0, "the guest gave up"),
    ],
)
def test_a_retry_from_elsewhere_is_found(next_gpa: int, size: int, words: str) -> None:
    (finding,) = handling(retried(next_gpa, size))
    assert words in finding.summary
    assert finding.severity is Severity.FAIL


def test_a_guest_that_turns_back_gave_up() -> None:
    s = retried(0, 0)
    s.convert(GPA, 4 * PAGE, to_shared=False)
    (finding,) = handling(s)
    assert "gave up" in finding.summary


def stuck(times: int, *, then: bool) -> StreamBuilder:
    s = StreamBuilder()
    for _ in range(times):
        s.vmm(VmmBehaviour.STUCK, GPA, PAGE, to_shared=True, r10=1, r11=GPA | SHARED_BIT)
    if then:
        s.convert(GPA, PAGE, to_shared=True)
    return s


def test_without_progress_the_guest_may_give_up_when_it_has_tried_again() -> None:
    assert handling(stuck(2, then=True)) == []
    assert handling(stuck(3, then=False)) == []
    (finding,) = handling(stuck(1, then=False))
    assert "gave up" in finding.summary


@pytest.mark.parametrize("r11", [GPA - PAGE, GPA + PAGE])
def test_an_address_out_of_range_may_not_be_followed(r11: int) -> None:
    s = StreamBuilder()
    s.vmm(VmmBehaviour.BELOW, GPA, PAGE, to_shared=True, r10=1, r11=r11 | SHARED_BIT)
    assert handling(s) == []


def test_the_use_of_a_page_that_failed_is_found_per_conversion_and_vcpu() -> None:
    s = StreamBuilder()
    failed = s.vmm(VmmBehaviour.ERROR, GPA, 4 * PAGE, to_shared=True, r10=REFUSED)
    assert handling(s) == []
    for page in range(3):
        at = page * PAGE
        s.add(Kind.DISOWNED, GVA + at, GPA + at, 0, failed, vcpu=1, flags=Flag.SHARED | Flag.WRITE)
    (finding,) = handling(s)
    assert (finding.gpa, finding.vcpu, finding.count) == (GPA, 1, 3)
    assert "wrote to 3 pages" in finding.summary
    assert "through a shared mapping" in finding.summary
    assert "make it shared" in finding.summary


def test_poison_names_the_conversion_and_the_first_read() -> None:
    s = StreamBuilder()
    s.vmm(VmmBehaviour.CACHE, GPA, PAGE, to_shared=False)
    convert = s.convert(GPA, PAGE, to_shared=False)
    s.add(Kind.POISON, GPA, 0b1001, convert)
    s.add(Kind.POISON_READ, GVA + 192, GPA + 192, PoisonAction.TD_DEAD, convert, vcpu=1)
    (finding,) = vmm_cache_flush(s.events, context_of(s.events))
    assert finding.lines == (0, 3)
    assert (finding.seq, finding.vcpu, finding.evidence) == (convert, 1, "used")
    assert "2 lines of 1 page" in finding.summary
    assert f"vCPU 1 read {GPA + 192:#x}" in finding.summary


def test_a_kept_mapping_is_found_at_the_commit_and_when_used() -> None:
    s = StreamBuilder()
    s.vmm(VmmBehaviour.EPT, GPA, PAGE, to_shared=True, done=PAGE)
    s.wrong_alias(GVA, GPA + 8, through_shared=False, state=1, vcpu=1)
    found = vmm_ept_flush(s.events, context_of(s.events))
    assert [f.evidence for f in found] == ["unflushed", "used"]
    # The next conversion was flushed: what follows is the guest's own.
    s.convert(GPA, PAGE, to_shared=False)
    s.wrong_alias(GVA, GPA + 8, through_shared=True, vcpu=1)
    assert vmm_ept_flush(s.events, context_of(s.events)) == found


def poisoned(action: PoisonAction) -> StreamBuilder:
    s = StreamBuilder()
    s.vmm(VmmBehaviour.CACHE, GPA, PAGE, to_shared=False)
    convert = s.convert(GPA, PAGE, to_shared=False)
    s.accept(GPA)
    s.add(Kind.POISON, GPA, 1, convert)
    s.add(Kind.POISON_READ, GVA + 8, GPA + 8, action, convert, vcpu=1)
    return s


def host_mce(s: StreamBuilder) -> list[Finding]:
    told = of_stub(host_log(s.events).encode())
    assert told is not None
    return host_findings(told, context_of(s.events))


def test_the_host_s_record_is_decoded_as_a_real_one() -> None:
    (finding,) = host_mce(poisoned(PoisonAction.TD_DEAD))
    assert finding.rule == "host-mce"
    assert (finding.gpa, finding.lines) == (GPA, (0,))
    assert finding.extra["key_id"] == KEY_ID
    (bank,) = finding.extra["banks"]
    assert bank["status"] == STATUS
    assert "in SEAM non-root mode" in bank["meaning"]
    assert "data load" in bank["meaning"]
    assert not finding.extra["panicked"]
    assert finding.direction == "shared to private"
    assert finding.extra["page_history"] == [
        "event 0: the VMM flushed no cache line",
        "event 1: shared to private",
    ]


def test_a_host_that_goes_down_says_so() -> None:
    (finding,) = host_mce(poisoned(PoisonAction.HOST_CRASH))
    assert "processor context corrupt" in finding.extra["banks"][0]["meaning"]
    assert finding.extra["panicked"]


def test_a_guest_s_own_machine_check_leaves_the_host_in_peace() -> None:
    assert host_log(poisoned(PoisonAction.GUEST_MCE).events) == ""
    assert of_stub(b"") is None


def judged(s: StreamBuilder, names: str, log: bytes = b"", **more: Any) -> tuple[str, list[str]]:
    """The verdict's outcome, and the rules that failed."""
    shown = vmm.parse(names)
    evidence = Evidence(
        td_mode="stub", stream=s.decode(), log=TD_LOG + log, misbehaviours=shown, **more
    )
    verdict = verdict_of(evidence)
    failed = [f.rule for f in verdict.findings if f.severity is Severity.FAIL]
    return f"{verdict.outcome.value} {verdict.reason}".strip(), failed


def test_what_the_vmm_did_alone_fails_no_run() -> None:
    s, ended = poisoned(PoisonAction.TD_DEAD), ("convert: the guest ended by itself (host-signal)",)
    host = of_stub(host_log(s.events).encode())
    assert judged(s, "cache-flush", host=host, guest_failures=ended) == ("PASS", [])
    without = StreamBuilder()
    without.convert(GPA, PAGE, to_shared=True)
    assert judged(without, "", guest_failures=ended) == ("FAIL", ["workload"])


def test_a_behaviour_that_was_never_shown_makes_the_run_empty() -> None:
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True)
    assert judged(s, "error+slow") == (
        "EMPTY never applied, for no conversion was picked: error, slow",
        [],
    )
    assert judged(s, "") == ("PASS", [])


def refused(mark: int = 1) -> StreamBuilder:
    s = StreamBuilder()
    s.mark(1, mark)
    s.vmm(VmmBehaviour.ERROR, GPA, PAGE, to_shared=True, r10=REFUSED)
    s.mark(2, mark)
    s.convert(GPA + PAGE, PAGE, to_shared=True)
    return s


def test_a_step_that_met_a_refusal_may_fail_and_the_kernel_may_say_so() -> None:
    failing = Step(name="hit", ok=False, rc=1, mark=1)
    assert judged(refused(), "error", WARN, steps=(failing,)) == ("PASS", [])
    other = Step(name="other", ok=False, rc=1, mark=2)
    assert judged(refused(), "error", WARN, steps=(failing, other)) == ("FAIL", ["workload"])
    assert judged(refused(), "error", WARN.replace(b"__set_memory_enc_pgtable", b"f"))[1] == [
        "kernel-log"
    ]
    clean = StreamBuilder()
    clean.convert(GPA, PAGE, to_shared=True)
    assert judged(clean, "", WARN)[1] == ["kernel-log"]


def test_a_guest_that_uses_refused_pages_fails() -> None:
    s = refused()
    s.add(Kind.DISOWNED, GVA, GPA, 0, 1, flags=Flag.SHARED)
    assert judged(s, "error") == ("FAIL", ["mapgpa-failure-handling"])


def test_what_a_guest_runs_into_after_a_false_success_is_the_vmm_s() -> None:
    s = StreamBuilder()
    s.vmm(VmmBehaviour.SHORT, GPA, 4 * PAGE, to_shared=False, done=PAGE)
    s.accept(GPA + PAGE, status=0xC0000B0000000001, state=1)
    assert judged(s, "short") == ("PASS", [])
    s.accept(GPA + 9 * PAGE, status=0xC0000B0000000001, state=1)
    assert judged(s, "short")[1] == ["accept-shared"]


def test_the_machine_check_of_poison_is_the_vmm_s() -> None:
    log = (
        b"[    3.000000] mce: [Hardware Error]: CPU 1: Machine Check Exception: 7 Bank 9: "
        b"bd80000000000134\n"
        b"[    3.000001] Kernel panic - not syncing: Fatal local machine check\n"
    )
    assert judged(poisoned(PoisonAction.GUEST_MCE), "cache-flush-mce", log) == ("PASS", [])
    clean = StreamBuilder()
    clean.convert(GPA, PAGE, to_shared=True)
    assert judged(clean, "", log)[0] == "FAIL"


def test_the_injector_follows_the_stream(tmp_path: Path) -> None:
    said: list[str] = []

    def monitor(command: str) -> str:
        said.append(command)
        if len(said) == 2:
            raise MachineError("QEMU is gone")
        return ""

    path = tmp_path / "events"
    data = poisoned(PoisonAction.GUEST_MCE).encode(trailer=False)
    path.write_bytes(data[:-32])
    injector = Injector(path, monitor)
    with path.open("ab") as file:
        file.write(data[-32:] + data[-64:])
    deadline = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    injector.close()
    assert said == [mce_command(1, GPA + 8)] * 2
    assert said[0] == f"mce 1 9 {STATUS:#x} 0x7 {GPA:#x} 0x86"
    assert injector.failures == ["no machine check was injected: QEMU is gone"]


def test_the_injector_leaves_what_kills_the_td(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(poisoned(PoisonAction.TD_DEAD).encode(trailer=False))
    said: list[str] = []

    def monitor(command: str) -> str:
        said.append(command)
        return ""

    injector = Injector(path, monitor)
    time.sleep(0.05)
    injector.close()
    assert said == []

# SPDX-License-Identifier: GPL-2.0-or-later
"""Qualifications with pretended guests and host reports: items, results, resuming, comparing."""

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import ConfigError, EvidenceError, HostError
from harness.hostmce.collect import Collector
from harness.hostmce.merge import Merged
from harness.hostmce.told import HostState, HostTold
from harness.hosts.config import Host
from harness.hosts.facts import Facts
from harness.hosts.lease import Lease
from harness.known import KnownIssue
from harness.prepare import Request
from harness.qualify.items import RunGuest, of_host
from harness.qualify.profile import PROFILES, Kind, guests_at_once, items_of
from harness.qualify.result import Qualification, Result, change, qualification_of
from harness.qualify.run import Done, Order, qualify
from harness.remote import LocalRemote
from harness.report.qualification import render, table
from harness.report.text import console
from harness.rundir import RunDir
from harness.triage import identity_of
from harness.verdict import Finding, Outcome, Severity, Verdict

LOCAL = Host(name="local")
GOOD = Verdict(outcome=Outcome.PASS, counts={"conversions": 9})
BAD = Verdict(
    outcome=Outcome.FAIL,
    findings=(Finding(rule="workload", severity=Severity.FAIL, summary="the guest <b>died</b>"),),
)
HEARD = HostTold(heard=("kernel log", "trace event"))
Guest = Callable[[Request, Sequence[str]], Verdict]


class Reports(Collector):
    """A host that reports this."""

    def __init__(self, told: HostTold) -> None:
        self.told = told

    def before(self) -> object:  # type: ignore[override]
        return None

    def after(self, *_: object, **__: object) -> HostTold:
        return self.told


@pytest.fixture(autouse=True)
def lease_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Lease.__init__

    def init(self: Lease, remote: LocalRemote) -> None:
        made(self, remote, place=str(tmp_path / "lease"))

    monkeypatch.setattr(Lease, "__init__", init)
    facts = Facts(said={"cpuinfo": "flags : sse4_2", "meminfo": "MemAvailable: 9000000 kB\n"})
    monkeypatch.setattr("harness.qualify.run.facts_of", lambda _: facts)
    # One that lasts half a minute is not for a unit test.
    quick = replace(PROFILES["quick"], stress_minutes=0.0)
    monkeypatch.setattr("harness.qualify.run.PROFILES", {"quick": quick, "full": quick})


def order(tmp_path: Path, guest: Guest, told: HostTold = HEARD, profile: str = "quick") -> Order:
    def guests(place: Path) -> RunGuest:
        return lambda request, words: (RunDir.create(place / "runs", "fake"), guest(request, words))

    return Order(
        host=LOCAL, remote=LocalRemote(), profile=profile, kernel="stock", runs=tmp_path / "runs",
        wait_s=1.0, guests=guests, collector=lambda _: Reports(told),
    )  # fmt: skip


def qualified(tmp_path: Path, guest: Guest = lambda *_: GOOD, told: HostTold = HEARD) -> Done:
    return qualify(order(tmp_path, guest, told), lambda _: None)


def test_a_good_host(tmp_path: Path) -> None:
    done = qualified(tmp_path)
    assert done.now.outcome is Outcome.PASS
    assert [one.id for one in done.now.results] == [
        "preflight", "boots-1x512", "suite-1x512", "suite-2x1024", "stress-2x1024",
        "kexec-2x1024", "reboots-2x1024",
    ]  # fmt: skip
    assert done.now.ended_s >= done.now.started_s
    assert done.now.results[1].figures["guests"] == 2
    assert qualification_of(json.loads((done.page.parent / "report.json").read_text())) == done.now
    assert done.before is None and "7 of 7 requirements met" in done.page.read_text()


def test_a_guest_that_fails_is_told_where_it_failed(tmp_path: Path) -> None:
    def guest(request: Request, workloads: Sequence[str]) -> Verdict:
        return BAD if "kexec" in workloads else GOOD

    done = qualified(tmp_path, guest)
    failed = [one for one in done.now.results if one.outcome is not Outcome.PASS]
    assert [one.id for one in failed] == ["kexec-2x1024"]
    assert "the guest <b>died</b>" in failed[0].evidence
    assert failed[0].runs and (done.page.parent / failed[0].runs[0]).is_dir()
    page = done.page.read_text()
    assert "&lt;b&gt;died" in page and "<b>died" not in page
    assert done.now.outcome.exit_code == 1


def test_what_is_known_of_the_guests_kernel_is_no_fault_of_the_host(tmp_path: Path) -> None:
    issue = KnownIssue(
        fingerprint=identity_of(BAD.findings[0]), link="https://example.org/1",
        expires=datetime.date.max,
    )  # fmt: skip
    asked = replace(order(tmp_path, lambda *_: BAD), known=(issue,))
    done = qualify(asked, lambda _: None)
    assert done.now.outcome is Outcome.PASS
    assert "known of the guest's kernel: https://example.org/1" in done.now.results[1].evidence
    # an expired one hides nothing
    late = replace(asked, known=(replace(issue, expires=datetime.date(2020, 1, 1)),))
    assert qualify(late, lambda _: None).now.outcome is Outcome.FAIL


def test_a_guest_that_cannot_be_run_costs_its_item_alone(tmp_path: Path) -> None:
    def guest(request: Request, workloads: Sequence[str]) -> Verdict:
        if request.smp == 1:
            raise HostError("no memory")
        return GOOD

    done = qualified(tmp_path, guest)
    outcomes = {one.id: one.outcome for one in done.now.results}
    assert outcomes["boots-1x512"] is outcomes["suite-1x512"] is Outcome.ERROR
    assert outcomes["suite-2x1024"] is Outcome.PASS
    assert "no memory" in done.now.results[1].evidence


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        (HEARD, Outcome.PASS),
        (HostTold(), Outcome.EMPTY),
        (HostTold(heard=("kernel log",)), Outcome.EMPTY),
        (replace(HEARD, merged=Merged(total=1)), Outcome.FAIL),
        (replace(HEARD, notes=("EDAC mc0/ce_count went up by 1",)), Outcome.FAIL),
        (replace(HEARD, state=HostState.REBOOTED), Outcome.ERROR),
    ],
)
def test_what_the_host_reports_decides_the_stress(
    told: HostTold, outcome: Outcome, tmp_path: Path
) -> None:
    assert of_host(told) is outcome
    done = qualified(tmp_path, told=told)
    assert {one.id: one.outcome for one in done.now.results}["stress-2x1024"] is outcome


def test_one_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    asked: list[int] = []

    def guest(request: Request, workloads: Sequence[str]) -> Verdict:
        asked.append(request.smp)
        if "kexec" in workloads and len(asked) < 7:
            raise KeyboardInterrupt
        return GOOD

    with pytest.raises(KeyboardInterrupt):
        qualify(order(tmp_path, guest), lambda _: None)
    page = tmp_path / "runs/qualify/local/0001/index.html"
    assert "goes on" in page.read_text()
    done_before, asked[:] = len(asked), [0] * 7
    done = qualify(order(tmp_path, guest), lambda _: None)
    assert done.now.number == 1 and len(done.now.results) == 7
    # two boots, two sizes, the stress, and the kexec that was interrupted
    assert done_before == 6 and len(asked) == 7 + 3
    assert "goes on" not in page.read_text()
    # the lease was given back each time
    assert not Lease(LocalRemote()).ask("show").held


def test_another_profile_begins_anew_and_the_same_is_compared(tmp_path: Path) -> None:
    first = qualified(tmp_path)
    full = qualify(order(tmp_path, lambda *_: GOOD, profile="full"), lambda _: None)
    assert (full.now.number, full.before) == (2, None)
    worse = qualified(tmp_path, lambda *_: BAD)
    assert worse.now.number == 3
    assert worse.before and worse.before.number == first.now.number
    assert "against number 1: 6 worse, 0 better" in worse.page.read_text()


def result(outcome: Outcome = Outcome.PASS, guest_s: float = 10.0) -> Result:
    return Result(id="a", requirement="b", outcome=outcome, figures={"guest_s": guest_s})


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (result(), "same"),
        (result(guest_s=12.0), "same"),
        (result(guest_s=13.0), "worse"),
        (result(guest_s=7.0), "better"),
        (result(Outcome.FAIL, 1.0), "worse"),
        (replace(result(), id="new"), ""),
    ],
)
def test_the_outcome_decides_and_then_the_time(now: Result, words: str) -> None:
    before = Qualification(
        number=1, host="local", profile="quick", started_s=0.0, results=(result(),)
    )
    assert change(now, before.result(now.id)) == words
    assert change(result(), result(Outcome.EMPTY)) == "better"


def test_hosts_are_asked_for_what_they_have_room_for() -> None:
    assert guests_at_once(LOCAL, 16 << 10, 0) == 16
    assert guests_at_once(replace(LOCAL, key_ids=5), 16 << 10, 0) == 5
    assert guests_at_once(replace(LOCAL, guests=3, key_ids=5), 16 << 10, 4) == 3
    assert guests_at_once(LOCAL, 100, 0) == 1
    items = items_of(PROFILES["full"], replace(LOCAL, memory_mib=3000), 16 << 10)
    suite = [i for i in items if i.kind is Kind.SUITE]
    assert [i.memory_mib for i in suite if not i.left_out] == [512, 1024, 2048]
    assert [i.left_out for i in suite if i.left_out] == [
        "needs 6656 MiB of memory, and guests may take 3000"
    ]
    assert len({item.id for item in items}) == len(items)


@pytest.mark.parametrize(
    ("memory_mib", "suite", "usual"),
    [
        (8192, ["suite-1x512", "suite-2x1024"], "2x1024"),
        (1536, ["suite-1x512", "suite-2x1024"], "2x1024"),
        (1535, ["suite-1x512"], "1x512"),
        # too little for any guest: one is tried nevertheless, and tells so
        (1, ["suite-1x512"], "1x512"),
    ],
)
def test_no_item_takes_more_than_the_hosts_limit(
    memory_mib: int, suite: list[str], usual: str
) -> None:
    host = replace(LOCAL, memory_mib=memory_mib)
    ids = [i.id for i in items_of(PROFILES["quick"], host, 16 << 10) if not i.left_out]
    assert ids == [
        "preflight", "boots-1x512", *suite, f"stress-{usual}", f"kexec-{usual}", f"reboots-{usual}",
    ]  # fmt: skip


def test_what_is_left_out_is_told_and_counts_neither_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = qualified(tmp_path)
    asked = order(tmp_path, lambda *_: GOOD)
    done = qualify(replace(asked, host=replace(LOCAL, memory_mib=1024)), lambda _: None)
    left_out = done.now.result("suite-2x1024")
    assert left_out and left_out.outcome is Outcome.SKIP
    assert left_out.evidence == ("needs 1536 MiB of memory, and guests may take 1024",)
    assert done.now.outcome is Outcome.PASS
    page = done.page.read_text()
    assert "6 of 6 requirements met, 1 left out" in page and left_out.evidence[0] in page
    before = first.now.result(left_out.id)
    assert change(left_out, before) == "" and before and change(before, left_out) == ""
    console().print(table(done.now, done.before))
    shown = capsys.readouterr().out.splitlines()
    assert any(line.startswith("PASS  boots 1 guest at once ") for line in shown)
    assert any(line.startswith("SKIP ") and not line.rstrip().endswith("new") for line in shown)


def test_guests_of_another_machine_are_started_by_its_libvirt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []
    cleaned: list[tuple[str, int]] = []

    def clean(uri: str) -> tuple[()]:
        cleaned.append((uri, len(asked)))
        if asked:
            raise HostError("libvirtd has gone")
        return ()

    monkeypatch.setattr("harness.machine.leftovers.clean", clean)

    def guest(request: Request, _: Sequence[str]) -> Verdict:
        asked.append(request)
        return GOOD

    uri = "qemu+ssh://root@tdx1/system"
    host = Host(name="tdx1", address="tdx1", libvirt=uri, patience=7)
    done = qualify(replace(order(tmp_path, guest), host=host), lambda _: None)
    assert done.now.host == "tdx1"
    assert {request.td_mode for request in asked} == {"stub"}
    # of what dead harnesses left, before and after; where that fails the results are kept
    assert cleaned == [(uri, 0), (uri, len(asked))]
    assert {(request.libvirt, request.patience) for request in asked} == {(uri, 7.0)}
    assert "--patience 7" in " ".join(asked[0].words())


def test_the_host_says_what_its_guests_are(tmp_path: Path) -> None:
    asked: list[str] = []

    def guest(request: Request, _: Sequence[str]) -> Verdict:
        asked.append(request.td_mode)
        return replace(GOOD, counts={"conversions": 0, "conversions_told": 9})

    host = replace(LOCAL, mode="tdx")
    done = qualify(replace(order(tmp_path, guest), host=host), lambda _: None)
    assert set(asked) == {"tdx"}
    assert done.now.results[1].figures["conversions"] == 18


def test_another_machine_without_a_libvirt_is_refused(tmp_path: Path) -> None:
    asked = replace(order(tmp_path, lambda *_: GOOD), host=Host(name="tdx1", address="x"))
    with pytest.raises(ConfigError, match="tdx1 is another machine"):
        qualify(asked, lambda _: None)


def test_a_host_that_others_have_is_left_alone(tmp_path: Path) -> None:
    Lease(LocalRemote()).ask("take")
    with pytest.raises(HostError, match="not free"):
        qualified(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": 1, "number": "x"}'])
def test_a_report_that_is_none_is_named(text: str, tmp_path: Path) -> None:
    report = tmp_path / "runs/qualify/local/0001/report.json"
    report.parent.mkdir(parents=True)
    report.write_text(text)
    with pytest.raises(EvidenceError, match=r"report\.json is no report"):
        qualified(tmp_path)


@pytest.fixture
def hostile() -> Iterator[Qualification]:
    evil = Result(
        id="x", requirement="\x1b]0;x\x07[bold]<script>", outcome=Outcome.FAIL,
        evidence=("\x1b[2J<img src=x>", "A" * 5000),
    )  # fmt: skip
    yield Qualification(number=1, host="<i>", profile="quick", started_s=0.0, results=(evil,))


def test_words_of_guests_and_hosts_are_hostile(
    hostile: Qualification, capsys: pytest.CaptureFixture[str]
) -> None:
    page = render(hostile, hostile)
    assert "<script>" not in page and "<img" not in page and "\x1b" not in page
    read = qualification_of(json.loads(json.dumps(hostile.to_json())))
    console().print(table(read, None))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 100

# SPDX-License-Identifier: GPL-2.0-or-later
"""Each kind of item, done: guests run, judged, and counted."""

import datetime
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import HarnessError
from harness.hostmce.collect import Collector
from harness.hostmce.record import Source
from harness.hostmce.told import HostState, HostTold
from harness.hosts.config import Host
from harness.hosts.facts import Facts
from harness.hosts.preflight import Grade, fit, preflight
from harness.job import in_child
from harness.judge import judge
from harness.known import KnownIssue, sort_out
from harness.pipeline import pipelined
from harness.prepare import Request
from harness.qualify.profile import Item, Kind
from harness.qualify.result import Result
from harness.report.words import plural
from harness.rundir import RunDir
from harness.verdict import Finding, Outcome, Severity, Verdict, worst
from harness.workload import NORMAL

_CONVERSION = ("conversion",)
_GUEST_TIMEOUT_S = 900.0
_MOST_WORDS = 5
_LISTENERS = {Source.TRACE.value, Source.RASDAEMON.value}
# One guest with its workloads, from a request to its verdict.
RunGuest = Callable[[Request, Sequence[str]], tuple[RunDir, Verdict]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The host as the items use it."""

    host: Host
    facts: Facts
    kernel: str
    place: Path
    collector: Collector
    guest: RunGuest
    # of guest kernels, which a host is not to blame for
    known: tuple[KnownIssue, ...] = ()


def real_guests(place: Path) -> RunGuest:
    """Guests in processes of their own, with their runs below `place`."""

    def guest(request: Request, workloads: Sequence[str]) -> tuple[RunDir, Verdict]:
        timeout_s = _GUEST_TIMEOUT_S * request.patience
        run = in_child(request, workloads, place / "runs", timeout_s)
        return run, judge(run)

    return guest


def do(item: Item, on: Bench) -> Result:
    """One item, to its result; what the host or a guest does wrong is in it, and raises nothing."""
    if item.left_out:
        return _result(item, Outcome.SKIP, (item.left_out,))
    start_s = time.monotonic()
    try:
        result = _KINDS[item.kind](item, on)
    except HarnessError as error:
        words = (error.message, *([f"hint: {error.hint}"] if error.hint else []))
        result = _result(item, Outcome.ERROR, words)
    return replace(result, seconds=round(time.monotonic() - start_s, 1))


@dataclass(frozen=True, slots=True)
class _Ran:
    """One guest: its run and verdict, or why there is none."""

    run: RunDir | None
    verdict: Verdict | None
    seconds: float
    error: str = ""

    known: tuple[KnownIssue, ...] = ()

    @property
    def failing(self) -> tuple[Finding, ...]:
        """Findings that fail the guest."""
        found = self.verdict.findings if self.verdict else ()
        return tuple(f for f in found if f.severity is Severity.FAIL)

    @property
    def outcome(self) -> Outcome:
        """PASS also where all that fails the guest is known."""
        if self.verdict is None:
            return Outcome.ERROR
        if self.verdict.outcome is Outcome.FAIL and len(self.known) == len(self.failing):
            return Outcome.PASS
        return self.verdict.outcome


def _guest(item: Item, on: Bench, workloads: Sequence[str]) -> _Ran:
    request = Request(
        kernel=on.kernel,
        td_mode=on.host.mode,
        smp=item.vcpus,
        memory_mib=item.memory_mib,
        libvirt=on.host.libvirt,
        patience=float(on.host.patience),
    )
    start_s = time.monotonic()
    try:
        run, verdict = on.guest(request, workloads)
    except HarnessError as error:
        return _Ran(None, None, time.monotonic() - start_s, error.message)
    ran = _Ran(run, verdict, time.monotonic() - start_s)
    found = sort_out(ran.failing, on.known, base=on.kernel, today=datetime.date.today())
    return replace(ran, known=tuple(issue for _, issue in found.known))


def _told(item: Item, on: Bench, ran: Sequence[_Ran], more: Sequence[str] = ()) -> Result:
    """The result of guests: the worst of them, the first few reasons, and figures over all."""
    outcome = worst(one.outcome for one in ran)
    counts = [one.verdict.counts for one in ran if one.verdict]
    # Where it traces nothing, a guest on hardware still tells what its module converted.
    conversions = sum(c.get("conversions") or c.get("conversions_told", 0) for c in counts)
    good = sum(one.outcome is Outcome.PASS for one in ran)
    words = [f"{good} of {plural(len(ran), 'guest')} passed, {conversions:,} conversions judged"]
    for one in ran:
        words += [one.error] if one.error else []
        if one.verdict and one.outcome is not Outcome.PASS:
            words += [f.summary for f in one.failing[:_MOST_WORDS]] or [one.verdict.reason]
    links = sorted({issue.link for one in ran for issue in one.known})
    words += [f"known of the guest's kernel: {link}" for link in links]
    times = [one.seconds for one in ran]
    figures: dict[str, float] = {"guests": len(ran), "conversions": conversions}
    if times:
        figures["guest_s"] = round(statistics.median(times), 2)
    # Of many boots the good ones tell nothing more.
    kept = [one.run for one in ran if one.run and one.outcome is not Outcome.PASS][:_MOST_WORDS]
    runs = kept or [one.run for one in ran if one.run][:1]
    names = tuple(str(run.path.relative_to(on.place)) for run in runs)
    return _result(item, outcome, (*words, *more), figures, names)


def _result(
    item: Item,
    outcome: Outcome,
    words: Sequence[str],
    figures: dict[str, float] | None = None,
    runs: tuple[str, ...] = (),
) -> Result:
    return Result(
        id=item.id,
        requirement=item.requirement,
        outcome=outcome,
        evidence=tuple(words),
        figures=figures or {},
        runs=runs,
    )


def _preflight(item: Item, on: Bench) -> Result:
    lines = preflight(on.host, on.facts)
    words = [
        f"{line.name}: {line.grade}: {line.found}" + (f"; needed: {line.needed}" if line.do else "")
        for line in lines
    ]
    unknown = all(line.grade is Grade.UNKNOWN for line in lines)
    outcome = Outcome.EMPTY if unknown else Outcome.PASS if fit(lines) else Outcome.FAIL
    return _result(item, outcome, words)


def _boots(item: Item, on: Bench) -> Result:
    guests = range(item.count)
    done = pipelined(guests, lambda _: _CONVERSION, lambda _, w: _guest(item, on, w), len(guests))
    # That of a HarnessError too is a _Ran.
    return _told(item, on, [ran for _, ran in done if isinstance(ran, _Ran)])


def _suite(item: Item, on: Bench) -> Result:
    return _told(item, on, [_guest(item, on, NORMAL)])


def _kexec(item: Item, on: Bench) -> Result:
    return _told(item, on, [_guest(item, on, ("kexec",)) for _ in range(item.count)])


def _reboots(item: Item, on: Bench) -> Result:
    return _told(item, on, [_guest(item, on, _CONVERSION) for _ in range(item.count)])


def _stress(item: Item, on: Bench) -> Result:
    before = on.collector.before()
    ran = list(_for_minutes(item, on))
    told = on.collector.after(before)
    result = _told(item, on, ran, told_words(told))
    return replace(result, outcome=worst((result.outcome, of_host(told))))


def _for_minutes(item: Item, on: Bench) -> Iterator[_Ran]:
    end_s = time.monotonic() + 60.0 * item.minutes
    while True:
        yield _guest(item, on, _CONVERSION)
        if time.monotonic() >= end_s:
            return


def of_host(told: HostTold) -> Outcome:
    """What the host's own reports make of a stress: silence counts only where somebody listened.

    The kernel's log alone does not hold the errors that were corrected, or handled.
    """
    if told.state is not HostState.ALIVE:
        return Outcome.ERROR
    if told.merged.total or any("EDAC" in note for note in told.notes):
        return Outcome.FAIL
    return Outcome.PASS if _LISTENERS & set(told.heard) else Outcome.EMPTY


def told_words(told: HostTold) -> list[str]:
    """The host's reports, in words."""
    heard = ", ".join(told.heard) or "nobody"
    return [f"{told.merged.total} machine checks; asked: {heard}", *told.sentences]


_KINDS: dict[Kind, Callable[[Item, Bench], Result]] = {
    Kind.PREFLIGHT: _preflight,
    Kind.BOOTS: _boots,
    Kind.SUITE: _suite,
    Kind.STRESS: _stress,
    Kind.KEXEC: _kexec,
    Kind.REBOOTS: _reboots,
}

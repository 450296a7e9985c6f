# SPDX-License-Identifier: GPL-2.0-or-later
"""A qualification from its beginning to its end, over interruptions: what is done is done once.

A directory for each, below that of its host: `report.json` and `index.html`, written anew as each
item ends. One without an end is gone on with, if the same is asked for.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import ConfigError, EvidenceError, HarnessError
from harness.hostmce import ask
from harness.hostmce.collect import Collector
from harness.hosts.config import Host
from harness.hosts.facts import Facts, facts_of
from harness.hosts.labgrid import lease_of
from harness.hosts.lease import leased
from harness.known import KnownIssue
from harness.machine import leftovers
from harness.provision.cache import locked
from harness.qualify.items import Bench, RunGuest, do, real_guests
from harness.qualify.profile import PROFILES, items_of
from harness.qualify.result import Qualification, qualification_of
from harness.remote import Remote
from harness.report.qualification import render
from harness.rundir import put, writing
from harness.session import Progress

REPORT, PAGE = "report.json", "index.html"
_KIB_PER_MIB = 1024
_ASKED = ("kernel", "qemu", "libvirt")
_KERNEL = "guest kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be qualified, and how; results go below `runs`."""

    host: Host
    remote: Remote
    profile: str
    kernel: str
    runs: Path
    wait_s: float = 3600.0
    known: tuple[KnownIssue, ...] = ()
    # what tests have their own of
    guests: Callable[[Path], RunGuest] = real_guests
    collector: Callable[[Remote], Collector] = Collector

    @property
    def home(self) -> Path:
        """All qualifications of the host."""
        return self.runs / "qualify" / self.host.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A qualification that has ended, the host's last one before it, and its page."""

    now: Qualification
    before: Qualification | None
    page: Path


def qualify(order: Order, progress: Progress) -> Done:
    """Qualify, or go on with what was begun; the host is leased meanwhile.

    Raises ConfigError for a host that guests cannot be run on from here, HostError when it cannot
    be had. What the host does wrong is in the results.
    """
    if not order.host.local and not order.host.libvirt:
        raise ConfigError(
            f"{order.host.name} is another machine, and has no libvirt to start guests by",
            hint='libvirt = "qemu+ssh://root@HOST/system" in hosts.toml, or there: qualify local',
        )
    with writing(order.home):
        order.home.mkdir(parents=True, exist_ok=True)
    what = f"the qualification of {order.host.name}"
    with locked(order.home / "lock", what), _having(order, progress):
        facts = facts_of(order.remote)
        now = _begun(order, facts)
        place = order.home / f"{now.number:04}"
        before = _last(order.home, now)
        on = Bench(
            host=order.host,
            facts=facts,
            kernel=order.kernel,
            place=place,
            collector=order.collector(order.remote),
            guest=order.guests(place),
            known=order.known,
        )
        for item in items_of(PROFILES[order.profile], order.host, _available_mib(facts)):
            if any(one.id == item.id for one in now.results):
                continue
            progress(f"{item.id}: {item.requirement}")
            now = replace(now, results=(*now.results, do(item, on)))
            progress(f"{now.results[-1].outcome.value}: {item.id}")
            _publish(place, now, before)
        now = replace(now, ended_s=time.time())
        return Done(now=now, before=before, page=_publish(place, now, before))


@contextlib.contextmanager
def _having(order: Order, progress: Progress) -> Iterator[None]:
    """The host to oneself, and as it was: leases end by themselves, and guests and a trace buffer
    that a killed qualification left are taken away by the next."""
    with leased(lease_of(order.host, order.remote), order.wait_s, progress):
        _clean(order.host, progress)
        try:
            yield
        finally:
            _clean(order.host, progress)
            ask.end_trace(order.remote)


def _clean(host: Host, progress: Progress) -> None:
    """Remove guests of dead harnesses of this machine; those without libvirt died with them."""
    try:
        for found in leftovers.clean(host.libvirt) if host.libvirt else ():
            progress(f"{found.name}: {found.fate.value}")
    except HarnessError as error:
        # What that means for the host, the items say.
        progress(f"guests of dead harnesses could not be looked for: {error.message}")


def _available_mib(facts: Facts) -> int:
    return (facts.number("meminfo", r"MemAvailable:\s+(\d{1,12}) kB") or 0) // _KIB_PER_MIB


def _begun(order: Order, facts: Facts) -> Qualification:
    """The unfinished one of the same kind, or the next."""
    known = _known(order.home)
    last = known[-1] if known else None
    versions = {name: facts.said[name].splitlines()[0] for name in _ASKED if facts.said.get(name)}
    versions[_KERNEL] = order.kernel
    asked = (order.profile, order.kernel)
    if last and not last.ended_s and (last.profile, last.versions.get(_KERNEL)) == asked:
        return last
    return Qualification(
        number=last.number + 1 if last else 1,
        host=order.host.name,
        profile=order.profile,
        started_s=time.time(),
        versions=versions,
    )


def _known(home: Path) -> list[Qualification]:
    """All that have a report, the oldest first."""
    return [_read(path) for path in sorted(home.glob(f"[0-9]*/{REPORT}"))]


def _read(path: Path) -> Qualification:
    try:
        return qualification_of(json.loads(path.read_text()))
    except (OSError, ValueError, EvidenceError) as error:
        raise EvidenceError(f"{path} is no report of a qualification: {error}") from error


def _last(home: Path, now: Qualification) -> Qualification | None:
    """The newest finished one of the same profile."""
    ended = [one for one in _known(home) if one.ended_s and one.number != now.number]
    return next((one for one in reversed(ended) if one.profile == now.profile), None)


def _publish(place: Path, now: Qualification, before: Qualification | None) -> Path:
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    put(place / PAGE, render(now, before).encode("utf-8", "backslashreplace"))
    put(place / REPORT, (json.dumps(now.to_json(), indent=2) + "\n").encode())
    return place / PAGE

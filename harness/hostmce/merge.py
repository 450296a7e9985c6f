# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of several sources to one list: each machine check once, and where sources disagree.

The same check is told by the kernel's log, by its trace event and by rasdaemon, in that order of
trust. The time stamp counter tells two of one bank apart; a bank that was polled has none, and is
known by its time. No clocks of two machines are compared.
"""

import dataclasses
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from harness.hostmce.record import MceRecord, Source, page_of
from harness.hostmce.status import Grade

MOST_KEPT = 100
MOST_DISAGREEMENTS = 20
# Of the registers, and of what says where: rasdaemon keeps the others in too few bits.
_COMPARED = ("status", "mcgstatus", "addr", "misc", "socket", "apicid")
# These write every record unless the host goes down in it; the log leaves out what EDAC handled.
_COMPLETE = (Source.TRACE, Source.RASDAEMON)
# These are read line by line, and any line can be missing.
_LOGS = (Source.KERNEL_LOG, Source.CONSOLE)
_CORRECTED_COUNT = 0x7FFF << 38


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Machine checks of one stretch of time on one host."""

    # alike ones folded, the worst kept
    records: tuple[MceRecord, ...] = ()
    # machine checks in all, also of those beyond what is kept
    total: int = 0
    by_grade: Mapping[str, int] = dataclasses.field(default_factory=dict)
    # banks that had lost some: then `total` is a lower bound
    overflowed: int = 0
    # folded records that were not kept
    left_out: int = 0
    # one sentence each
    disagreements: tuple[str, ...] = ()


def merge(
    told: Mapping[Source, Sequence[MceRecord]],
    *,
    panicked: bool = False,
    lost: Mapping[Source, int] | None = None,
) -> Merged:
    """One list out of what each source told; a source that was read and told nothing is empty.

    `lost` are records that a source itself left out. A host that panicked writes neither trace
    events nor to a database, and nobody is blamed for that.
    """
    lost = lost or {}
    joined: list[MceRecord] = []
    disagreements: list[str] = []
    for source in Source:
        if source in told:
            disagreements += _join(joined, told[source], source)
    disagreements += _mend(joined)
    missed = {source: sum(source not in one.sources for one in joined) for source in told}
    if not panicked:
        disagreements += _missing(missed, lost, len(joined))
    # What one source left out another may have; what is beyond that nobody told.
    untold = [count - missed.get(source, len(joined)) for source, count in lost.items()]
    kept, left_out = fold(joined)
    more = len(disagreements) - MOST_DISAGREEMENTS
    if more > 0:
        disagreements[MOST_DISAGREEMENTS:] = [f"{more} more of the kind"]
    return Merged(
        records=tuple(kept),
        total=len(joined) + max([0, *untold]),
        by_grade=dict(Counter(record.grade.value for record in joined)),
        overflowed=sum(record.overflowed for record in joined),
        left_out=left_out,
        disagreements=tuple(disagreements),
    )


def _keys(record: MceRecord) -> list[Hashable]:
    """How another source's record of the same check is found, the surest way first."""
    place = (record.cpu, record.bank)
    if record.tsc:
        return [("tsc", *place, record.tsc)]
    if record.time_s:
        when = ("time", *place, record.time_s)
        return [(*when, record.status, record.addr), when]
    return [("status", *place, record.status)]


def _all_keys(record: MceRecord) -> list[Hashable]:
    """How a record can be found by one that was cut short, too."""
    keys = _keys(record)
    by_status = ("status", record.cpu, record.bank, record.status)
    return keys if by_status in keys else [*keys, by_status]


def _join(joined: list[MceRecord], new: Sequence[MceRecord], source: Source) -> list[str]:
    """Add a source's records to the list, in place; returns where it disagrees."""
    index: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    for place, record in enumerate(joined):
        for key in _all_keys(record):
            index[key].append(place)
    taken: set[int] = set()
    said = []
    for record in new:
        at = _partner(record, index, taken)
        if at is None:
            joined.append(record)
            continue
        taken.add(at)
        said += _differences(joined[at], record, source)
        joined[at] = _together(joined[at], record)
    return said


def _mend(joined: list[MceRecord]) -> list[str]:
    """Put what a log told in part to the records that other sources have whole, in place.

    A log that is written faster than it is read loses lines: a record is left without its time
    stamps then, or with those of a later one.
    """
    alone = [place for place, one in enumerate(joined) if not set(one.sources) - set(_LOGS)]
    if all(joined[place].tsc or joined[place].time_s for place in alone):
        return []
    whole: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    for place, record in enumerate(joined):
        if record.sources and not set(record.sources) & set(_LOGS):
            whole[(record.cpu, record.bank, record.status)].append(place)
    mended = set()
    for place in alone:
        torn = joined[place]
        if partners := whole[(torn.cpu, torn.bank, torn.status)]:
            at = partners.popleft()
            joined[at] = _together(joined[at], torn)
            mended.add(place)
    joined[:] = [record for place, record in enumerate(joined) if place not in mended]
    return [f"the log lost lines: it tells {len(mended)} machine checks in part"] if mended else []


def _partner(
    record: MceRecord, index: Mapping[Hashable, deque[int]], taken: set[int]
) -> int | None:
    for key in _keys(record):
        waiting = index.get(key)
        while waiting and waiting[0] in taken:
            waiting.popleft()
        if waiting:
            return waiting.popleft()
    return None


def _differences(one: MceRecord, other: MceRecord, source: Source) -> list[str]:
    words = []
    for name in _COMPARED:
        mine, its = getattr(one, name), getattr(other, name)
        if mine is not None and its is not None and mine != its:
            words.append(f"{name} is {its:#x} by {source.value}, {mine:#x} by {one.sources[0]}")
    if not words:
        return []
    return [f"CPU {one.cpu}, bank {one.bank}: {'; '.join(words)}"]


def _together(one: MceRecord, other: MceRecord) -> MceRecord:
    """The first, with what only the second knows."""
    missing = {
        field.name: getattr(other, field.name)
        for field in dataclasses.fields(MceRecord)
        if getattr(one, field.name) in (None, "", ())
    }
    return dataclasses.replace(one, **{**missing, "sources": (*one.sources, *other.sources)})


def _missing(missed: Mapping[Source, int], lost: Mapping[Source, int], total: int) -> list[str]:
    """Sources that should have every record and have not, beyond those they left out."""
    return [
        f"{source.value} has none of {missed[source]} of {total} machine checks"
        for source in _COMPLETE
        if missed.get(source, 0) > lost.get(source, 0)
    ]


def fold(records: Sequence[MceRecord], most: int = MOST_KEPT) -> tuple[list[MceRecord], int]:
    """Alike records as one with a count, in order; with more than `most` kinds, the worst stay.

    Alike are those of one CPU and bank with the same flags, code and page.
    """
    groups: dict[Hashable, list[MceRecord]] = {}
    for record in records:
        groups.setdefault(_likeness(record), []).append(record)
    folded = [
        dataclasses.replace(alike[0], count=sum(record.count for record in alike))
        for alike in groups.values()
    ]
    order = list(Grade)
    worst = sorted(folded, key=lambda record: -order.index(record.grade))[:most]
    chosen = {id(record) for record in worst}
    return [record for record in folded if id(record) in chosen], len(folded) - len(worst)


def _likeness(record: MceRecord) -> Hashable:
    page = None if record.addr is None else page_of(record.addr)
    status = record.status if record.grade.uncorrected else record.status & ~_CORRECTED_COUNT
    return (record.boot_id, record.cpu, record.bank, status, record.mcgstatus, page)

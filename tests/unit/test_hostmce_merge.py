# SPDX-License-Identifier: GPL-2.0-or-later
"""One list out of many sources: each machine check once, disagreements told, storms bounded."""

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.hostmce.merge import MOST_DISAGREEMENTS, MOST_KEPT, fold, merge
from harness.hostmce.record import MceRecord, Source

LOG, TRACE, RAS = Source.KERNEL_LOG, Source.TRACE, Source.RASDAEMON
SRAR = 0xBD80000000100134
CORRECTED = 0x9C00004000010092


def record(source: Source, **fields: Any) -> MceRecord:
    known: dict[str, Any] = {"mcgstatus": 7, "cpu": 0, "addr": 0x1000, "tsc": 100}
    return dataclasses.replace(
        MceRecord(bank=1, status=SRAR), **{**known, "sources": (source,), **fields}
    )


def test_one_check_that_three_sources_tell_is_one() -> None:
    told = {
        LOG: [record(LOG, symbol="f+0x1/0x2")],
        TRACE: [record(TRACE, mcgcap=5)],
        RAS: [record(RAS)],
    }
    merged = merge(told)
    (only,) = merged.records
    assert (only.sources, only.mcgcap, only.symbol) == ((LOG, TRACE, RAS), 5, "f+0x1/0x2")
    assert (merged.total, merged.disagreements) == (1, ())


def test_alike_checks_at_two_times_are_two() -> None:
    merged = merge({LOG: [record(LOG), record(LOG, tsc=200)], TRACE: [record(TRACE, tsc=200)]})
    assert merged.total == 2
    assert merged.records[0].count == 2
    assert merged.disagreements == ("trace event has none of 1 of 2 machine checks",)


def test_polled_banks_are_known_by_their_time() -> None:
    polled = {"tsc": 0, "status": CORRECTED, "time_s": 1700000000}
    twice = [record(TRACE, **polled), record(TRACE, **polled)]
    merged = merge({TRACE: twice, RAS: [record(RAS, **polled)] * 2})
    assert (merged.total, merged.disagreements) == (2, ())
    later = {**polled, "time_s": 1700000001}
    assert merge({TRACE: twice, RAS: [record(RAS, **later)]}).total == 3


def test_a_record_that_was_cut_short_finds_its_whole() -> None:
    cut = record(Source.CONSOLE, tsc=None, addr=None)
    merged = merge({LOG: [record(LOG, time_s=5)], Source.CONSOLE: [cut]})
    assert merged.total == 1
    assert merged.records[0].sources == (LOG, Source.CONSOLE)


def test_what_a_log_that_lost_lines_tells_is_counted_once() -> None:
    whole = [record(TRACE, tsc=tsc) for tsc in (100, 200, 300)]
    # the first's time stamps are lost, the second's are those of the third
    torn = [record(LOG, tsc=None, addr=None), record(LOG, tsc=350, addr=0x9000)]
    merged = merge({LOG: torn, TRACE: whole})
    assert merged.total == 3
    assert [r.addr for r in merged.records] == [0x1000]
    assert merged.disagreements == ("the log lost lines: it tells 2 machine checks in part",)
    # A log that has all of its lines is believed.
    assert merge({LOG: torn[1:], TRACE: whole}).total == 4
    # and one that tells more than the others have
    assert merge({LOG: torn * 2, TRACE: whole}).total == 4


def test_a_disagreement_names_register_and_sources() -> None:
    merged = merge({LOG: [record(LOG)], RAS: [record(RAS, addr=0x2000, mcgstatus=5)]})
    assert merged.total == 1
    assert merged.records[0].addr == 0x1000
    (said,) = merged.disagreements
    assert "addr is 0x2000 by rasdaemon, 0x1000 by kernel log" in said
    assert "mcgstatus is 0x5 by rasdaemon" in said


def test_what_one_source_does_not_know_is_no_disagreement() -> None:
    merged = merge({LOG: [record(LOG, socket=None)], RAS: [record(RAS, socket=1)]})
    assert (merged.disagreements, merged.records[0].socket) == ((), 1)


def test_a_source_that_lacks_records_is_named_unless_the_host_went_down() -> None:
    told = {LOG: [record(LOG)], TRACE: [], RAS: []}
    assert len(merge(told).disagreements) == 2
    assert merge(told, panicked=True).disagreements == ()
    # The log leaves out what a driver handled, and a source that was not there says nothing.
    assert merge({LOG: [], TRACE: [record(TRACE)]}).disagreements == ()


def test_a_storm_is_folded_and_bounded_and_the_worst_stays() -> None:
    storm = [
        record(TRACE, status=CORRECTED, tsc=i + 1, addr=4096 * (i % 500), cpu=i % 8)
        for i in range(20_000)
    ]
    merged = merge({TRACE: [*storm, record(TRACE, tsc=10**9)]}, lost={TRACE: 7})
    assert merged.total == 20_008
    assert len(merged.records) == MOST_KEPT
    assert merged.left_out > 0
    assert merged.records[-1].status == SRAR
    assert merged.by_grade == {"corrected": 20_000, "SRAR": 1}


def test_what_two_sources_left_out_of_a_storm_counts_once() -> None:
    log, trace = [record(LOG, tsc=tsc) for tsc in range(1, 6)], [record(TRACE, tsc=5)]
    # Of ten, the log has the first five and the trace the fifth alone.
    merged = merge({LOG: log, TRACE: trace}, lost={LOG: 5, TRACE: 9})
    assert (merged.total, merged.disagreements) == (10, ())
    # It dropped three, and lacks four.
    merged = merge({LOG: log, TRACE: trace}, lost={TRACE: 3})
    assert merged.total == 5
    assert merged.disagreements == ("trace event has none of 4 of 5 machine checks",)


def test_disagreements_of_a_storm_are_bounded() -> None:
    told = {
        LOG: [record(LOG, tsc=i + 1) for i in range(500)],
        RAS: [record(RAS, tsc=i + 1, addr=0) for i in range(500)],
    }
    merged = merge(told)
    assert len(merged.disagreements) == MOST_DISAGREEMENTS + 1
    assert merged.disagreements[-1].startswith("480 more")


def test_overflow_is_honoured() -> None:
    lost_some = record(LOG, status=SRAR | 1 << 62)
    merged = merge({LOG: [record(LOG, tsc=1), lost_some]})
    assert merged.overflowed == 1
    assert {r.grade.value for r in merged.records} == {"SRAR", "fatal"}


def test_counts_of_corrected_errors_do_not_part_alike_ones() -> None:
    counted = [record(TRACE, status=CORRECTED & ~(0x7FFF << 38) | n << 38) for n in (1, 2, 3)]
    assert [r.count for r in fold(counted)[0]] == [3]


RECORDS = st.builds(
    record,
    st.just(LOG),
    cpu=st.integers(0, 1),
    tsc=st.sampled_from([None, 0, 1, 2]),
    time_s=st.sampled_from([None, 5, 6]),
    addr=st.sampled_from([None, 0x1000, 0x2000]),
    status=st.sampled_from([SRAR, CORRECTED]),
)


def of(source: Source, records: list[MceRecord]) -> list[MceRecord]:
    return [dataclasses.replace(one, sources=(source,)) for one in records]


@given(st.lists(RECORDS, max_size=8), st.lists(RECORDS, max_size=8))
def test_nothing_is_lost_and_nothing_told_twice(
    one: list[MceRecord], other: list[MceRecord]
) -> None:
    merged = merge({LOG: of(LOG, one), TRACE: of(TRACE, other)})
    assert max(len(one), len(other)) <= merged.total <= len(one) + len(other)
    assert sum(r.count for r in merged.records) == merged.total
    told = sum(r.count for r in merged.records for source in r.sources if source is LOG)
    assert told <= merged.total


@given(st.lists(RECORDS, max_size=10))
def test_two_sources_that_tell_the_same_agree(records: list[MceRecord]) -> None:
    merged = merge({TRACE: of(TRACE, records), RAS: of(RAS, records)})
    assert (merged.total, merged.disagreements) == (len(records), ())
    assert all(r.sources == (TRACE, RAS) for r in merged.records)

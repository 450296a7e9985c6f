# SPDX-License-Identifier: GPL-2.0-or-later
"""Two runs' findings: the same bit for bit, or the same bugs."""

from dataclasses import replace

from harness.compare import differences, set_differences
from harness.verdict import Finding, Severity, Site

STALE = Finding(
    rule="guest-tlb-flush",
    severity=Severity.FAIL,
    summary="vCPU 1 had not",
    evidence="unflushed",
    vcpu=1,
    seq=9,
    conversion_site=Site(address=1, symbol="job_convert+0x1/0x9"),
    extra={"step": "convert-4k"},
)
DIRTY = Finding(rule="guest-cache-flush", severity=Severity.FAIL, summary="64 of 64", seq=7)


def test_the_same_findings_differ_in_nothing() -> None:
    assert differences([STALE, DIRTY], [replace(STALE), replace(DIRTY)]) == []
    assert set_differences([STALE, DIRTY], [DIRTY, STALE]) == []
    assert differences([], []) == set_differences([], []) == []


def test_a_bit_is_a_difference() -> None:
    (said,) = differences([STALE, DIRTY], [STALE, replace(DIRTY, seq=8, lines=(1,))])
    assert said == "finding 2, guest-cache-flush: different in lines, seq"
    assert differences([STALE], [STALE, DIRTY]) == ["1 findings and 2"]


def test_addresses_numbers_and_order_make_no_other_bug() -> None:
    moved = replace(STALE, vcpu=0, seq=70, gpa=4096, count=3)
    moved = replace(moved, conversion_site=Site(address=2, symbol="job_convert+0x5/0x9"))
    assert set_differences([STALE, STALE, DIRTY], [DIRTY, moved]) == []


def test_a_bug_of_one_run_alone_is_named() -> None:
    used = replace(STALE, evidence="used")
    elsewhere = replace(STALE, extra={"step": "convert-2m"})
    milder = replace(STALE, severity=Severity.REPORT)
    assert set_differences([STALE, used], [STALE]) == [
        "only in the first: guest-tlb-flush in job_convert, used in step 'convert-4k'"
    ]
    assert set_differences([STALE], [STALE, elsewhere]) == [
        "only in the second: guest-tlb-flush in job_convert, unflushed in step 'convert-2m'"
    ]
    assert len(set_differences([STALE], [milder])) == 2

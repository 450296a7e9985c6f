# SPDX-License-Identifier: GPL-2.0-or-later
"""New, fixed and the same, by the verdicts of two runs; flaky on the evidence of a second one."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.series.compare import Standing, bugs, compare, recheck, went_as_far
from harness.verdict import Finding, Outcome, Severity, Site, Verdict


def finding(rule: str = "guest-cache-flush", caller: str = "f", address: int = 1) -> Finding:
    return Finding(
        rule=rule,
        severity=Severity.FAIL,
        summary="s",
        gpa=address * 4096,
        direction="private to shared",
        conversion_site=Site(address=address, symbol=f"{caller}+{address:#x}/0x90"),
        seq=address,
    )


def verdict(*findings: Finding, steps: int = 4, reason: str = "", **counts: int) -> Verdict:
    return Verdict(
        outcome=Outcome.FAIL if findings else Outcome.PASS,
        findings=findings,
        counts={"steps": steps, **counts},
        reason=reason,
    )


A, B, C = (finding(caller=name) for name in "abc")


def titles(found: object) -> list[str]:
    assert isinstance(found, tuple)
    return [bug.title.split()[2].rstrip(",") for bug in found]


def test_new_fixed_same() -> None:
    moved = finding(caller="a", address=77)
    change = compare(verdict(A, A, B), verdict(moved, C))
    assert (titles(change.new), titles(change.fixed)) == (["c"], ["b"])
    ((before, after),) = change.same
    assert (before.count, after.count) == (2, 1)
    assert not change.perhaps_new and not change.perhaps_fixed


def test_a_bug_of_many_findings() -> None:
    report = replace(A, severity=Severity.REPORT, count=5)
    (bug,) = bugs([report, replace(A, extra={"expected": True}), A]).values()
    assert (bug.severity, bug.count, bug.finding) == (Severity.FAIL, 6, report)
    assert json.loads(json.dumps(bug.to_json()))["title"] == "guest-cache-flush in a, to shared"


NOT_WHOLE = [
    verdict(A, steps=3),
    verdict(A, reason="the event stream is cut short"),
    verdict(A, bugs_left_out=1),
    verdict(A, steps_unended=1),
    verdict(A, replace(B, rule="workload", extra={"step": "", "rc": None})),
    replace(verdict(A), outcome=Outcome.ERROR),
    replace(verdict(A), outcome=Outcome.EMPTY),
]


@pytest.mark.parametrize("cut", NOT_WHOLE)
def test_what_a_run_did_not_come_to_is_not_fixed(cut: Verdict) -> None:
    assert went_as_far(verdict(A), verdict(A)) and not went_as_far(cut, verdict(A))
    change = compare(verdict(A, C), cut)
    assert (titles(change.fixed), titles(change.perhaps_fixed)) == ([], ["c"])
    change = compare(cut, verdict(A, C))
    assert (titles(change.new), titles(change.perhaps_new)) == ([], ["c"])
    (again,) = recheck(bugs([C]).values(), verdict(C), cut)
    assert again.standing is Standing.UNCONFIRMED


def test_flaky_only_when_a_whole_run_lacks_it() -> None:
    first, second = verdict(A, B), verdict(B, C)
    found = recheck(bugs(first.findings).values(), first, second)
    assert [each.standing for each in found] == [Standing.FLAKY, Standing.CONFIRMED]
    assert all((each.first, each.again) == (first, second) for each in found)


FINDINGS = st.lists(st.builds(finding, st.just("dma-data"), st.sampled_from("abcd")), max_size=6)


@given(FINDINGS, FINDINGS, st.integers(0, 4), st.integers(0, 4))
def test_no_bug_is_lost(before: list[Finding], after: list[Finding], steps: int, more: int) -> None:
    base, patched = verdict(*before, steps=steps), verdict(*after, steps=more)
    change = compare(base, patched)
    same = [old.identity for old, _ in change.same]
    gone = [bug.identity for bug in (*change.fixed, *change.perhaps_fixed)]
    new = [bug.identity for bug in (*change.new, *change.perhaps_new)]
    assert sorted(same + gone) == sorted(bugs(before))
    assert sorted(same + new) == sorted(bugs(after))
    back = compare(patched, base)
    assert sorted(b.identity for b in (*back.new, *back.perhaps_new)) == sorted(gone)

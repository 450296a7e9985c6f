# SPDX-License-Identifier: GPL-2.0-or-later
"""Findings are bounded, bugs are not lost by it."""

from hypothesis import given
from hypothesis import strategies as st

from harness.triage import bounded, identity_of
from harness.verdict import Finding, Severity, Site


def finding(rule: str, caller: str, seq: int = 0) -> Finding:
    site = Site(address=seq, symbol=f"{caller}+{seq:#x}/0x90")
    return Finding(rule=rule, severity=Severity.FAIL, summary="s", seq=seq, conversion_site=site)


def test_the_first_of_a_bug_is_kept_behind_many_of_another() -> None:
    many = [finding("dma-data", "f", seq) for seq in range(60)]
    late = finding("dma-data", "g", 60)
    kept, left_out = bounded([*many, late, late], 50)
    assert kept == [*many[:50], late]
    assert left_out == {"findings_left_out": 11, "bugs_left_out": 0}


def test_bugs_are_bounded_too_and_then_told() -> None:
    found = [finding("dma-data", f"f{n}") for n in range(9)]
    kept, left_out = bounded([*found, found[8]], 2, most_bugs=5)
    assert kept == found[:5]
    assert left_out == {"findings_left_out": 5, "bugs_left_out": 4}


FINDINGS = st.lists(
    st.builds(finding, st.sampled_from(["dma-data", "workload"]), st.sampled_from("abcdef"))
)


@given(FINDINGS, st.integers(0, 4), st.integers(0, 8))
def test_nothing_is_lost_unsaid(found: list[Finding], most: int, bugs: int) -> None:
    kept, left_out = bounded(found, most, bugs)
    assert len(kept) + left_out["findings_left_out"] == len(found)
    all_bugs, shown = ({identity_of(f) for f in part} for part in (found, kept))
    assert len(all_bugs) - len(shown) == left_out["bugs_left_out"]
    assert len(kept) <= 2 * most + bugs
    assert left_out["bugs_left_out"] == 0 or len(shown) >= bugs

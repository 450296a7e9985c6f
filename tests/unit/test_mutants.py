# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches that foretell what finds them, and the table that says whether it did."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.conversions import TO_PRIVATE, TO_SHARED
from harness.errors import ConfigError
from harness.faults import FAULTS
from harness.mutants import MOST_PATCH_BYTES, Mutant, read_group, read_mutant
from harness.score import Score
from harness.scoretable import (
    Row,
    render,
    row_of_fault,
    row_of_mutant,
    row_of_rest,
    row_of_step,
    row_untried,
    summary,
)  # fmt: skip
from harness.verdict import Finding, Outcome, Severity, Site, Verdict

PATCH = """From 0 Mon Sep 17 00:00:00 2001
From: A <a@example.org>
Subject: [PATCH] x86/mm: Leave out
 a flush

Body.

X-Trips: guest-tlb-flush kernel-log
X-Direction: shared to private
X-Needs: vmm=retry-2m
X-Workload: conversion dma
---
 file | 2 +-
X-Trips: not a tag any more
"""


def write(folder: Path, text: str = PATCH, name: str = "0001-x.patch") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def test_tags_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "mutants")
    (path.parent / "series").write_text("# comment\n\n0001-x.patch\n")
    assert read_group(path.parent) == (
        Mutant(
            path=path,
            group="mutants",
            name="mutants/0001",
            title="x86/mm: Leave out a flush",
            trips=frozenset({"guest-tlb-flush", "kernel-log"}),
            direction=TO_PRIVATE,
            vmm="retry-2m",
            workloads=("conversion", "dma"),
        ),
    )


def test_none_trips_nothing(tmp_path: Path) -> None:
    text = "Subject: \x1b[31mred\nX-Trips: none\n---\n"
    mutant = read_mutant(write(tmp_path / "rfc", text))
    assert (mutant.trips, mutant.title) == (frozenset(), r"\x1b[31mred")
    assert (mutant.vmm, mutant.direction, mutant.workloads) == ("", None, ("conversion",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Subject: x\n---\n", "no line X-Trips"),
        ("X-Trips: none\nX-Direction: sideways\n---\n", "X-Direction is neither"),
        ("x" * (MOST_PATCH_BYTES + 1), "more than 1024 KiB"),
    ],
    ids=["no tag", "direction", "huge"],
)
def test_bad_patches_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "g", text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_mutant(path)
    assert str(path) in caught.value.message


def test_a_group_needs_its_series(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*series"):
        read_group(tmp_path)
    (tmp_path / "series").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="lists no patch"):
        read_group(tmp_path)


def found(rule: str, direction: str = TO_SHARED, severity: Severity = Severity.FAIL) -> Finding:
    return Finding(
        rule=rule, severity=severity, summary="", gpa=0x5000, direction=direction, vcpu=1,
        conversion_site=Site(address=1, symbol="dma_direct_alloc+0x1/0x2"),
    )  # fmt: skip


def verdict(*findings: Finding, outcome: Outcome | None = None) -> Verdict:
    worst = Outcome.FAIL if findings else Outcome.PASS
    return Verdict(outcome=outcome or worst, reason="a reason", findings=findings)


def mutant(*trips: str, direction: str | None = None) -> Mutant:
    return Mutant(
        path=Path("mutants/0001-x.patch"), group="mutants", name="mutants/0001", title="t",
        trips=frozenset(trips), direction=direction,
    )  # fmt: skip


def test_the_right_rule_at_the_right_place_is_a_catch() -> None:
    row = row_of_mutant(mutant("guest-tlb-flush"), verdict(found("guest-tlb-flush")))
    assert row.caught
    assert row.place == "dma_direct_alloc, 0x5000, to shared, vCPU 1"


def test_a_rule_that_only_reports_can_be_foretold() -> None:
    only = found("shared-access-to-private", severity=Severity.REPORT)
    assert row_of_mutant(mutant("shared-access-to-private"), verdict(only)).caught
    assert row_of_mutant(mutant(), verdict(only)).caught


@pytest.mark.parametrize(
    ("trips", "seen", "note"),
    [
        (("guest-tlb-flush",), verdict(), "missed by guest-tlb-flush"),
        ((), verdict(found("dma-data")), "also found by dma-data"),
        (
            ("guest-tlb-flush",),
            verdict(found("dma-data")),
            "missed by guest-tlb-flush; also found by dma-data",
        ),
        (
            ("guest-tlb-flush",),
            verdict(found("guest-tlb-flush"), outcome=Outcome.ERROR),
            "ERROR: a reason",
        ),
        ((), verdict(outcome=Outcome.EMPTY), "EMPTY: a reason"),
    ],
)
def test_all_else_is_a_miss(trips: tuple[str, ...], seen: Verdict, note: str) -> None:
    row = row_of_mutant(mutant(*trips), seen)
    assert (row.caught, row.note) == (False, note)


def test_the_direction_is_part_of_the_place() -> None:
    told = mutant("guest-tlb-flush", direction=TO_PRIVATE)
    assert row_of_mutant(told, verdict(found("guest-tlb-flush", TO_PRIVATE))).caught
    both = verdict(found("guest-tlb-flush", TO_PRIVATE), found("guest-tlb-flush"))
    assert not row_of_mutant(told, both).caught


STEP = "fault-x"


def planted(rule: str, **extra: object) -> Finding:
    return replace(found(rule), extra={"step": STEP, **extra})


@pytest.mark.parametrize(
    ("expected", "findings", "note"),
    [
        ({"dma-data"}, [planted("dma-data", expected=True)], ""),
        ({"dma-data"}, [], "missed by dma-data"),
        (set(), [planted("dma-data")], "also found by dma-data"),
        (set(), [], ""),
    ],
)
def test_steps_are_scored(expected: set[str], findings: list[Finding], note: str) -> None:
    row = row_of_step("guest", STEP, frozenset(expected), verdict(*findings))
    assert (row.caught, row.note) == (not note, note)


def test_what_is_found_outside_the_steps_is_an_alarm() -> None:
    assert row_of_rest("guest", verdict(planted("dma-data"))).caught
    assert not row_of_rest("guest", verdict(found("dma-data"))).caught


def test_faults_of_the_stub_are_scored() -> None:
    fault = FAULTS["cache-all"]
    good = Score(caught=True, expected=fault.rules, found=fault.rules, place="0x5000")
    assert row_of_fault(fault, good).caught
    lost = replace(good, caught=False, found=(), place="nowhere")
    assert row_of_fault(fault, lost).note == "missed by guest-cache-flush"
    elsewhere = replace(good, caught=False, place="0x9000")
    assert row_of_fault(fault, elsewhere).note == "found at 0x9000"
    stray = replace(elsewhere, stray=(found("dma-data"),))
    assert row_of_fault(fault, stray).note.startswith("elsewhere: dma_direct_alloc")


def rows() -> list[Row]:
    return [
        row_of_mutant(mutant("guest-tlb-flush"), verdict(found("guest-tlb-flush"))),
        row_of_mutant(mutant("guest-tlb-flush"), verdict()),
        row_of_mutant(mutant(), verdict()),
        row_of_rest("guest", verdict(found("dma-data"))),
        row_untried("rfc", "rfc/0001", frozenset(), "it does not build"),
    ]


def test_the_summary_counts_faults_and_alarms() -> None:
    assert summary(rows()) == (
        "1 of 2 faults caught by the right rule at the right place; "
        "1 false alarms in 3 that break no rule; 1 could not be judged"
    )


def test_the_table_fits_and_says_what_is_wrong() -> None:
    output = io.StringIO()
    Console(file=output, width=100).print(render(rows()))
    shown = output.getvalue()
    assert max(map(len, shown.splitlines())) <= 100
    for word in ("caught", "MISSED", "silent", "ALARM", "unclear", "missed by", "1 of 2"):
        assert word in shown

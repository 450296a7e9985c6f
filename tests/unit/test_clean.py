# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix of clean kernels: what is left to boot, its rows, and what it says in the end."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness import clean
from harness.clean import Boot, Cell, boot_of, exit_code, missing, parse_boots, parse_sizes, render
from harness.errors import ConfigError, EvidenceError, ExitCode
from harness.evidence import Evidence
from harness.judge import verdict_of
from harness.report import text
from harness.rundir import RunDir
from harness.testing.guests import fake_plan
from harness.verdict import Finding, Outcome, Severity, Verdict

ONE = Cell(kernel="stock", release="6.12", image="aa", plugin="tdstub-1", smp=2, memory_mib=1024)
TWO = replace(ONE, smp=4)
PASS = Verdict(outcome=Outcome.PASS, counts={"conversions": 3, "pte_changes": 5, "steps": 9})
STALE = Finding(
    rule="guest-tlb-flush", severity=Severity.FAIL, summary="vCPU 1 had not", evidence="unflushed"
)
REDUNDANT = Finding(rule="redundant-flush", severity=Severity.REPORT, summary="64 lines")


def boot(cell: Cell = ONE, verdict: Verdict = PASS) -> Boot:
    return boot_of(cell, verdict, 1.26, "runs/x")


def test_rows_survive_the_file() -> None:
    rows = [boot(), boot(TWO, replace(PASS, findings=(STALE, REDUNDANT), reason="so"))]
    assert parse_boots([json.dumps(row.to_json()) for row in rows]) == rows
    assert rows[0].counts["conversions"] == 3 and rows[0].seconds == 1.3
    assert rows[1].findings == {
        "guest-tlb-flush unflushed fail": 1,
        "redundant-flush report": 1,
    }
    assert rows[1].failures == ("vCPU 1 had not",)


@pytest.mark.parametrize("line", ["", "x", "[]", "{}", '{"cell": {}}', '{"cell": 1}'])
def test_what_is_no_row_is_refused(line: str) -> None:
    good = json.dumps(boot().to_json())
    with pytest.raises(EvidenceError, match="line 2"):
        parse_boots([good, line])


def test_only_what_is_missing_is_booted() -> None:
    assert missing([ONE, TWO], [], 2) == [ONE, TWO, ONE, TWO]
    assert missing([ONE, TWO], [boot(ONE)], 2) == [TWO, ONE, TWO]
    assert missing([ONE], [boot(ONE), boot(ONE)], 2) == []
    # Another kernel image or another plugin is another matter.
    assert missing([ONE], [boot(replace(ONE, image="bb"))], 1) == [ONE]
    assert missing([ONE], [boot(replace(ONE, plugin="tdstub-2"))], 1) == [ONE]


def test_sizes() -> None:
    assert parse_sizes(["2x1024", "8x6144"]) == ((2, 1024), (8, 6144))
    for word in ("2", "2x", "x512", "2x512x1", "-1x512", "0x512", "2x511"):
        with pytest.raises(ConfigError):
            parse_sizes([word])


def test_the_worst_row_counts() -> None:
    error = Verdict(outcome=Outcome.ERROR)
    fail = Verdict(outcome=Outcome.FAIL, findings=(STALE,))
    assert exit_code([boot()]) == ExitCode.PASS
    assert exit_code([boot(), boot(ONE, error)]) == ExitCode.CANNOT_JUDGE
    assert exit_code([boot(ONE, error), boot(ONE, fail), boot()]) == ExitCode.FINDINGS
    assert exit_code([]) == ExitCode.CANNOT_JUDGE


def test_the_table_counts_what_was_judged() -> None:
    output = io.StringIO()
    fail = replace(PASS, outcome=Outcome.FAIL, findings=(STALE, REDUNDANT))
    text.console(output).print(render([boot(), boot(ONE, fail), boot(TWO)]))
    lines = [
        line.replace("│", " ").split() for line in output.getvalue().splitlines() if "6.12" in line
    ]
    assert [line[:7] for line in lines] == [
        ["6.12", "2", "1024", "2", "1", "6", "10"],
        ["6.12", "4", "1024", "1", "0", "3", "5"],
    ]
    assert "guest-tlb-flush" in output.getvalue() and "none" in output.getvalue()


def test_a_matrix_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clean, "prepare", lambda *_: fake_plan(tmp_path / "plan"))
    booted: list[str] = []

    def carry_out(*_: object) -> RunDir:
        booted.append("")
        return RunDir.create(tmp_path, "clean")

    monkeypatch.setattr(clean, "carry_out", carry_out)
    outcomes = [PASS, verdict_of(Evidence(td_mode="stub", broken=("no events",)))]
    monkeypatch.setattr(clean, "judge", lambda _: outcomes[len(booted) % 2])
    said: list[str] = []
    rows = clean.clean(["stock"], [(2, 1024)], 2, tmp_path, said.append)
    assert [row.outcome for row in rows] == ["ERROR", "PASS"] and len(said) == 2
    # The evidence of what did not pass is kept.
    assert [Path(row.run).exists() for row in rows] == [True, False]
    assert clean.clean(["stock"], [(2, 1024)], 2, tmp_path, said.append) == rows
    assert len(booted) == 2
    assert len(clean.clean(["stock"], [(2, 1024)], 3, tmp_path, said.append)) == 3

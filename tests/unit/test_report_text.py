# SPDX-License-Identifier: GPL-2.0-or-later
"""The text report: fits 100 columns, folds, and prints no guest control character."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from harness.conversions import conversions
from harness.report import text
from harness.report.model import RunReport
from harness.symbols import Symbols
from harness.testing.events import StreamBuilder
from harness.verdict import Finding, Outcome, Severity, Site, Verdict


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        """Always."""
        return True


def report_of(verdict: Verdict, builder: StreamBuilder | None = None) -> RunReport:
    events = (builder or StreamBuilder()).events
    return RunReport(
        path=Path("nowhere"), verdict=verdict, conversions=tuple(conversions(events, Symbols()))
    )


def printed(report: RunReport, *, every: bool = False) -> str:
    file = io.StringIO()
    text.print_report(report, text.console(file), every=every)
    return file.getvalue()


def finding(number: int = 0) -> Finding:
    trace = tuple(Site(address=i, symbol=f"function_number_{i}+0x10/0x80") for i in range(12))
    return Finding(
        rule="guest-cache-flush", severity=Severity.FAIL, summary=f"summary {number}",
        look_at="the first cpa_flush()", gpa=0x1000 * number, lines=(1, 2), vcpu=1, trace=trace,
        direction="private to shared", seq=number, store_site=Site(address=0x77), count=2,
    )  # fmt: skip


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_named_first(outcome: Outcome) -> None:
    lines = printed(report_of(Verdict(outcome=outcome, reason="For a reason."))).splitlines()
    assert lines[0].split()[0] == outcome.value
    assert len(lines) <= 3


def test_findings_and_their_facts() -> None:
    out = printed(report_of(Verdict(outcome=Outcome.FAIL, findings=(finding(1), finding(2)))))
    for part in (
        "2 findings: guest-cache-flush \u00d72", "summary 1", "summary 2", "page 0x1000",
        "lines 1-2", "event 2", "0x77", "(fail) \u00d72",
        "function_number_0+0x10/0x80 <- function_number_1",
    ):  # fmt: skip
        assert part in out
    # alike findings: trace and advice once
    assert out.count("function_number_0") == 1
    assert out.count("the first cpa_flush()") == 1


def test_many_findings_are_folded_unless_all_are_asked_for() -> None:
    report = report_of(Verdict(outcome=Outcome.FAIL, findings=tuple(map(finding, range(50)))))
    assert "30 more: --all shows them" in printed(report)
    assert "summary 49" not in printed(report)
    assert "summary 49" in printed(report, every=True)


def test_planted_findings_are_counted_and_told_on_request() -> None:
    planted = replace(finding(7), severity=Severity.REPORT, extra={"expected": True})
    report = report_of(Verdict(outcome=Outcome.PASS, findings=(planted, planted)))
    assert "planted by the workload and caught: guest-cache-flush \u00d72" in printed(report)
    assert "summary 7" not in printed(report)
    assert "summary 7" in printed(report, every=True)


def many_conversions() -> StreamBuilder:
    builder = StreamBuilder()
    for index in range(200):
        builder.convert(0x123456789000 + index * 0x1000, 0x1000, to_shared=True)
    builder.convert(0x200000000000, 1 << 30, to_shared=True, dirty=16777216, flushed_again=999999)
    builder.convert(0x200000000000, 1 << 30, to_shared=False, flushed=16777216)
    return builder


def test_conversions_alike_are_one_row_and_all_show_each() -> None:
    report = report_of(Verdict(outcome=Outcome.PASS), many_conversions())
    folded, every = printed(report), printed(report, every=True)
    assert "200 \u00d7 4 KiB" in folded
    assert "16,777,216" in folded and "999,999" in folded
    assert len(folded.splitlines()) < 15
    assert len(every.splitlines()) > 200
    assert "\u00d7" not in every


def test_many_different_rows_are_cut_and_said() -> None:
    builder = StreamBuilder()
    for index in range(1, 161):
        builder.convert(0x1000, 0x1000 * index, to_shared=True)
    out = printed(report_of(Verdict(outcome=Outcome.PASS), builder))
    assert "100 more rows: --all shows them" in out


@pytest.mark.parametrize("every", [False, True])
def test_fits_100_columns_with_no_number_cut(every: bool) -> None:
    verdict = Verdict(
        outcome=Outcome.FAIL,
        findings=tuple(map(finding, range(3))),
        evidence=("events", "guest-kernel-log"),
        counts=dict.fromkeys(("conversions", "lines_flushed", "lines_dirty", "steps"), 10**9),
    )
    out = printed(report_of(verdict, many_conversions()), every=every)
    assert max(map(len, out.splitlines())) <= text.WIDTH
    assert "\u2026" not in out


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    report = report_of(Verdict(outcome=Outcome.FAIL, findings=(finding(),)))
    assert "\x1b" not in printed(report)
    terminal = Terminal()
    text.print_report(report, text.console(terminal))
    assert "\x1b[" in terminal.getvalue()


def test_guest_text_is_neither_markup_nor_control() -> None:
    evil = "[bold red]x[/] :smile: \x1b[2J\r\u202e" + "y" * 10**5
    site = Site(address=0, symbol=evil)
    hostile = Finding(
        rule=evil, severity=Severity.FAIL, summary=evil, look_at=evil, direction=evil, site=site,
        trace=(site,),
    )  # fmt: skip
    verdict = Verdict(
        outcome=Outcome.ERROR, reason=evil, findings=(hostile,), evidence=(evil,), counts={evil: 1}
    )
    out = printed(report_of(verdict))
    assert out.replace("\n", "").isprintable()
    assert "[bold red]x[/] :smile: \u241b[2J" in out
    assert len(out) < 20_000


def test_the_report_is_named_last_and_unbroken(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 200)
    path.mkdir()
    (path / "report.html").write_text("")
    report = RunReport(path=path, verdict=Verdict(outcome=Outcome.PASS))
    assert printed(report).splitlines()[-1].endswith(f"{path}/report.html")

# SPDX-License-Identifier: GPL-2.0-or-later
"""The words and numbers of reports, and guest text made visible."""

import pytest

from harness.report import words
from harness.report.visible import visible, visible_lines
from harness.verdict import Finding, Outcome, Severity, Verdict


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ~ text", "plain ~ text"),
        ("\x1b[31mred", "\u241b[31mred"),
        ("a\x00b\x07\r\n\tc", "a\u2400b\u2407\u240d\u240a\u2409c"),
        ("\x7f", "\u2421"),
        ("\x9b2J\x85", "\u27e89B\u27e92J\u27e885\u27e9"),
        (
            "\u202eevil\u2066\u200b\u2028",
            "\u27e8U+202E\u27e9evil\u27e8U+2066\u27e9\u27e8U+200B\u27e9\u27e8U+2028\u27e9",
        ),
        ("\ud800", "\u27e8U+D800\u27e9"),
        ("e\u0301", "e\u27e8U+0301\u27e9"),
        ("\U000e0041", "\u27e8U+E0041\u27e9"),
        ("gr\u00fc\u00dfe \u4e2d", "gr\u00fc\u00dfe \u4e2d"),
    ],
)
def test_visible_shows_what_would_act(text: str, shown: str) -> None:
    assert visible(text, 100) == shown


def test_visible_leaves_no_control_or_format_character() -> None:
    everything = "".join(
        map(chr, (*range(0x3000), *range(0xD800, 0xE100), *range(0xFE00, 0x10000)))
    )
    assert visible(everything, len(everything)).isprintable()


def test_visible_is_bounded_and_says_so() -> None:
    assert visible("x" * 11, 10) == "x" * 10 + "\u2026 (1 more characters)"
    assert visible("x" * 10, 10) == "x" * 10
    assert len(visible("\x1b" * 10**6, 100)) < 200


def test_lines_end_as_on_a_terminal() -> None:
    assert visible_lines("a\r\nb\r\r\n\nc\rd", 10) == ["a", "b", "", "c\u240dd"]
    assert visible_lines("a\n", 10) == ["a"]
    assert visible_lines("", 10) == []


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (64, "64 bytes"), (4096, "4 KiB"), (6144, "6 KiB"), (67108864, "64 MiB"),
     (67633152, "64.5 MiB"), (8 << 30, "8 GiB"), (1 << 60, "1048576 TiB")],
)  # fmt: skip
def test_size(count: int, shown: str) -> None:
    assert words.size(count) == shown


@pytest.mark.parametrize(
    ("lines", "shown"),
    [((), ""), ((7,), "7"), ((3, 1, 2, 2), "1-3"), (tuple(range(64)), "0-63"),
     ((0, 1, 5, 7, 8), "0-1, 5, 7-8"),
     (tuple(range(0, 64, 2)), "0, 2, 4, 6, 8, 10 and more, 32 in all")],
)  # fmt: skip
def test_line_ranges(lines: tuple[int, ...], shown: str) -> None:
    assert words.line_ranges(lines) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("range", [0x1000, 0x3000], "0x1000 - 0x3000"),
        ("runs", [{"gpa": 64, "lines": 2}, {"gpa": 128, "lines": 1}],
         "gpa 0x40, lines 2; gpa 0x80, lines 1"),
        ("global", True, "yes"),
        ("step", "a step", "a step"),
        ("rc", 3, "3"),
    ],
)  # fmt: skip
def test_details_of_a_finding(name: str, value: object, shown: str) -> None:
    assert words.detail(name, value) == shown


def _finding(rule: str, severity: Severity = Severity.FAIL) -> Finding:
    return Finding(rule=rule, severity=severity, summary="s")


def test_headline_names_the_broken_rules_only() -> None:
    verdict = Verdict(
        outcome=Outcome.FAIL,
        findings=(
            _finding("guest-tlb-flush"),
            _finding("guest-cache-flush"),
            _finding("guest-cache-flush"),
            _finding("redundant-flush", Severity.REPORT),
        ),
    )
    assert words.headline(verdict) == "3 findings: guest-cache-flush \u00d72, guest-tlb-flush"


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.PASS])
def test_headline_gives_the_reason(outcome: Outcome) -> None:
    assert words.headline(Verdict(outcome=outcome, reason="Because.")) == "Because."


def test_headline_of_a_pass() -> None:
    judged = Verdict(outcome=Outcome.PASS, evidence=("events",))
    assert words.headline(judged) == "No rule was broken."
    assert "no flush was judged" in words.headline(Verdict(outcome=Outcome.PASS))

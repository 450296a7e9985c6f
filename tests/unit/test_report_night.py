# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of nights: what they say, and that nothing in them acts."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.history.records import Cell, Night, compare, merged
from harness.nightly.pages import EXPORTS, publish
from harness.report import gantt, nightwords
from harness.report.night import render
from harness.report.nights import render as render_index
from harness.testing.nights import START_S, cell, key, night, sighting
from harness.verdict import Outcome

FOLDER = Path("runs/nights/0002")
EVIL = '"><script>alert(1)</script><img src=x onerror=y>\u202e\x1b[31m'


class Page(HTMLParser):
    """The tags and links of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        self.links += [values["href"] or ""] if "href" in values else []
        self.ids |= {values["id"] or ""} if "id" in values else set()

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(tonight: Night, *earlier: Night, notes: tuple[str, ...] = ()) -> Page:
    return Page(render(tonight, earlier, notes, FOLDER, tuple(EXPORTS.values())))


def before() -> Night:
    return night(cell(0), cell(1, sighting("gone")), cell(2, sighting("stays", seen=2)))


def tonight() -> Night:
    known = replace(
        sighting("known", seen=2, known="https://example.org/1"), known_until="2027-03-31"
    )
    fresh = sighting("fresh", seen=1)
    cells = (cell(0), cell(1), cell(2, sighting("stays", seen=2), fresh, known), Cell(key=key(3)))
    return night(*cells, number=2)


def test_the_page_says_what_changed() -> None:
    shown = page(tonight(), before(), notes=("the issue expired",))
    text = shown.text
    assert "1 NEW" in text
    assert "1 new finding, 1 fixed, 1 still there, 1 known; 3 of 4 cells ran" in text
    for words in (
        "New (1)",
        "Fixed (1)",
        "Still there (1)",
        "Known issues, which do not count (1)",
    ):
        assert words in text
    assert "FLAKY" in text
    assert "https://example.org/1" in shown.links
    assert "until 2027-03-31" in text
    assert "the issue expired" in text
    assert "not run: planned" in text


def test_links_lead_somewhere() -> None:
    shown = page(tonight(), before())
    inner = [link[1:] for link in shown.links if link.startswith("#")]
    assert inner
    assert set(inner) <= shown.ids
    assert {"../index.html", *EXPORTS.values()} <= set(shown.links)
    # of a run in runs/2, seen from runs/nights/0002
    assert "../../2/report.html" in shown.links


def test_nothing_in_a_page_acts() -> None:
    evil = replace(
        sighting("f"),
        title=EVIL,
        summary=EVIL,
        rule=EVIL,
        identity=EVIL,
        known=f"javascript:{EVIL}",
    )
    named = replace(key(1), base=EVIL, series=EVIL, patch=EVIL, config=EVIL, mode=EVIL, host=EVIL)
    cells = [replace(cell(1, evil, reason=EVIL), key=named, run=EVIL, commit=EVIL, patchset=EVIL)]
    cells += [replace(c, key=replace(named, vcpus=4), outcome=Outcome.ERROR) for c in cells]
    one = replace(night(*cells), name=EVIL)
    for text in (render(one, (one,), (EVIL,), FOLDER, ()), render_index((one,))):
        found = Page(text)
        assert not {"script", "img"} & set(found.tags)
        assert not any(re.match(r"\s*javascript:", link) for link in found.links)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "default-src 'none'" in text


def test_the_index_has_every_night_cell_and_finding() -> None:
    nights = (tonight(), before())
    shown = Page(render_index(nights))
    assert shown.links.count("0002/index.html") == 2
    assert "0001/index.html" in shown.links
    for place in ("gone", "stays", "fresh", "known"):
        assert f"guest-cache-flush in {place}" in shown.text
    assert "2 x86/mm: skip the first cpa_flush()" in shown.text
    assert "The history holds no night yet." in Page(render_index(())).text


def test_a_night_that_is_not_over_says_so() -> None:
    assert "and the night goes on" in page(replace(tonight(), ended_s=0.0)).text


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (cell(0), "pass"),
        (Cell(key=key(0)), "none"),
        (cell(0, sighting(seen=2)), "fail"),
        (cell(0, sighting(seen=1)), "flaky"),
        (cell(0, sighting(seen=1), sighting("g", seen=2)), "fail"),
        (cell(0, sighting(seen=2, known="x")), "known"),
        (cell(0, outcome=Outcome.FAIL), "fail"),
        (cell(0, outcome=Outcome.ERROR), "error"),
        (cell(0, outcome=Outcome.EMPTY), "empty"),
        (cell(0, outcome=Outcome.SKIP), "none"),
    ],
)
def test_the_look_of_a_cell(one: Cell, expected: str) -> None:
    assert nightwords.look(one) == expected
    assert expected in nightwords.LOOKS


def test_the_tone_is_that_of_the_exit_code() -> None:
    def tone(one: Night, *earlier: Night) -> str:
        return nightwords.tone(one, compare(one, merged(earlier)))

    assert tone(tonight()) == "t-fail"
    assert tone(before(), before()) == "t-pass"
    assert tone(night(cell(0), cell(1, outcome=Outcome.ERROR))) == "t-error"
    assert tone(night(Cell(key=key(0)))) == "t-empty"


def test_times_as_bars() -> None:
    def ran(start_s: float, seconds: float, build_s: float, run: str) -> Cell:
        end_s = START_S + start_s + seconds
        return replace(
            cell(0), started_s=START_S + start_s, ended_s=end_s, build_s=build_s, run=run
        )

    # two guests side by side, and one after the night was killed and went on hours later
    cells = (ran(10, 50, 10, "a"), ran(20, 40, 0, "b"), ran(7200, 60, 0, "c"), Cell(key=key(1)))
    chart = gantt.gantt(cells, FOLDER)
    assert chart is not None
    assert chart.lanes == 2
    assert [bar.look for bar in chart.bars] == ["build", "pass", "pass", "pass"]
    ends = [bar.x + bar.width for bar in chart.bars]
    assert max(ends) == pytest.approx(gantt.WIDTH)
    # 60 s of work before the gap, 60 s behind it
    assert chart.bars[-1].x == pytest.approx(gantt.WIDTH / 2)
    assert chart.ticks[0] == (0.0, "0:00")
    assert gantt.gantt((Cell(key=key(1)),), FOLDER) is None


@pytest.mark.parametrize(
    ("seconds", "words", "short"),
    [(41, "41 s", "41 s"), (281.4, "4 min 41 s", "5 min"), (1800, "30 min", "30 min"),
     (3840, "1 h 04 min", "1 h 04 min")],
)  # fmt: skip
def test_durations(seconds: float, words: str, short: str) -> None:
    assert nightwords.duration(seconds) == words
    assert nightwords.short(seconds) == short


def test_all_is_written(tmp_path: Path) -> None:
    publish(tmp_path, tonight(), (before(),), (tonight(), before()), (), "tdharness")
    assert (tmp_path / "index.html").is_file()
    assert sorted(p.name for p in (tmp_path / "0002").iterdir()) == sorted(
        ["index.html", *EXPORTS.values()]
    )

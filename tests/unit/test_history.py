# SPDX-License-Identifier: GPL-2.0-or-later
import dataclasses
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from harness import proc
from harness.errors import EvidenceError, HostError
from harness.history.records import Cell, CellState, Sighting, changes_of, compare, merged
from harness.history.schema import STEPS
from harness.history.store import History
from harness.history.trend import trend
from harness.kernellog import scan
from harness.testing.nights import PATCHES, cell, key, night, sighting
from harness.verdict import Finding, Outcome, Severity


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "history.sqlite") as opened:
        yield opened


def run_night(history: History, *cells: Cell) -> int:
    number = history.start_night("nightly", 1000.0)
    history.plan(number, [c.key for c in cells])
    for each in cells:
        history.begin(number, each.key, each.started_s)
        history.finish(number, each)
    history.end_night(number, 2000.0)
    return number


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def test_what_was_kept_comes_back(history: History) -> None:
    cells = (cell(0), cell(2, sighting(), sighting("f", seen=2, known="https://example.org/1")))
    number = run_night(history, *cells)
    kept = history.night(number)
    assert kept.cells == cells
    assert (kept.name, kept.started_s, kept.ended_s) == ("nightly", 1000.0, 2000.0)
    assert history.nights() == (kept,)


def test_a_night_is_resumed_where_it_was_killed(history: History) -> None:
    number = history.start_night("nightly", 1000.0)
    keys = [key(0), key(1), key(2)]
    history.plan(number, keys)
    history.begin(number, keys[0], 1.0)
    history.finish(number, cell(0))
    history.begin(number, keys[1], 2.0)
    assert history.unfinished_night("nightly") == number
    assert history.unfinished_night("another") is None
    history.plan(number, keys)
    assert history.resume(number) == (keys[1], keys[2])
    states = [c.state for c in history.night(number).cells]
    assert states == [CellState.DONE, CellState.PLANNED, CellState.PLANNED]
    history.end_night(number, 2000.0)
    assert history.unfinished_night("nightly") is None


def test_a_cell_ends_once_and_only_when_planned(history: History) -> None:
    number = run_night(history, cell(0))
    for wrong in (cell(0), cell(1)):
        with pytest.raises(EvidenceError, match="no cell to finish"):
            history.finish(number, wrong)
    with pytest.raises(EvidenceError, match="no cell to begin"):
        history.begin(number, key(0), 1.0)
    with pytest.raises(EvidenceError, match="no night 77"):
        history.night(77)


def test_first_and_last_seen(history: History) -> None:
    for found in ((sighting(),), (), (sighting(), sighting("g"))):
        run_night(history, cell(0, *found))
    with closing(sqlite3.connect(history.path)) as db:
        rows = db.execute("SELECT place, first_night, last_night FROM findings").fetchall()
    assert sorted(rows) == [("dma_direct_alloc", 1, 3), ("g", 3, 3)]


def test_one_bug_at_many_pages_is_one_sighting(history: History) -> None:
    number = run_night(history, cell(0, sighting(), sighting()))
    (kept,) = history.night(number).cells[0].sightings
    assert kept.count == 6


def test_foreign_keys_hold(history: History) -> None:
    with pytest.raises(EvidenceError, match="FOREIGN KEY"):
        history.plan(99, [key(0)])


@pytest.mark.parametrize("old", range(1, len(STEPS) + 1))
def test_each_old_version_is_brought_up(old: int, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    History(path, steps=STEPS[:old]).__exit__(None, None, None)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD_NIGHT)
    assert version(path) == old
    with History(path) as history:
        assert history.night(1).cells == (cell(2, sighting()),)
        new = replace(cell(2, sighting()), build_s=7.5, again="runs/b", warnings=("a.c: b", "c"))
        assert history.night(run_night(history, new)).cells == (new,)
        assert history.numbers("nightly") == (2, 1)
        assert history.numbers("another") == ()
    assert version(path) == len(STEPS)


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with History(path) as history:
        number = run_night(history, cell(0))
    bad = (*STEPS, ("DROP TABLE sightings", "DROP TABLE nowhere"))
    with pytest.raises(HostError, match="no such table: nowhere"):
        History(path, steps=bad)
    with History(path) as history:
        assert len(history.night(number).cells) == 1
    assert version(path) == len(STEPS)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    History(path, steps=(*STEPS, ("CREATE TABLE more (x)",))).__exit__(None, None, None)
    with pytest.raises(EvidenceError, match=f"version {len(STEPS) + 1}"):
        History(path)


def test_what_is_no_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(EvidenceError, match=r"history\.sqlite cannot be used"):
        History(path)
    with pytest.raises(HostError, match="cannot"):
        History(path / "below" / "x")


# What the first version wrote.
OLD_NIGHT = f"""
INSERT INTO nights (name, started_s, ended_s) VALUES ('nightly', 1000.0, 2000.0);
INSERT INTO cells (night, base, series, patch_number, patch, config, vcpus, mode, host, state,
    outcome, started_s, ended_s, run, revision, patchset)
    VALUES (1, 'linux-source-6.12', 'dma-conversion-v3', 2, '{PATCHES[2]}', 'lean', 2, 'stub',
    'local', 'done', 'FAIL', {cell(2).started_s}, {cell(2).ended_s}, 'runs/2',
    '{cell(2).commit}', '{cell(2).patchset}');
INSERT INTO findings (identity, rule, kind, title, place, severity, first_night, last_night)
    VALUES ('{sighting().identity}', 'guest-cache-flush', '', '{sighting().title}',
    'dma_direct_alloc', 'fail', 1, 1);
INSERT INTO sightings (cell, finding, summary, count, seen, looked, run, known)
    VALUES (1, 1, '{sighting().summary}', 3, 1, 2, 'runs/a', '');
"""
WRITER = """
import dataclasses, sys
from pathlib import Path
from harness.history.store import History
from harness.history.trend import trend
from harness.testing.nights import cell, key, sighting
with History(Path(sys.argv[1])) as history:
    night = history.start_night("nightly", 1.0)
    keys = [dataclasses.replace(key(0), vcpus=n) for n in range(1, 3000)]
    history.plan(night, keys)
    for k in keys:
        history.begin(night, k, 2.0)
        done = dataclasses.replace(cell(0, sighting(), sighting("g")), key=k)
        history.finish(night, done)
        print(k.vcpus, flush=True)
"""


@pytest.mark.parametrize("after", [1, 17, 60])
def test_sigkill_loses_the_cell_in_flight_at_most(after: int, tmp_path: Path) -> None:
    path, told = tmp_path / "history.sqlite", tmp_path / "told"
    with told.open("wb") as output:
        child = proc.spawn([sys.executable, "-c", WRITER, path], stdout=output)
        deadline = time.monotonic() + 30
        while told.read_bytes().count(b"\n") < after and time.monotonic() < deadline:
            time.sleep(0.001)
        proc.kill_group(child)
    lines = told.read_text().rpartition("\n")[0].split()
    assert len(lines) >= after, told.read_text()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not db.execute("PRAGMA foreign_key_check").fetchall()
    with History(path) as history:
        cells = history.night(1).cells
        done = [c for c in cells if c.state is CellState.DONE]
        assert 0 <= len(done) - len(lines) <= 1
        assert all(len(c.sightings) == 2 for c in done)
        assert sum(c.state is CellState.RUNNING for c in cells) <= 1
        assert len(history.resume(1)) == 2999 - len(done)


def test_a_sighting_of_a_finding() -> None:
    (warning,) = scan(b"[    2.000010] WARNING: CPU: 0 PID: 80 at a.c:3 f+0x5c/0x90\n")
    seen = Sighting.of(warning, run="runs/a", known="https://example.org/1")
    assert (seen.identity, seen.kind) == (warning.extra["fingerprint"], "warning")
    assert (seen.title, seen.place) == ("WARNING in f", "f")
    assert not seen.counts
    assert Sighting.of(warning).counts
    hostile = Finding(rule="workload", severity=Severity.FAIL, summary="\x1b[31m" + "x" * 999)
    assert Sighting.of(hostile).summary.startswith("\\x1b[31mxxx")
    assert len(Sighting.of(hostile).summary) <= 300


def test_a_bug_belongs_to_the_first_patch_that_shows_it() -> None:
    (change,) = changes_of(
        night(cell(0), cell(1), cell(3, sighting()), cell(2, sighting()))
    ).values()
    assert (change.patch_number, change.patch) == (2, PATCHES[2])
    assert (change.seen_in, change.looked_in, change.flaky) == (2, 2, True)


def test_a_cell_that_was_left_out_is_known_from_the_night_before() -> None:
    before = night(cell(0), cell(1, sighting("gone")), cell(2, sighting("stays")))
    left_out = Cell(key=key(2))
    between = night(cell(0), cell(1, sighting("gone")), left_out, number=2)
    base = merged((between, before))
    assert base is not None
    assert (base.number, len(base.cells)) == (2, 3)
    found = compare(night(cell(0), cell(1), cell(2, sighting("stays")), number=3), base)
    assert [c.sighting.place for c in found.still] == ["stays"]
    assert [c.sighting.place for c in found.fixed] == ["gone"]
    assert not found.new
    unlooked = compare(night(cell(0), Cell(key=key(1)), left_out, number=3), base)
    assert [c.sighting.place for c in unlooked.unknown] == ["gone", "stays"]


def test_the_whole_of_a_changed_series_says_what_is_fixed() -> None:
    old = replace(key(3), patch="x86/mm: as it was")
    before = night(cell(0), cell(1), replace(cell(3, sighting("gone")), key=old))
    now = night(cell(0), cell(1), cell(2), cell(3), number=2)
    assert [c.sighting.place for c in compare(now, before).fixed] == ["gone"]
    unjudged = night(cell(0), cell(1), cell(2), Cell(key=key(3)), number=2)
    assert [c.sighting.place for c in compare(unjudged, before).unknown] == ["gone"]
    # what the series has no more is told once
    base = merged((now, before))
    assert base is not None
    assert not compare(replace(now, number=3), base).fixed
    assert merged(()) is None


def test_new_still_fixed_and_known() -> None:
    before = night(cell(0), cell(1, sighting("gone")), cell(2, sighting("stays")))
    known = sighting("known", seen=2, known="https://example.org/1")
    now = night(cell(0), cell(1), cell(2, sighting("stays"), sighting("fresh"), known), number=2)
    found = compare(now, before)
    assert [c.sighting.place for c in found.new] == ["fresh"]
    assert [c.sighting.place for c in found.still] == ["stays"]
    assert [c.sighting.place for c in found.fixed] == ["gone"]
    assert [c.sighting.place for c in found.known] == ["known"]
    assert not found.unknown
    assert len(compare(now, None).new) == 2


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.EMPTY, Outcome.SKIP])
def test_what_nobody_looked_for_is_not_fixed(outcome: Outcome) -> None:
    before = night(cell(1, sighting()))
    for now in (night(), night(cell(1, outcome=outcome)), night(cell(1, vcpus=4))):
        found = compare(now, before)
        assert not found.fixed
        assert len(found.unknown) == 1


def test_what_only_reports_is_no_change() -> None:
    report = dataclasses.replace(sighting(), severity=Severity.REPORT)
    assert not compare(night(cell(0, report)), None).new


def test_trend_of_many_nights() -> None:
    nights = [night(cell(0), cell(2, sighting(seen=2)), number=n) for n in (4, 3, 2)]
    known = sighting("f" * 90, seen=2, known="https://example.org/1")
    nights += [night(cell(0, known, sighting("\x1b[2J")), cell(1, outcome=Outcome.ERROR))]
    lines = trend(nights).splitlines()
    assert lines[1].split() == ["4", "2026-11-26", "2/2", "1", "1", "0", "0", "0", "1", "nightly"]
    assert lines[4].split() == ["1", "2026-11-23", "2/2", "0", "1", "1", "1", "0", "0", "nightly"]
    table = {line.split("  ")[0]: line.split("  ")[-1] for line in lines[6:-1]}
    assert table["guest-cache-flush in dma_direct_alloc"] == ".xxx"
    assert table["guest-cache-flush in \\x1b[2J"] == "~..."
    assert [marks for title, marks in table.items() if "fff..." in title] == ["k..."]
    assert max(map(len, lines)) <= 100


def test_trend_is_bounded() -> None:
    nights = [
        night(cell(0, *(sighting(f"f{n}x{i}") for i in range(20))), number=n)
        for n in range(99, 60, -1)
    ]
    lines = trend(nights).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[-2] == "and 400 more"
    assert len(lines) < 300


def test_trend_of_one_finding_and_of_nothing() -> None:
    nights = [night(cell(0, sighting("f"), sighting("g")))]
    assert "in g" not in trend(nights, "flush in f")
    assert "No finding with" in trend(nights, "zebra")
    assert "No finding.\n" in trend([night(cell(0))])
    assert "no night" in trend([])

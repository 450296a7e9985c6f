# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a run directory for a report, and the geometry of its two charts."""

import json
from pathlib import Path

import pytest

from harness.conversions import TO_PRIVATE, TO_SHARED, Conversion
from harness.events import Flag, Header, Kind, Stream
from harness.report import logview, memory, model, timeline
from harness.report.fold import fold
from harness.rundir import RunDir
from harness.testing.events import StreamBuilder
from harness.verdict import Finding, Outcome, Severity, Verdict

PASS = Verdict(outcome=Outcome.PASS)
MIB = 1 << 20


def conversion(
    seq: int, size: int = 4096, direction: str = TO_SHARED, **fields: object
) -> Conversion:
    values: dict[str, object] = {
        "gpa": seq * 0x100000, "vcpu": 0, "dirty": 0, "flushed": 0, "flushed_again": 0,
        "caller": "f+0x1/0x2", "step": "", "site": None, "trace": (), **fields,
    }  # fmt: skip
    return Conversion(seq=seq, bytes=size, direction=direction, **values)  # type: ignore[arg-type]


def report_of(*conversions: Conversion, findings: tuple[Finding, ...] = ()) -> model.RunReport:
    verdict = Verdict(outcome=Outcome.FAIL if findings else Outcome.PASS, findings=findings)
    return model.RunReport(path=Path("run"), verdict=verdict, conversions=conversions)


def test_an_empty_directory_is_reported_with_notes(tmp_path: Path) -> None:
    report = model.load(RunDir(tmp_path), PASS)
    assert report.stream is None
    assert report.run == {}
    named = " ".join(report.notes)
    for name in ("run.json", "steps.jsonl", "console.log", "argv"):
        assert name in named


@pytest.mark.parametrize("broken", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_broken_files_become_notes(tmp_path: Path, broken: bytes) -> None:
    run = RunDir(tmp_path)
    for path in (run.run_json, run.events, run.steps):
        path.write_bytes(broken)
    report = model.load(run, PASS)
    assert (report.run, report.stream, report.steps) == ({}, None, ())
    assert any("run.json could not be read" in note for note in report.notes)


def test_a_step_cut_short_is_said_and_the_others_are_kept(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_step({"name": "one", "ok": True, "rc": 0, "mark": 7, "output": "x", "seconds": 1.5})
    with run.steps.open("a") as file:
        file.write('{"name": "tw')
    report = model.load(run, PASS)
    assert [(s.step.name, s.output, s.seconds) for s in report.steps] == [("one", "x", 1.5)]
    assert any("1 of 2 lines of steps.jsonl" in note for note in report.notes)


def test_whole_run_reads_without_a_note(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_json(run.run_json, {"smp": 2})
    run.events.write_bytes(StreamBuilder().encode())
    run.append_step({"name": "one", "ok": True})
    for path in (run.console_log, run.qemu_log, run.argv):
        path.write_text("text\n")
    report = model.load(run, PASS)
    assert report.notes == ()
    assert report.stream is not None and report.stream.complete
    assert [log.name for log in report.logs] == ["console.log", "qemu.log"]


def test_conversions_outside_steps_are_placed(tmp_path: Path) -> None:
    run, events = RunDir(tmp_path), StreamBuilder()
    for mark in (0, 1, 2):
        if mark == 1:
            events.mark(1, 7)
        events.convert(0x1000 * mark, 0x1000, to_shared=True)
        if mark == 1:
            events.mark(2, 7)
    run.events.write_bytes(events.encode())
    run.append_step({"name": "work", "ok": True, "mark": 7})
    report = model.load(run, PASS)
    assert [(c.gpa, c.step) for c in report.conversions] == [
        (0, "boot"), (0x1000, "work"), (0x2000, "between steps"),
    ]  # fmt: skip


def test_long_log_keeps_head_and_tail_with_right_numbers(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    lines = [f"line {number} {'x' * 80}" for number in range(1, 20_001)]
    path.write_text("\n".join(lines) + "\n")
    shown = logview.view(model.read_log(path))
    assert len(shown.lines) <= logview.HEAD_LINES + logview.TAIL_LINES
    assert all(line.text.startswith(f"line {line.number} ") for line in shown.lines)
    assert (shown.lines[0].number, shown.lines[-1].number) == (1, 20_000)
    left = 20_000 - len(shown.lines)
    assert shown.gap == f"{left:,} lines left out here"
    assert any(line.number == shown.gap_before for line in shown.lines)


def test_log_of_many_short_lines_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("x\n" * 30_000)
    shown = logview.view(model.read_log(path))
    assert len(shown.lines) == logview.HEAD_LINES + logview.TAIL_LINES
    assert shown.lines[-1].number == 30_000
    assert shown.gap == "26,000 lines left out here"


def test_log_of_one_endless_line_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(b"x" * 1_000_000)
    shown = logview.view(model.read_log(path))
    assert sum(len(line.text) for line in shown.lines) < 2000


def test_lines_that_stand_out() -> None:
    log = model.Log(name="l", head="ok\nWARNING: CPU: 1\ntdharness: mark begin 3\nnamed\n")
    shown = logview.view(log, frozenset({4}))
    assert [line.look for line in shown.lines] == ["", "hot", "mark", "hot"]
    assert [line.number for line in shown.hot] == [2, 4]


def test_fold_keeps_dirty_conversions_apart() -> None:
    rows = fold([conversion(1), conversion(2, dirty=3), conversion(3, flushed=64, flushed_again=2)])
    assert [(row.count, row.dirty, row.flushed, row.redundant) for row in rows] == [
        (2, 0, 64, 2), (1, 3, 0, 0),
    ]  # fmt: skip
    assert (rows[0].gpa_low, rows[0].gpa_high, rows[0].lines) == (0x100000, 0x300000, 128)


def test_fold_counts_every_flush_on_the_way_back_as_redundant() -> None:
    (row,) = fold([conversion(1, direction=TO_PRIVATE, flushed=64)])
    assert row.redundant == 64


def test_fold_splits_callers_outside_of_steps_only() -> None:
    callers = ("a+0x1/0x2", "b+0x1/0x2")
    boot = [conversion(n, step="boot", caller=caller) for n, caller in enumerate(callers)]
    work = [conversion(n, step="work", caller=caller) for n, caller in enumerate(callers)]
    assert [row.count for row in fold(boot)] == [1, 1]
    assert [(row.count, row.callers) for row in fold(work)] == [(2, 2)]


def test_fold_off_gives_a_row_each() -> None:
    assert [row.count for row in fold([conversion(1), conversion(2)], alike=False)] == [1, 1]


def test_timeline_columns_bands_and_flags() -> None:
    finding = Finding(rule="guest-cache-flush", severity=Severity.FAIL, summary="s", seq=25)
    log = Finding(rule="kernel-log", severity=Severity.FAIL, summary="s", seq=1)
    chart = timeline.timeline(
        report_of(
            conversion(10, 64 * MIB, step="boot"),
            conversion(20, step="work"),
            conversion(30, direction=TO_PRIVATE, step="work"),
            findings=(finding, log),
        )
    )
    assert chart is not None
    big, out, back = chart.columns
    assert big.up > out.up > 0 and out.down == 0
    assert back.up == 0 and back.down == out.up
    assert [(band.step, band.count) for band in chart.bands] == [("boot", 1), ("work", 2)]
    assert [(flag.index, flag.x) for flag in chart.flags] == [(1, out.x + out.width / 2)]


def test_timeline_folds_thousands_into_columns() -> None:
    chart = timeline.timeline(report_of(*(conversion(i, dirty=1) for i in range(5000))))
    assert chart is not None
    assert len(chart.columns) <= timeline.MOST_COLUMNS
    assert sum(column.dirty for column in chart.columns) == 5000
    last = chart.columns[-1]
    assert last.x + last.width == pytest.approx(timeline.WIDTH, rel=0.01)


def test_no_timeline_without_conversions() -> None:
    assert timeline.timeline(report_of()) is None


def stream_of(builder: StreamBuilder, below: int = 64 * MIB, above: int = 0) -> Stream:
    return Stream(Header(2, 53, below, above), builder.events, True)


def test_memory_follows_a_page_from_shared_to_accepted() -> None:
    events = StreamBuilder()
    events.convert(0x10000, 0x4000, to_shared=True)
    events.convert(0x10000, 0x3000, to_shared=False)
    events.accept(0x10000)
    (region,) = memory.regions(stream_of(events))
    shown = memory.strip(region)
    assert (shown.shared, shown.pending, shown.returned) == (0x1000, 0x2000, 0x1000)
    assert [(r.start, r.end, r.state) for r in shown.ranges] == [
        (0x11000, 0x13000, "pending"), (0x13000, 0x14000, "shared"),
    ]  # fmt: skip
    (cell,) = shown.cells
    assert (cell.shared, cell.pending, cell.returned) == (1, 2, 1)


def test_memory_ignores_calls_that_failed_and_pages_outside() -> None:
    events = StreamBuilder()
    events.convert(0x1000, 0x1000, to_shared=True, status=1)
    events.add(Kind.CONVERT, 0x2000, 0x1000, 0, flags=Flag.BAD | Flag.TO_SHARED)
    events.convert(0xFE000000, 0x1000, to_shared=True)
    (region,) = memory.regions(stream_of(events))
    assert memory.strip(region).cells == ()


def test_memory_above_four_gib_and_large_accept() -> None:
    events = StreamBuilder()
    base = memory.FOUR_GIB
    events.convert(base, 4 * MIB, to_shared=True)
    events.convert(base, 4 * MIB, to_shared=False)
    events.accept(base, level=1)
    below, above = (memory.strip(r) for r in memory.regions(stream_of(events, above=8 * MIB)))
    assert below.cells == ()
    assert (above.start, above.returned, above.pending) == (base, 2 * MIB, 2 * MIB)


def test_memory_never_shared_needs_no_accept_when_made_private() -> None:
    events = StreamBuilder()
    events.convert(0x5000, 0x1000, to_shared=False)
    (region,) = memory.regions(stream_of(events))
    assert memory.strip(region).cells == ()


def test_memory_of_an_absurd_size_is_not_drawn() -> None:
    assert memory.regions(stream_of(StreamBuilder(), below=1 << 50)) == ()


def test_json_of_run_is_bounded(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.run_json.write_text(json.dumps({"a": "x" * (model.MOST_JSON_BYTES + 1)}))
    assert model.load(run, PASS).run == {}

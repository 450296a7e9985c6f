# SPDX-License-Identifier: GPL-2.0-or-later
"""The HTML report: well-formed, self-contained, and deaf to what a guest writes into it."""

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.report import html, logview, model
from harness.rundir import RunDir
from harness.testing.events import StreamBuilder
from harness.verdict import Finding, Outcome, Severity, Site, Verdict

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7*7 }}{% raw %}"
    "\x1b]8;;evil\x07\x1b[2J\x9b1m\u202etxt\u2066\u200b\x00\ud800</pre></style></textarea><!--"
)
VOID = {"meta", "rect", "line", "path", "br", "img", "input", "link", "hr"}


class Reader(HTMLParser):
    """Checks the nesting of tags and collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def check_page(page: str) -> Reader:
    """What holds for every report."""
    reader = read(page)
    assert not reader.faults and not reader.open
    assert reader.tags.isdisjoint({"script", "img", "iframe", "object", "link", "base", "form"})
    names = {name for _, name, _ in reader.attributes}
    assert not [name for name in names if name.startswith("on")]
    for _, name, value in reader.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#")
            assert value[1:] in reader.ids
    assert len(reader.ids) == len(set(reader.ids))
    assert not re.search(r"https?://|url\(|@import", page)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\u2066\ud800]", page)
    return reader


def stream(count: int = 3) -> StreamBuilder:
    builder = StreamBuilder()
    for index in range(count):
        gpa = 0x100000 + index // 2 * 0x1000
        builder.convert(gpa, 0x1000, to_shared=index % 2 == 0)
        if index % 2:
            builder.accept(gpa)
    return builder


def load(path: Path, verdict: Verdict, count: int = 3) -> model.RunReport:
    """A run directory with something in every file."""
    run, builder = RunDir(path), stream(count)
    run.write_json(
        run.run_json,
        {
            "scenario": "conversion",
            "kernel": {"release": "6.12.90", "image": "vmlinuz"},
            "smp": 2,
            "memory_mib": 2048,
            "qemu": {"version": "11.1.3"},
            "timings": {"boot_s": 12.34, "end_unix": 1795403513.1},
            "outcome_notes": ["a note of the run"],
        },
    )
    run.events.write_bytes(builder.encode())
    run.argv.write_text("qemu-system-x86_64 -nodefaults\n")
    run.console_log.write_text("Linux version 6.12.90\nBUG: kernel NULL pointer\n")
    run.qemu_log.write_text("")
    run.append_step(
        {
            "name": "edu-dma",
            "ok": False,
            "rc": 1,
            "argv": "/bin/tdh edu",
            "output": "failed: -5",
            "seconds": 0.25,
            "dma": [{"device": "edu", "direction": "to-device", "bytes": 4096, "mismatches": 2}],
            "expected_rules": ["dma-data"],
        }
    )
    return model.load(run, verdict)


FINDING = Finding(
    rule="guest-cache-flush",
    severity=Severity.FAIL,
    summary="3 lines were dirty.",
    look_at="the first cpa_flush()",
    gpa=0x100000,
    lines=(0, 1, 63),
    direction="private to shared",
    vcpu=1,
    store_site=Site(address=1, symbol="memset+0x1/0x2"),
    trace=(Site(address=2, symbol="caller_a+0x3/0x4"), Site(address=0xABC)),
    seq=0,
    count=4,
    extra={"dirty_lines": 3},
)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_a_page(tmp_path: Path, outcome: Outcome) -> None:
    findings = (FINDING,) if outcome is Outcome.FAIL else ()
    verdict = Verdict(outcome=outcome, reason="For a reason.", findings=findings)
    page = html.render(load(tmp_path, verdict))
    reader = check_page(page)
    assert f"<title>{outcome.value}: " in page
    text = " ".join(reader.text)
    if outcome is not Outcome.FAIL:
        assert "For a reason." in text


def test_findings_are_shown_with_all_they_know(tmp_path: Path) -> None:
    verdict = Verdict(
        outcome=Outcome.FAIL, findings=(FINDING,), counts={"lines_dirty": 1234, "stub_hlt": 5}
    )
    text = " ".join(check_page(html.render(load(tmp_path, verdict))).text)
    for part in (
        "guest-cache-flush", "3 lines were dirty.", "the first cpa_flush()", "0x100000", "0-1, 63",
        "private to shared", "memset+0x1/0x2", "caller_a+0x3/0x4", "0xabc", "\u00d74",
        "dirty lines", "1,234", "lines left dirty", "stub hlt",
        "a line is dirty under the private key",
    ):  # fmt: skip
        assert part in text


def test_a_planted_finding_is_called_so(tmp_path: Path) -> None:
    planted = replace(FINDING, severity=Severity.REPORT, extra={"expected": True})
    verdict = Verdict(outcome=Outcome.PASS, findings=(planted,))
    page = html.render(load(tmp_path, verdict))
    assert "PLANTED" in check_page(page).text
    assert "PLANTED" not in html.render(load(tmp_path, replace(verdict, findings=(FINDING,))))


def test_what_ran_steps_and_logs_are_shown(tmp_path: Path) -> None:
    text = " ".join(check_page(html.render(load(tmp_path, Verdict(outcome=Outcome.PASS)))).text)
    for part in (
        "6.12.90", "11.1.3", "2 GiB", "boot 12.3 s", "a note of the run", "edu-dma", "failed: -5",
        "edu to-device: 4 KiB, 2 bytes differ", "plants: dma-data", "-nodefaults",
        "BUG: kernel NULL pointer", "Guest memory by owner", "Timeline",
    ):  # fmt: skip
        assert part in text
    assert "1795403513" not in text


def test_an_empty_directory_gives_a_page(tmp_path: Path) -> None:
    report = model.load(RunDir(tmp_path), Verdict(outcome=Outcome.EMPTY, reason="Nothing."))
    text = " ".join(check_page(html.render(report)).text)
    assert "The run left no file steps.jsonl." in text
    assert "Timeline" not in text


def hostile_run(path: Path) -> RunDir:
    run = RunDir(path / "<b onclick=x>")
    run.path.mkdir()
    run.write_json(
        run.run_json,
        dict.fromkeys(("scenario", "td_mode", "smp", "cmdline", "plugin"), EVIL)
        | {"kernel": {"release": EVIL, "image": EVIL}, "qemu": {"version": EVIL}}
        | {"timings": {EVIL: 1.0}, "outcome_notes": [EVIL], "memory_mib": EVIL},
    )
    raw = EVIL.encode("utf-8", "surrogatepass")
    run.events.write_bytes(stream().encode())
    run.argv.write_bytes(raw)
    run.console_log.write_bytes(b"tdharness: WARNING: " + raw + b"\r\n")
    run.qemu_log.write_bytes(b"BUG: " + raw)
    dma = {"device": EVIL, "direction": EVIL, "bytes": 1, "mismatches": 1}
    run.append_step(
        {"name": EVIL, "ok": False, "argv": EVIL, "output": EVIL, "dma": [dma]}
        | {"expected_rules": [EVIL]}
    )
    return run


def hostile(path: Path) -> model.RunReport:
    """Every string that a report prints says the same."""
    site = Site(address=1, symbol=EVIL)
    finding = Finding(
        rule=EVIL, severity=Severity.FAIL, summary=EVIL, look_at=EVIL, direction=EVIL,
        evidence=EVIL, site=site, store_site=site, conversion_site=site, trace=(site,),
        extra={EVIL: EVIL}, seq=1,
    )  # fmt: skip
    verdict = Verdict(
        outcome=Outcome.FAIL, findings=(finding,), reason=EVIL, evidence=(EVIL,), counts={EVIL: 1}
    )
    report = model.load(hostile_run(path), verdict)
    found = (replace(c, direction=EVIL, caller=EVIL, step=EVIL) for c in report.conversions)
    return replace(report, conversions=tuple(found))


def test_guest_text_cannot_act(tmp_path: Path) -> None:
    page = html.render(hostile(tmp_path))
    reader = check_page(page)
    text = "".join(reader.text)
    # shown as it is, wherever it stands, and not once as markup or template
    assert text.count("<script>alert(1)</script>") > 20
    assert "\u241b[2J" in text and "\u27e8U+202E\u27e9" in text
    assert "{{ 7*7 }}" in text


def test_the_checks_of_a_page_find_planted_faults(tmp_path: Path) -> None:
    page = html.render(load(tmp_path, Verdict(outcome=Outcome.PASS)))
    for planted in (
        "<script>x</script>", "<p onclick='x'>y</p>", "<b>", "</div>", "<a href='#none'>x</a>",
        "<a href='//x'>x</a>", "<p id='what'></p>", "http:" + "//x", "\x1b", "\u202e",
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            check_page(page.replace("<main>", f"<main>{planted}"))


def test_page_is_bounded_and_quick_for_thousands_of_events(tmp_path: Path) -> None:
    run, builder = RunDir(tmp_path), stream(6000)
    run.events.write_bytes(builder.encode())
    run.console_log.write_text("WARNING: x" * 10 + "\n" * 500_000)
    findings = tuple(
        Finding(rule="kernel-log", severity=Severity.FAIL, summary="x" * 10**5, seq=n)
        for n in range(2000)
    )
    verdict = Verdict(outcome=Outcome.FAIL, findings=findings)
    report = model.load(run, verdict)
    start = time.process_time()
    page = html.render(report)
    assert time.process_time() - start < 2.0
    assert len(page) < 4_000_000
    assert "1,800 more findings are in verdict.json" in page
    assert "4,500 more are in the event stream" in page


def test_output_of_a_step_is_bounded(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.append_step({"name": "n", "ok": True, "output": "y\n" * 10_000})
    page = html.render(model.load(run, Verdict(outcome=Outcome.PASS)))
    assert f"{10_000 - html.MOST_OUTPUT_LINES:,} more lines" in page


def test_long_lines_of_logs_are_cut(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.console_log.write_text("z" * 5000)
    page = html.render(model.load(run, Verdict(outcome=Outcome.PASS)))
    assert "z" * logview.LINE_CHARACTERS + "\u2026" in page
    assert "z" * (logview.LINE_CHARACTERS + 1) not in page


def test_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    report = model.load(RunDir(tmp_path), Verdict(outcome=Outcome.PASS))
    target = tmp_path / "report.html"
    target.write_text("old")
    assert html.write(report, target) == target
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]

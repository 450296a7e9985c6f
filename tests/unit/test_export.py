# SPDX-License-Identifier: GPL-2.0-or-later
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from kcidb_io.schema import V5_3

from harness.cli import main
from harness.errors import ConfigError
from harness.export.junit import junit
from harness.export.kcidb import VERSION, kcidb
from harness.export.ktap import ktap
from harness.export.mail import mail, subject
from harness.history.records import Cell, Night
from harness.history.store import History
from harness.testing.nights import START_S, cell, key, night, sighting
from harness.verdict import Outcome

HOSTILE = "\x1b[31m]]>&<a href='#'> # SKIP\r\nnot ok 1\x00\u202e\ud800\ufffe"
KNOWN = sighting("known", seen=2, known="https://example.org/1")
MIXED = night(
    cell(0),
    cell(1, KNOWN),
    cell(2, sighting(), KNOWN),
    cell(3, outcome=Outcome.ERROR, reason="the kernel did not build"),
    cell(2, outcome=Outcome.SKIP, vcpus=1, reason="needs 2 vCPUs"),
    Cell(key=key(3, vcpus=8)),
    number=2,
)


def hostile() -> Night:
    bad = dataclasses.replace(
        sighting(), title=HOSTILE, summary=HOSTILE, rule=HOSTILE, place=HOSTILE, run=HOSTILE
    )
    named = dataclasses.replace(
        key(2), base=HOSTILE, series=HOSTILE, patch=HOSTILE, config=HOSTILE, host=HOSTILE
    )
    broken = cell(1, outcome=Outcome.ERROR, reason=HOSTILE * 20)
    failing = dataclasses.replace(cell(2, bad), key=named, commit=HOSTILE, patchset=HOSTILE)
    return dataclasses.replace(night(failing, broken), name=HOSTILE)


def plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_junit_counts_what_is_new_only() -> None:
    (suite,) = ElementTree.fromstring(junit(MIXED))
    assert suite.get("name") == "dma-conversion-v3 on linux-source-6.12"
    numbers = [suite.get(word) for word in ("tests", "failures", "errors", "skipped")]
    assert numbers == ["6", "1", "1", "2"]
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "guest-cache-flush in dma_direct_alloc"
    assert "flaky: 1 of 2 fresh guests" in (failure.text or "")
    known, error = next(suite.iter("system-out")), next(suite.iter("error"))
    assert "known: https://example.org/1" in (known.text or "")
    assert error.get("message") == "ERROR: the kernel did not build"


def test_ktap_of_a_night() -> None:
    lines = ktap(MIXED).splitlines()
    assert lines[:4] == ["KTAP version 1", "1..1", "  KTAP version 1", "  1..6"]
    assert lines[4] == "  ok 1 - base: lean, 2 vCPUs, stub on local"
    results = [line.strip() for line in lines if "ok " in line[:9]]
    assert [line.startswith("not ok") for line in results] == [0, 0, 0, 1, 1, 0, 1]
    assert results[1].endswith("# XFAIL known issues only")
    assert results[2].endswith("# SKIP SKIP: needs 2 vCPUs")
    assert results[4].endswith("# ERROR ERROR: the kernel did not build")
    assert results[5].endswith("# SKIP not run: planned")
    assert results[6] == "not ok 1 - dma-conversion-v3 on linux-source-6.12"


def test_kcidb_is_valid_for_its_own_schema() -> None:
    report = kcidb(MIXED, "tdlab")
    V5_3.validate_exactly(report)
    assert (V5_3.major, V5_3.minor) == VERSION
    assert len(report["checkouts"]) == 4
    base, *_, last = report["checkouts"]
    assert base["patchset_hash"] == ""
    assert last["patchset_hash"] == f"{3:064x}"
    statuses = [test["status"] for test in report["tests"]]
    assert statuses == ["PASS", "DONE", "SKIP", "FAIL", "ERROR"]
    ids = {test["build_id"] for test in report["tests"]}
    assert ids == {build["id"] for build in report["builds"]}
    assert json.dumps(report) == json.dumps(kcidb(MIXED, "tdlab"))


def test_the_schema_does_refuse() -> None:
    report = kcidb(MIXED, "tdlab")
    report["tests"][0]["status"] = "GOOD"
    with pytest.raises(Exception, match="GOOD"):
        V5_3.validate_exactly(report)


def test_an_origin_that_cannot_be_one() -> None:
    with pytest.raises(ConfigError, match="no KCIDB origin"):
        kcidb(MIXED, "My Lab")


def test_hostile_text_is_only_text() -> None:
    report = kcidb(hostile(), "tdlab")
    V5_3.validate_exactly(report)
    assert plain("".join(t.get("log_excerpt", "") + t.get("comment", "") for t in report["tests"]))
    json.dumps(report).encode()
    root = ElementTree.fromstring(junit(hostile()))
    assert len(list(root.iter("testcase"))) == 2
    assert plain(ktap(hostile()))
    results = [line for line in ktap(hostile()).splitlines() if "ok " in line[:9]]
    assert len(results) == 4
    assert not any(" # SKIP" in line.replace("\\#", "") for line in results)


def test_the_mail_says_what_is_new_first() -> None:
    before = night(cell(1, sighting("gone")), cell(2, KNOWN), cell(3, sighting("later")))
    text = mail(MIXED, before)
    assert text.splitlines() == [
        "dma-conversion-v3 on linux-source-6.12",
        "2026-11-24, against 2026-11-23",
        "",
        "New:",
        "  guest-cache-flush in dma_direct_alloc (flaky)",
        '    since patch 2, "x86/mm: skip the first cpa_flush()"',
        "    64 of 64 lines were still dirty when dma_direct_alloc made the page",
        "    shared",
        "    guest-cache-flush, in 1 of 1 cells",
        "    runs/a",
        "",
        "Fixed:",
        "  guest-cache-flush in gone (flaky)",
        '    since patch 1, "x86/mm: rename a helper"',
        "",
        "Seen before, but no cell looked for it this time:",
        "  guest-cache-flush in later (flaky)",
        '    since patch 3, "x86/mm: tidy up"',
        "",
        "Known issues, not counted:",
        "  guest-cache-flush in known",
        '    since patch 1, "x86/mm: rename a helper"',
        "    https://example.org/1",
        "",
        "Ran: 5 of 6 cells; 1 passed, 2 failed, 2 could not be judged",
        "  1 cell: ERROR: the kernel did not build",
        "  1 cell: SKIP: needs 2 vCPUs",
        "  1 cell: not run: planned",
    ]
    assert subject(MIXED, before) == (
        "[tdharness] nightly 2026-11-24: 1 new, 1 fixed, 1 not looked for, 1 k..."
    )


def many() -> Night:
    cells = [cell(1, sighting(f"f{n}"), sighting("g"), base=f"b{n:02}") for n in range(30)]
    cells += [cell(2, outcome=Outcome.ERROR, vcpus=n, reason=f"r{n}" * 50) for n in range(20)]
    return night(*cells, number=2)


@pytest.mark.parametrize(
    ("now", "before"),
    [
        (lambda: MIXED, None),
        (many, None),
        (many, MIXED),
        (lambda: MIXED, many()),
        (many, many()),
        (hostile, many()),
        (lambda: night(), None),
    ],
)
def test_the_mail_is_short_and_narrow(now: Callable[[], Night], before: Night | None) -> None:
    text = mail(now(), before)
    assert plain(text)
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 72
    assert any(line.startswith("Ran: ") for line in lines)


def test_what_does_not_fit_is_counted() -> None:
    text = mail(many())
    assert text.count("\n    and 1 more of the same patch\n") == 3
    assert "\n  and 54 more\n" in text
    assert "  and 13 more reasons\n" in mail(many())


@pytest.mark.parametrize(
    ("form", "begin"),
    [
        ("mail", b"Subject: [tdharness] nightly 2026-11-23: 1 new\n\n"),
        ("junit", b"<?xml version"),
        ("ktap", b"KTAP version 1\n"),
        ("kcidb", b'{\n  "version"'),
    ],
)
def test_a_night_of_a_file_is_exported(
    form: str, begin: bytes, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "history.sqlite"
    assert main(["history", "--file", str(path)]) == 2
    with History(path) as history:
        for found in ((), (sighting(),)):
            number = history.start_night("nightly", START_S + 86400)
            history.plan(number, [key(1)])
            history.finish(number, cell(1, *found))
            history.end_night(number, START_S + 90000)
    capfdbinary.readouterr()
    assert main(["history", "--file", str(path), "--as", form]) == 0
    assert capfdbinary.readouterr().out.startswith(begin)
    assert main(["history", "--file", str(path)]) == 0
    assert b" .~\n" in capfdbinary.readouterr().out


def test_no_section_is_crowded_out() -> None:
    cells = (cell(1, sighting(f"x{n}"), base=f"b{n:02}") for n in range(30))
    before = dataclasses.replace(many(), cells=tuple(cells))
    lines = mail(many(), before).splitlines()
    fixed = lines[lines.index("Fixed:") + 1 :]
    assert any(line.startswith("  and ") for line in fixed[: fixed.index("")])
    assert len(lines) <= 40

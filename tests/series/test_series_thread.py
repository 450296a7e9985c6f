# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads of list archives through b4, and message ids with and without a network."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import proc
from harness.errors import ConfigError, HostError
from harness.series import thread
from harness.series.read import read_series

DATA = Path(__file__).resolve().parents[1] / "data/series"
BEGIN = "From mboxrd@z Thu Jan  1 00:00:00 1970\n"


def mail(subject: str) -> str:
    who = "From: Ada Beispiel <ada@example.org>\nMessage-ID: <x@example.org>\n"
    return f"{BEGIN}{who}Subject: {subject}\n\nWords.\n"


def test_a_thread_of_two_versions() -> None:
    series = read_series(DATA / "two-versions.mbox")
    assert (series.name, series.version) == ("toy: count from one", 2)
    assert series.cover and "four instead of three, as Cleo asked." in series.cover
    first, second = series.patches
    assert (first.name, first.subject) == ("0001-toy-count-from-one.patch", "toy: count from one")
    assert (first.author, first.message_id) == (
        "Ada Beispiel <ada@example.org>",
        "v2-1@example.org",
    )
    assert (first.files, second.files) == (("one.c",), ("two.c",))
    # Given to v1 of a patch that did not change since.
    assert first.trailer("reviewed-by") == ("Ben Exempel <ben@example.org>",)
    assert second.trailer("Tested-by") == ("Cleo Muster <cleo@example.org>",)
    assert second.trailer("X-Trips") == ("none",)
    assert not second.trailer("Acked-by")
    assert series.notes == (
        "two-versions.mbox holds v1 as well: v2 is taken",
        "left out, for somebody else sent it: Acked-by: Somebody Else <else@example.net>",
    )
    assert b"return TOY + 1;" in first.text and b"return 4;" in second.text


def test_the_highest_version_counts_not_the_newest(tmp_path: Path) -> None:
    text = (DATA / "two-versions.mbox").read_text().replace("2026 10:07", "2020 10:07")
    (tmp_path / "t.mbox").write_text(text.replace("2026 10:08", "2020 10:08"))
    assert read_series(tmp_path / "t.mbox").version == 2


def test_a_thread_with_a_hole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"v1 of missing\.mbox is not whole: patch 2 of 3"):
        read_series(DATA / "missing.mbox")


def test_a_thread_without_a_patch(tmp_path: Path) -> None:
    (tmp_path / "t.mbox").write_text(mail("toy: what now?"))
    with pytest.raises(ConfigError, match=r"b4 finds no patches of v1 in .*mbox"):
        read_series(tmp_path / "t.mbox")


def test_threads_that_are_refused_before_b4_reads_them() -> None:
    assert thread.versions(b"From \n", "t") == {}
    assert thread.versions((DATA / "two-versions.mbox").read_bytes(), "t") == {1: 3, 2: 3}
    with pytest.raises(ConfigError, match="t is refused: a subject is over 240 bytes"):
        thread.versions(mail(f"[PATCH] {'ü' * 150}").encode(), "t")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "it said nothing"),
        ("Running in OFFLINE mode\n---\n", "it said nothing"),
        ("a\nNo patches found.\n---\n", "No patches found."),
        ("WARNING: odd \x1b!\nrerun\n", r"odd \\x1b!"),
    ],
)
def test_what_b4_says(said: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "run", answer(stderr=said))
    with pytest.raises(ConfigError, match=f"b4 finds no patches of v1 in t: {why}$"):
        thread.patches(tmp_path / "t", 1, "t")


def test_a_partial_reroll_is_told(tmp_path: Path) -> None:
    mails = (DATA / "two-versions.mbox").read_text().split(BEGIN)[1:]
    again = mails[7].replace("<v2-0@", "<v1-2@")
    (tmp_path / "t.mbox").write_text("".join(BEGIN + each for each in (*mails[:5], again)))
    series = read_series(tmp_path / "t.mbox")
    assert [patch.message_id for patch in series.patches] == [
        "v1-1@example.org",
        "v2-2@example.org",
    ]
    assert series.notes[1] == "b4 warns: v2 is a partial reroll from previous revisions"


def answer(returncode: int = 1, stderr: str = "") -> Callable[..., proc.Result]:
    return lambda argv, **_: proc.Result(tuple(map(str, argv)), returncode, "", stderr)


@pytest.mark.parametrize(
    "word", ["<x@example.org>", "x@example.org", "https://l.example/r/x@example.org/"]
)
def test_a_message_id_without_network(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "run", answer(stderr="Name or service not known\n"))
    with pytest.raises(HostError, match=r"thread of x@example\.org: b4 said: Name or") as raised:
        read_series(word)
    assert raised.value.hint and "mailbox" in raised.value.hint


def test_a_message_id_that_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(argv: list[str], **_: object) -> proc.Result:
        assert (argv[-1], "--offline-mode" in argv) == ("v2-0@example.org", False)
        place = Path(argv[argv.index("-o") + 1])
        (place / argv[argv.index("--mbox-name") + 1]).write_text("From x")
        return proc.Result(tuple(argv), 0, "", "")

    monkeypatch.setattr(proc, "run", fetch)
    assert thread.fetch("v2-0@example.org", tmp_path).read_text() == "From x"


def test_without_b4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc, "run", answer(stderr="/python: No module named b4\n"))
    with pytest.raises(HostError, match="b4 is not installed"):
        read_series(DATA / "two-versions.mbox")

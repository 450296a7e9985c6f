# SPDX-License-Identifier: GPL-2.0-or-later
"""Series from mailboxes, directories, lists and git; what is refused before it is applied."""

import base64
import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import proc
from harness.errors import ConfigError, HostError, PatchError
from harness.git import git, say
from harness.kernel.origin import base_of
from harness.kernel.worktree import WorkTree, patchset_hash
from harness.provision.cache import Store
from harness.series import mail, read, thread
from harness.series.patch import Series, numbers, slug, trailers
from harness.series.read import read_series
from harness.testing.toykernel import ToyKernel

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/data/series"
BODY = """\
---
diff --git a/one.c b/one.c
--- a/one.c
+++ b/one.c
@@ -4,3 +4,3 @@ int one(void)
 {
-\treturn TOY;
+\treturn TOY + 1;
 }
"""
FROM = "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"


def letter(subject: str = "[PATCH] toy: add one", body: str = BODY, head: str = "") -> str:
    people = "From: Ada Beispiel <ada@example.org>\nDate: Mon, 02 Nov 2026 10:00:00 +0000\n"
    return f"{FROM}{people}Subject: {subject}\n{head}\nWhy not.\n\n{body}"


@pytest.fixture
def toy(tmp_path: Path) -> ToyKernel:
    return ToyKernel(tmp_path)


def applied(series: Series, toy: ToyKernel, place: Path) -> str:
    """The tree of the toy with the series on it, as one text."""
    base = base_of(str(toy.path), Store(place / "cache"))
    tree = WorkTree(base, place / "tree")
    tree.prepare()
    tree.checkout(series.write(place / "out"))
    return "".join((tree.path / name).read_text() for name in ("one.c", "two.c", "include/toy.h"))


def test_a_thread_of_two_versions(toy: ToyKernel, tmp_path: Path) -> None:
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
    text = applied(series, toy, tmp_path)
    assert "return TOY + 1;" in text and "return 4;" in text


def test_the_highest_version_counts_not_the_newest(tmp_path: Path) -> None:
    text = (DATA / "two-versions.mbox").read_text().replace("2026 10:07", "2020 10:07")
    (tmp_path / "t.mbox").write_text(text.replace("2026 10:08", "2020 10:08"))
    assert read_series(tmp_path / "t.mbox").version == 2


def test_a_thread_with_a_hole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"v1 of missing\.mbox is not whole: patch 2 of 3"):
        read_series(DATA / "missing.mbox")


def test_encodings(toy: ToyKernel, tmp_path: Path) -> None:
    packed = tmp_path / "t.mbox.gz"
    packed.write_bytes(gzip.compress((DATA / "encodings.mbox").read_bytes()))
    series = read_series(packed)
    assert [patch.subject for patch in series.patches] == [
        "toy: zähle ab eins",
        "toy: give three",
        "toy: say so",
    ]
    assert {patch.author for patch in series.patches} == {"Giò Esempio <gio@example.org>"}
    assert "/* zählt */" in applied(series, toy, tmp_path)
    tree = tmp_path / "tree"
    assert say(tree, "log", "-1", "--format=%b", "HEAD~1").startswith("Déjà vu.")
    assert "Größer als eins." in say(tree, "log", "-1", "--format=%b", "HEAD~2")


def test_a_directory_and_its_hash(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for n, word in enumerate(("cover", "one", "two")):
        body = "Words.\n" if not n else BODY
        text = letter(f"[PATCH v3 {n}/2] toy: {word}", body)
        (folder / f"v3-{n:04}-toy-{word}.patch").write_text(text)
    (folder / "v2-0001-toy-one.patch").write_text(letter("[PATCH v2 1/1] toy: one"))
    series = read_series(folder)
    assert (series.name, series.version) == ("toy: cover", 3)
    assert series.cover == "toy: cover\n\nWhy not.\n\nWords."
    assert [p.name for p in series.patches] == ["v3-0001-toy-one.patch", "v3-0002-toy-two.patch"]
    assert series.notes == ("out holds v2 as well: v3 is taken",)
    # As KCIDB has it: sha256sum *.patch | cut -c-64 | sha256sum
    files = sorted(folder.glob("v3-000[12]*"))
    assert patchset_hash(series.write(tmp_path / "copy")) == patchset_hash(files)
    (folder / "v3-0001-toy-one.patch").unlink()
    with pytest.raises(ConfigError, match="v3 of out is not whole: patch 1 of 2"):
        read_series(folder)


def test_a_file_of_git_format_patch(tmp_path: Path) -> None:
    file = tmp_path / "toy.mbox"
    file.write_text(letter("[PATCH 1/2] toy: one") + "\n" + letter("[PATCH 2/2] toy: two"))
    series = read_series(file)
    assert [patch.name for patch in series.patches] == ["0001-toy-one.patch", "0002-toy-two.patch"]
    file.write_text(letter("[PATCH 2/2] toy: two") + "\n" + letter("[PATCH 2/2] toy: three"))
    with pytest.raises(ConfigError, match="patch 1 of 2 is missing"):
        read_series(file)


@pytest.mark.parametrize("group", ["mutants", "rfc"])
def test_the_series_of_this_repository(group: str) -> None:
    folder = ROOT / "kernel-patches/6.12" / group
    series = read_series(folder)
    assert series == read_series(folder / "series")
    listed = [line for line in (folder / "series").read_text().split() if ".patch" in line]
    assert [patch.name for patch in series.patches] == listed
    assert all(patch.trailer("X-Trips") for patch in series.patches)
    assert patchset_hash([folder / name for name in listed]) == patchset_hash(
        [folder / patch.name for patch in series.patches]
    )


@pytest.mark.parametrize("line", ["../x.patch", "/x.patch", "x.patch -p0", "x.patch y.patch"])
def test_lists_that_name_something_else(line: str, tmp_path: Path) -> None:
    (tmp_path / "series").write_text(f"# mine\n\nx.patch -p1 # first\n{line}\n")
    (tmp_path / "x.patch").write_text(letter())
    with pytest.raises(ConfigError, match=r"series:4: .* is no patch beside it"):
        read_series(tmp_path)


def test_a_list_that_names_a_patch_twice(tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text(letter())
    (tmp_path / "series").write_text("x.patch\nx.patch\n")
    with pytest.raises(ConfigError, match=r"lists x\.patch twice"):
        read_series(tmp_path)
    (tmp_path / "series").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="lists no patch"):
        read_series(tmp_path)


def test_a_range_of_git(toy: ToyKernel, tmp_path: Path) -> None:
    toy.patch("first", one=("TOY", "TOY + 1"))
    toy.patch("second", two=("return 2", "return 3"))
    git(toy.path, "config", "diff.noprefix", "true")
    git(toy.path, "config", "format.signature", "mine")
    series = read_series(f"{toy.path}@HEAD~2..HEAD")
    assert [patch.name for patch in series.patches] == ["0001-first.patch", "0002-second.patch"]
    assert b"mine" not in series.patches[0].text
    # Of a series that grows the beginning stays the same.
    assert read_series(f"{toy.path}@HEAD~2..HEAD~1").patches == series.patches[:1]
    toy.reset()
    text = applied(series, toy, tmp_path)
    assert "TOY + 1" in text and "return 3" in text


@pytest.mark.parametrize(
    ("commits", "why"),
    [("HEAD..HEAD", "no commit"), ("nix..HEAD", "has no revision 'nix'"), ("main..side", "merges")],
)
def test_ranges_that_are_no_series(toy: ToyKernel, commits: str, why: str) -> None:
    git(toy.path, "checkout", "-q", "-b", "side")
    git(toy.path, "commit", "-q", "--allow-empty", "-m", "side")
    git(toy.path, "checkout", "-q", "-b", "other", "main")
    git(toy.path, "commit", "-q", "--allow-empty", "-m", "other")
    git(toy.path, "checkout", "-q", "side")
    git(toy.path, "merge", "-q", "-m", "merge", "other")
    with pytest.raises(ConfigError, match=why):
        read_series(f"{toy.path}@{commits}")


def test_what_names_nothing() -> None:
    for word in ("nix", "nix..nix@", "a b@c d", "x\0y", ""):
        if word:
            with pytest.raises(ConfigError, match=r"no patch series|holds no NUL"):
                read_series(word)


def test_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \*\.patch"):
        read_series(tmp_path)


NEW = "--- /dev/null\n+++ b/{}\n@@ -0,0 +1 @@\n+x\n"
FORGED = letter().replace(FROM, "From x@y Mon Sep 17 00:00:00 2001\n")
PACKED = base64.b64encode(f"---\n{NEW.format('../x')}".encode()).decode()
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "parent": (letter(body="---\n" + NEW.format("../x")), "leads out of the tree"),
    "hook": (letter(body="---\n" + NEW.format(".git/hooks/x")), "belongs to git"),
    "binary": (letter(body="---\ndiff --git a/x b/x\nGIT binary patch\n"), "a binary file"),
    "NUL": (letter().encode() + b"\0", "NUL bytes"),
    "UTF-16": (letter().encode("utf-16"), "NUL bytes"),
    "two in one": (letter(body=f"{BODY}{FORGED}"), "begins another mail"),
    "a list of other files": (
        f"# This series applies on GIT commit 0123\n0002-x.patch\n\n{BODY}",
        "no sender",
    ),
    "another format": (f"# HG changeset patch\n# User ada\n\n{BODY}", "no sender"),
    "a diff alone": (BODY, "no sender"),
    "no patch": (letter(body="words\n"), "changes no file"),
    "unknown encoding": (
        letter(head="Content-Type: text/plain; charset=klingon\n").replace("Why", "W\xe4"),
        "cannot decode",
    ),
    "base64 of a bad path": (
        letter(head="Content-Transfer-Encoding: base64\n", body="").replace("Why not.\n", PACKED),
        "leads out of the tree",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_patches_are_refused(name: str, tmp_path: Path) -> None:
    content, why = HOSTILE[name]
    file = tmp_path / "0001-x.patch"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError, match=why) as raised:
        read_series(tmp_path)
    assert "0001-x.patch is refused: " in raised.value.message


@pytest.mark.parametrize("begins", ["X-Odd: y\n", "Subject: of StGit\n\n"])
def test_it_is_a_mail_to_git_am_however_it_begins(
    begins: str, toy: ToyKernel, tmp_path: Path
) -> None:
    (tmp_path / "x.patch").write_text(letter().replace(FROM, begins))
    series = read_series(tmp_path / "x.patch")
    assert series.patches[0].text.startswith(b"From git@z ")
    assert "TOY + 1" in applied(series, toy, tmp_path)


def in_thread(text: str) -> str:
    return text.replace(FROM, "From mboxrd@z Thu Jan  1 00:00:00 1970\n").replace(
        "Subject:", "Message-ID: <x@example.org>\nSubject:"
    )


def test_hostile_threads_are_refused(tmp_path: Path) -> None:
    content, why = HOSTILE["parent"]
    assert isinstance(content, str)
    (tmp_path / "t.mbox").write_text(in_thread(content))
    with pytest.raises(ConfigError, match=rf"patch 1 of t\.mbox is refused: .*{why}"):
        read_series(tmp_path / "t.mbox")


def test_a_thread_without_a_patch(tmp_path: Path) -> None:
    (tmp_path / "t.mbox").write_text(in_thread(letter("toy: what now?", "words\n")))
    with pytest.raises(ConfigError, match=r"b4 finds no patches of v1 in .*mbox"):
        read_series(tmp_path / "t.mbox")


def test_threads_that_are_refused_before_b4_reads_them() -> None:
    assert thread.versions(b"From \n", "t") == {}
    assert thread.versions((DATA / "two-versions.mbox").read_bytes(), "t") == {1: 3, 2: 3}
    with pytest.raises(ConfigError, match="t is refused: a subject is over 240 bytes"):
        thread.versions(in_thread(letter(f"[PATCH] {'ü' * 150}")).encode(), "t")


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
    begin = "From mboxrd@z Thu Jan  1 00:00:00 1970\n"
    mails = (DATA / "two-versions.mbox").read_text().split(begin)[1:]
    again = mails[7].replace("<v2-0@", "<v1-2@")
    (tmp_path / "t.mbox").write_text("".join(begin + each for each in (*mails[:5], again)))
    series = read_series(tmp_path / "t.mbox")
    assert [patch.message_id for patch in series.patches] == [
        "v1-1@example.org",
        "v2-2@example.org",
    ]
    assert series.notes[1] == "b4 warns: v2 is a partial reroll from previous revisions"


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "0001-x.patch"
    file.write_text(letter())
    monkeypatch.setattr(mail, "MOST_MAIL_BYTES", 100)
    monkeypatch.setattr(thread, "MOST_MAIL_BYTES", 100)
    with pytest.raises(ConfigError, match="larger than"):
        read_series(file)
    with pytest.raises(ConfigError, match="one of its mails is larger"):
        thread.versions(in_thread(letter()).encode(), "t")
    monkeypatch.undo()
    monkeypatch.setattr(thread, "MOST_MAILS", 1)
    monkeypatch.setattr(mail, "MOST_MAILS", 1)
    with pytest.raises(ConfigError, match="holds 2 mails"):
        thread.versions(in_thread(letter() + "\n" + letter()).encode(), "t")
    file.write_text(letter() + "\n" + letter())
    with pytest.raises(ConfigError, match="holds 2 mails"):
        read_series(file)
    monkeypatch.undo()
    monkeypatch.setattr(read, "MOST_PATCHES", 1)
    with pytest.raises(ConfigError, match="2 patches, more than 1"):
        read_series(DATA / "two-versions.mbox")
    with pytest.raises(ConfigError, match="2 patches, more than 1"):
        read_series(file)


def test_a_gzip_that_grows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MOST_BYTES", 1 << 20)
    file = tmp_path / "t.mbox.gz"
    file.write_bytes(gzip.compress(b"From " + bytes(2 << 20)))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_series(file)
    file.write_bytes(gzip.compress(b"From x")[:-4])
    with pytest.raises(ConfigError, match="cannot read"):
        read_series(file)


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


def test_a_patch_that_does_not_apply_leaves_nothing(toy: ToyKernel, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "0001-a.patch").write_text(letter("[PATCH 1/2] toy: a"))
    (folder / "0002-b.patch").write_text(letter("[PATCH 2/2] toy: b", BODY.replace("TOY", "MAN")))
    with pytest.raises(PatchError, match=r"0002-b\.patch .* one\.c, hunk @@ -4,3"):
        applied(read_series(folder), toy, tmp_path)
    assert not say(tmp_path / "tree", "status", "--porcelain")
    assert say(tmp_path / "tree", "log", "-1", "--format=%s") == "toy: a"


@pytest.mark.parametrize(
    ("subject", "found"),
    [
        ("[PATCH] x", (1, None, None)),
        ("[RFC PATCH v12 03/15] x", (12, 3, 15)),
        ("[PATCHv2 0/1] [tip] x", (2, 0, 1)),
        ("[tip][PATCH V3 1/2] x [v9]", (3, 1, 2)),
        ("Re: [PATCH v2 1/2] x", None),
        ("x v2 1/2", None),
    ],
)
def test_numbers(subject: str, found: tuple[int, int | None, int | None] | None) -> None:
    said = numbers(subject)
    assert (said and (said.version, said.counter, said.expected)) == found


def test_trailers_are_of_the_last_paragraph() -> None:
    message = 'Note: this\n\nbody\n\nFixes: 1234 ("x")\n[ada: fixed]\nsigned-off-by: Ada\nurl: \n'
    assert trailers(message) == (("Fixes", '1234 ("x")'), ("signed-off-by", "Ada"))


@pytest.mark.parametrize(
    ("subject", "name"),
    [("../../x", "x"), ("zähle\n", "z-hle"), ("...", "patch"), ("a" * 99, "a" * 52)],
)
def test_names_of_files(subject: str, name: str) -> None:
    assert slug(subject) == name

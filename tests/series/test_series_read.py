# SPDX-License-Identifier: GPL-2.0-or-later
"""Series from mailboxes, directories, lists and git; what is refused before it is applied."""

import base64
import gzip
from pathlib import Path

import pytest

from harness.errors import ConfigError, PatchError
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

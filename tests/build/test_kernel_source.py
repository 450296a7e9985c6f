# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the source of a kernel comes from, and patches on it."""

import contextlib
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import ConfigError, HostError, PatchError
from harness.git import git, say
from harness.kernel.origin import base_of
from harness.kernel.worktree import WorkTree, describe, hunk_at, patchset_hash
from harness.provision import source
from harness.provision.cache import Deb, Store
from harness.testing.toykernel import FILES, ToyKernel, write_tree


@pytest.fixture
def toy(tmp_path: Path) -> ToyKernel:
    return ToyKernel(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def archive(path: Path, members: dict[str, str | bytes]) -> Path:
    """A .tar.xz; content that begins with "->" makes a link."""
    with tarfile.open(path, "w:xz") as made:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str) and content.startswith("->"):
                member.type, member.linkname = tarfile.SYMTYPE, content[2:]
                made.addfile(member)
                continue
            data = content.encode() if isinstance(content, str) else content
            member.size, member.mode = len(data), 0o755 if name.endswith(".sh") else 0o644
            made.addfile(member, io.BytesIO(data))
    return path


def test_an_archive_becomes_one_commit(tmp_path: Path) -> None:
    members: dict[str, str | bytes]
    members = {"linux/a/x.c": b"\0\xff\n", "linux/run.sh": "#!/bin/sh\n", "linux/l": "->a/x.c"}
    tarball = archive(tmp_path / "linux.tar.xz", {**members, "linux/.gitignore": "*.c\n"})
    repository = tmp_path / "r"
    source.import_tarball(tarball, repository, "toy")
    listed = say(repository, "ls-tree", "-r", "base").splitlines()
    kinds = {line.split("\t")[1]: line.split()[0] for line in listed}
    assert kinds == {
        ".gitignore": "100644",
        "a/x.c": "100644",
        "l": "120000",
        "run.sh": "100755",
    }
    shown = subprocess.run(
        ["git", "-C", repository, "show", "base:a/x.c"], check=True, capture_output=True
    )
    assert shown.stdout == b"\0\xff\n"


def test_the_commit_is_that_of_the_content(tmp_path: Path, store: Store) -> None:
    tarball = archive(tmp_path / "a.tar.xz", {f"linux-6/{k}": v for k, v in FILES.items()})
    source.import_tarball(tarball, tmp_path / "one", "one")
    unpacked = base_of(str(write_tree(tmp_path / "unpacked")), store)
    assert unpacked.commit == say(tmp_path / "one", "rev-parse", "base")


@pytest.mark.parametrize(
    "name", ["linux/../../etc/x", "linux/.git/config", "file", 'linux/a"b', "linux/a\nM 1"]
)
def test_members_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    tarball = archive(tmp_path / "linux.tar.xz", {name: "x"})
    with pytest.raises(HostError, match="has a member"):
        source.import_tarball(tarball, tmp_path / "r", "toy")


def test_an_archive_that_was_cut_is_an_error(tmp_path: Path) -> None:
    tarball = archive(tmp_path / "linux.tar.xz", {"linux/a": b"x" * 100_000})
    tarball.write_bytes(tarball.read_bytes()[:-40])
    with pytest.raises(HostError, match=r"cannot import linux\.tar\.xz"):
        source.import_tarball(tarball, tmp_path / "r", "toy")


class FakePool:
    """A release that may have one package; apt's part is a copy."""

    def __init__(self, deb: Path | None) -> None:
        self.deb = deb

    @contextlib.contextmanager
    def opened(self, *, refresh: bool = False) -> Iterator["FakePool"]:
        yield self

    def has(self, name: str) -> bool:
        return self.deb is not None and self.deb.name.startswith(f"{name}_")

    def exact(self, names: list[str], *, backports: bool = False) -> list[Deb]:
        assert backports and self.deb
        version = self.deb.name.split("_")[1]
        return [Deb(names[0], version, self.deb.name, self.deb.stat().st_size, "")]

    def fetch(self, debs: list[Deb], directory: Path, what: str) -> None:
        assert self.deb
        shutil.copy(self.deb, directory)


def offer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, text: str) -> None:
    """Let the second release have linux-source-9.9 in this version."""
    tree = tmp_path / f"deb-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: linux-source-9.9\nVersion: {version}\nArchitecture: all\n"
    control += "Maintainer: nobody <nobody@example>\nDescription: test\n"
    (tree / "DEBIAN/control").write_text(control)
    (tree / "usr/src").mkdir(parents=True)
    archive(tree / "usr/src/linux-source-9.9.tar.xz", {"linux-source-9.9/Makefile": text})
    deb = tmp_path / f"linux-source-9.9_{version}_all.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(deb)]
    subprocess.run(argv, check=True, capture_output=True)
    pools = {"bookworm": FakePool(None), "trixie": FakePool(deb)}
    monkeypatch.setattr(source, "Pool", lambda release, root: pools[release])


def test_a_package_is_imported_once(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, tmp_path, "9.9.1-1", "one\n")
    made = source.package("linux-source-9.9", store)
    assert made.repository == store.root / "kernels/sources/linux-source-9.9-9.9.1-1"
    assert say(made.repository, "show", f"{made.commit}:Makefile") == "one"
    assert list((store.root / "debs").iterdir()) == []
    monkeypatch.setattr(source, "Pool", None)
    assert source.package("linux-source-9.9", store) == made
    base = base_of("linux-source-9.9", store)
    assert (base.name, base.commit) == ("linux-source-9.9 9.9.1-1", made.commit)


def test_refresh_takes_the_newer_package(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, tmp_path, "9.9.1-1", "one\n")
    old = source.package("linux-source-9.9", store)
    assert source.package("linux-source-9.9", store, refresh=True) == old
    offer(monkeypatch, tmp_path, "9.9.2-1", "two\n")
    new = source.package("linux-source-9.9", store, refresh=True)
    assert (new.version, source.find("linux-source-9.9", store)) == ("9.9.2-1", new)
    assert new.commit != old.commit


def test_a_package_that_debian_does_not_have(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, tmp_path, "9.9.1-1", "one\n")
    with pytest.raises(
        ConfigError, match="neither bookworm nor trixie has a package linux-source-"
    ):
        source.package("linux-source-8.8", store)


@pytest.mark.parametrize("name", ["linux-source-x", "linux-image-6.12", "../linux-source-6.12"])
def test_names_that_are_no_package(name: str, store: Store) -> None:
    with pytest.raises(ConfigError, match="is no source package"):
        source.package(name, store)


def test_a_git_tree_and_its_revision(toy: ToyKernel, store: Store) -> None:
    first = say(toy.path, "rev-parse", "HEAD")
    toy.patch("p", one=("TOY", "TOY + 1"))
    second = say(toy.path, "rev-parse", "HEAD")
    assert base_of(str(toy.path), store).commit == second
    base = base_of(f"{toy.path}@HEAD~1", store)
    assert base.commit == first
    assert say(base.repository, "show", f"{base.commit}:one.c").endswith("return TOY;\n}")


def test_the_users_tree_stays_as_it_is(toy: ToyKernel, store: Store) -> None:
    before = sorted(str(path) for path in (toy.path / ".git").rglob("*"))
    base = base_of(str(toy.path), store)
    WorkTree(base, store.root / "src").prepare()
    assert sorted(str(path) for path in (toy.path / ".git").rglob("*")) == before


def test_what_a_build_left_is_not_source(tmp_path: Path, store: Store) -> None:
    tree = write_tree(tmp_path / "tree")
    before = base_of(str(tree), store)
    (tree / "one.o").write_text("object")
    assert base_of(str(tree), store) == before
    (tree / "one.c").write_text("other\n")
    assert base_of(str(tree), store).commit != before.commit


@pytest.mark.parametrize(
    "word, words",
    [
        ("/nowhere", "no kernel source '/nowhere'"),
        ("{toy}@nothing", "toy has no revision 'nothing'"),
        ("{toy}@--all", "toy has no revision '--all'"),
        ("{plain}", "plain is no kernel source: no Makefile"),
        ("{plain}@HEAD", "plain is no git tree"),
    ],
)
def test_no_base(word: str, words: str, toy: ToyKernel, tmp_path: Path, store: Store) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(ConfigError, match=words):
        base_of(word.format(toy=toy.path, plain=plain), store)


def test_the_hash_of_a_patch_set(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1\n")
    two.write_text("2\n")
    listing = subprocess.run(["sha256sum", one, two], check=True, capture_output=True, text=True)
    lines = "".join(f"{line.split()[0]}\n" for line in listing.stdout.splitlines())
    assert patchset_hash([one, two]) == hashlib.sha256(lines.encode()).hexdigest()
    assert patchset_hash([two, one]) != patchset_hash([one, two])
    assert patchset_hash([]) == ""
    with pytest.raises(ConfigError, match="cannot read the patch"):
        patchset_hash([tmp_path / "three"])


def test_a_patch_for_a_file_that_moved_on_is_merged(toy: ToyKernel, store: Store) -> None:
    patch = toy.patch("end", one=("return TOY;", "return TOY + 1;"))
    toy.reset()
    toy.patch("begin", one=("int one(void)", "int one(int count)"))
    base = base_of(str(toy.path), store)
    tree = WorkTree(base, store.root / "src")
    tree.prepare()
    tree.checkout([patch])
    assert "int count" in (tree.path / "one.c").read_text()
    assert "TOY + 1" in (tree.path / "one.c").read_text()


def failure(toy: ToyKernel, store: Store, patch: Path) -> str:
    """What is said of a patch that does not apply, which leaves nothing behind."""
    toy.reset()
    base = base_of(str(toy.path), store)
    tree = WorkTree(base, store.root / "src")
    tree.prepare()
    tree.checkout([])
    with pytest.raises(PatchError) as caught:
        tree.checkout([patch])
    assert say(tree.path, "status", "--porcelain", "--ignored") == ""
    assert say(tree.path, "rev-parse", "HEAD") == base.commit
    assert git(tree.path, "am", "--abort", check=False).returncode
    return caught.value.message


def test_a_conflict_is_told_by_its_hunk(toy: ToyKernel, store: Store) -> None:
    toy.patch("before", one=("return TOY", "return TOY + 1"))
    late = toy.patch("late", one=("return TOY + 1", "return TOY + 2"))
    words = failure(toy, store, late)
    assert "0001-late.patch does not apply to toy " in words
    assert words.endswith("one.c, hunk @@ -2,5 +2,5 @@")


BAD = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@example.org>
Date: Mon, 1 Jan 2024 00:00:00 +0000
Subject: [PATCH] bad

---
diff --git a/{name} b/{name}
index 1111111..2222222 100644
--- a/{name}
+++ b/{name}
@@ -1 +1 @@
-x
+y
--
2.39
"""


@pytest.mark.parametrize(
    "text, words",
    [
        (BAD.format(name="../outside"), "outside"),
        (BAD.format(name=".git/config"), r"\.git/config"),
        (BAD.format(name="gone.c"), r"gone\.c: does not exist in index"),
        ("words\n", "Patch format detection failed"),
        ("", "toy [0-9a-f]+: .+"),
        (BAD.format(name="one.c").replace("+y", ""), "corrupt patch"),
    ],
)
def test_a_bad_patch_is_refused(
    toy: ToyKernel, store: Store, tmp_path: Path, text: str, words: str
) -> None:
    patch = tmp_path / "bad.patch"
    patch.write_text(text)
    message = failure(toy, store, patch)
    assert message.startswith("bad.patch does not apply to toy ")
    assert re.search(words, message), message
    assert not (tmp_path / "outside").exists()


def test_what_git_says_is_bounded_and_harmless() -> None:
    said = "error: patch failed: " + "a" * 1000 + "\x1b[2J:12\n"
    words = describe(said, b"")
    assert len(words) <= 300 and "\x1b" not in words
    assert describe("", b"") == "git says no more"


def test_the_hunk_of_the_file_that_is_meant() -> None:
    patch = (
        b"--- a/x.c\n+++ b/x.c\n@@ -3,2 +3,2 @@ f()\n--- a/y.c\n+++ b/y.c\n@@ -3,4 +3,4 @@ g()\n"
    )
    assert hunk_at(patch, "y.c", 3) == "hunk @@ -3,4 +3,4 @@ g()"
    assert hunk_at(patch, "y.c", 4) is None

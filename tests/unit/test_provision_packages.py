# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries made of packages, from resolving to the unpacked tree, with real .deb files."""

import hashlib
import logging
import os
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.provision import apt, packages
from harness.provision.apt import OpenPool, Pool
from harness.provision.cache import Deb, Store
from harness.provision.packages import Recipe, provide

if shutil.which("dpkg-deb") is None:
    pytest.skip("no dpkg-deb: not a Debian machine", allow_module_level=True)


def build_deb(directory: Path, name: str, version: str, files: Mapping[str, str]) -> Deb:
    """A package with these files; content that begins with "->" makes a link."""
    tree = directory / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
    control += "Maintainer: nobody <nobody@example>\nDescription: test\n"
    (tree / "DEBIAN/control").write_text(control)
    for inside, content in files.items():
        path = tree / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("->"):
            path.symlink_to(content[2:])
        else:
            path.write_text(content)
    file = f"{name}_{version}_all.deb"
    argv = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(directory / file)]
    subprocess.run(argv, check=True, capture_output=True)
    content_of = (directory / file).read_bytes()
    return Deb(name, version, file, len(content_of), hashlib.sha256(content_of).hexdigest())


FILES = {
    "bin/tool": "old place",
    "usr/bin/other": "usr",
    "lib/x86_64-linux-gnu/libtool.so.1": "library",
    "usr/lib/x86_64-linux-gnu/libtool.so": "->/lib/x86_64-linux-gnu/libtool.so.1",
    "usr/share/doc/tool/copyright": "words",
}


class Archive:
    """A Debian archive: apt's part is played by a script that copies the packages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "debs").mkdir(parents=True)
        (path / "bin").mkdir()
        script = (
            f'#!/bin/sh\necho "$*" >>{path}/calls\n'
            f'case "$*" in *" download "*) cp {path}/debs/*.deb . ;; esac\n'
        )
        (path / "bin/apt-get").write_text(script)
        (path / "bin/apt-get").chmod(0o755)
        self.debs: list[Deb] = []

    def add(self, name: str, version: str, files: Mapping[str, str]) -> None:
        self.debs.append(build_deb(self.path / "debs", name, version, files))

    def downloads(self) -> int:
        calls = self.path / "calls"
        return calls.read_text().count(" download ") if calls.exists() else 0

    def recipe(self, *inputs: str) -> Recipe:
        def resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
            return list(self.debs), {"count": str(len(self.debs))}

        return Recipe("tool", "bookworm", ["1", *inputs], resolve)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive = Archive(tmp_path / "archive")
    monkeypatch.setenv("PATH", f"{archive.path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://mirror.example/debian")
    monkeypatch.setattr(apt, "keyring", lambda: Path("/keys.gpg"))
    archive.add("tool", "1", FILES)
    return archive


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_packages_become_a_merged_tree(archive: Archive, store: Store) -> None:
    entry = provide(archive.recipe(), store)
    assert (entry.tree / "usr/bin/tool").read_text() == "old place"
    assert (entry.tree / "bin/other").read_text() == "usr"
    assert (entry.tree / "usr/lib/x86_64-linux-gnu/libtool.so.1").read_text() == "library"
    assert not (entry.tree / "usr/share/doc").exists()
    assert entry.facts == {"count": "1"}
    assert list((store.root / "debs").iterdir()) == []


def test_second_call_asks_apt_nothing(archive: Archive, store: Store) -> None:
    made = provide(archive.recipe(), store)
    calls = (archive.path / "calls").read_text()
    assert provide(archive.recipe(), store) == made
    assert (archive.path / "calls").read_text() == calls


def test_damaged_entry_is_made_anew_and_says_so(
    archive: Archive, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    made = provide(archive.recipe(), store)
    (made.tree / "usr/bin/tool").write_text("oops")
    with caplog.at_level(logging.WARNING):
        again = provide(archive.recipe(), store)
    assert (again.tree / "usr/bin/tool").read_text() == "old place"
    assert "the cache entry tool is damaged and is made anew: usr/bin/tool" in caplog.text


def test_changed_recipe_makes_a_new_entry(archive: Archive, store: Store) -> None:
    made = provide(archive.recipe(), store)
    assert provide(archive.recipe("more"), store).tree != made.tree


def test_refresh_takes_newer_packages_only(archive: Archive, store: Store) -> None:
    made = provide(archive.recipe(), store)
    assert provide(archive.recipe(), store, refresh=True) == made
    assert archive.downloads() == 1
    archive.add("more", "2", {"usr/bin/more": "more"})
    renewed = provide(archive.recipe(), store, refresh=True)
    assert (renewed.tree / "usr/bin/more").exists()
    assert provide(archive.recipe(), store) == renewed
    assert (made.tree / "usr/bin/tool").exists()


def test_too_little_space_is_said_before_the_download(
    archive: Archive, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pool("bookworm", store.root).opened():
        pass
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(HostError, match="no space for tool"):
        provide(archive.recipe(), store)
    assert archive.downloads() == 0


def test_package_that_cannot_be_unpacked_is_named_and_leaves_no_entry(
    archive: Archive, store: Store
) -> None:
    content = b"no archive"
    digest = hashlib.sha256(content).hexdigest()
    archive.debs = [Deb("broken", "1", "broken_1_all.deb", len(content), digest)]
    (archive.path / "debs/broken_1_all.deb").write_bytes(content)
    with pytest.raises(HostError, match=r"cannot unpack broken_1_all\.deb"):
        provide(archive.recipe(), store)
    assert store.find("tool", archive.recipe().digest()) is None


def test_merge_keeps_the_file_and_drops_the_link_to_it(tmp_path: Path) -> None:
    source, target = tmp_path / "bin", tmp_path / "usr/bin"
    source.mkdir()
    target.mkdir(parents=True)
    (source / "which").symlink_to("/usr/bin/which")
    (target / "which").write_text("program")
    (source / "sh").write_text("shell")
    (target / "sh").symlink_to("/bin/sh")
    (source / "sub").mkdir()
    (source / "sub/deep").write_text("deep")
    packages.merge(source, target)
    assert (target / "which").read_text() == "program"
    assert (target / "sh").read_text() == "shell"
    assert (target / "sub/deep").read_text() == "deep"
    assert not source.exists()

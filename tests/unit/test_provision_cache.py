# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: whole entries or none, damage found out, one maker at a time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.provision import cache
from harness.provision.cache import Deb, Entry, Store

DEBS = (Deb("tool", "1.0-1", "tool_1.0-1_amd64.deb", 10, "0" * 64),)
NEWER = (Deb("tool", "2.0-1", "tool_2.0-1_amd64.deb", 10, "1" * 64),)


def fill(tree: Path) -> dict[str, str]:
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/tool").write_text("#!/bin/sh\n")
    (tree / "bin").symlink_to("usr/bin")
    return {"release": "1"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def make(store: Store, debs: tuple[Deb, ...] = DEBS) -> Entry:
    with store.lock("tool"):
        return store.publish("tool", "recipe", debs, fill)


def test_entry_is_found_as_it_was_made(store: Store) -> None:
    made = make(store)
    assert store.find("tool", "recipe") == made
    assert (made.tree / "bin/tool").read_text() == "#!/bin/sh\n"
    assert made.facts == {"release": "1"}
    assert made.debs == DEBS


def test_nothing_is_found_in_an_empty_cache(store: Store) -> None:
    assert store.find("tool", "recipe") is None


def test_entry_of_another_recipe_is_not_used(store: Store) -> None:
    make(store)
    assert store.find("tool", "another") is None


def stamp_of(store: Store) -> Path:
    return store.root / "entries/tool.json"


def remove_file(store: Store, entry: Entry) -> None:
    (entry.tree / "usr/bin/tool").unlink()


def truncate(store: Store, entry: Entry) -> None:
    os.truncate(entry.tree / "usr/bin/tool", 1)


def overwrite(store: Store, entry: Entry) -> None:
    (entry.tree / "usr/bin/tool").write_text("#!/bin/zz\n"[:10])


def remove_link(store: Store, entry: Entry) -> None:
    (entry.tree / "bin").unlink()


def remove_tree(store: Store, entry: Entry) -> None:
    shutil.rmtree(entry.tree)


def cut_list(store: Store, entry: Entry) -> None:
    path = entry.tree.with_name(f"{entry.tree.name}.list")
    path.write_text("\n".join(path.read_text().splitlines()[:1]))


def empty_list(store: Store, entry: Entry) -> None:
    entry.tree.with_name(f"{entry.tree.name}.list").write_text("")


def break_stamp(store: Store, entry: Entry) -> None:
    stamp_of(store).write_text('{"schema": 1, "recipe": "rec')


def point_elsewhere(store: Store, entry: Entry) -> None:
    stamp = json.loads(stamp_of(store).read_text())
    stamp_of(store).write_text(json.dumps({**stamp, "digest": "../../.."}))


def stamp_of_wrong_type(store: Store, entry: Entry) -> None:
    stamp_of(store).write_text("[1, 2]")


@pytest.mark.parametrize(
    "harm",
    [
        remove_file,
        truncate,
        overwrite,
        remove_link,
        remove_tree,
        cut_list,
        empty_list,
        break_stamp,
        point_elsewhere,
        stamp_of_wrong_type,
    ],
)
def test_damaged_entry_is_not_used_and_can_be_made_again(
    store: Store, harm: Callable[[Store, Entry], None]
) -> None:
    harm(store, make(store))
    assert store.find("tool", "recipe") is None
    again = make(store)
    assert store.find("tool", "recipe") == again
    assert (again.tree / "bin/tool").read_text() == "#!/bin/sh\n"


def test_newer_packages_replace_an_entry_and_the_one_before_stays_for_its_users(
    store: Store,
) -> None:
    oldest, old, new = make(store), make(store, NEWER), make(store, (*DEBS, *NEWER))
    assert store.find("tool", "recipe") == new
    assert old.tree.exists()
    assert not oldest.tree.exists()


def test_failure_while_filling_leaves_the_former_entry(store: Store) -> None:
    def failing(tree: Path) -> dict[str, str]:
        fill(tree)
        raise HostError("no space")

    made = make(store)
    with pytest.raises(HostError, match="no space"), store.lock("tool"):
        store.publish("tool", "recipe", NEWER, failing)
    assert store.find("tool", "recipe") == made


SLOW_MAKER = """
import sys, time
from pathlib import Path
from harness.provision.cache import Deb, Store
def fill(tree):
    (tree / "half").write_text("x")
    with open(sys.argv[2], "a") as file:
        file.write("filling\\n")
    time.sleep(float(sys.argv[3]))
    return {}
store = Store(Path(sys.argv[1]))
with store.lock("tool"):
    if store.find("tool", "recipe") is None or sys.argv[4] == "always":
        store.publish("tool", "recipe", [Deb("tool", "3", "tool_3_all.deb", 1, "2" * 64)], fill)
"""


def start_maker(store: Store, notes: Path, seconds: float, when: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-c", SLOW_MAKER, str(store.root), str(notes), str(seconds), when]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("before", [False, True])
def test_maker_killed_half_way_leaves_no_half_entry(
    store: Store, tmp_path: Path, before: bool
) -> None:
    former = make(store) if before else None
    maker = start_maker(store, tmp_path / "notes", 60, "always")
    wait_for(tmp_path / "notes")
    maker.send_signal(signal.SIGKILL)
    maker.communicate()
    assert list((store.root / "entries/tool").glob(".temporary*"))
    assert store.find("tool", "recipe") == former
    made = make(store, NEWER)
    assert store.find("tool", "recipe") == made
    assert not list((store.root / "entries/tool").glob(".temporary*"))


def test_two_processes_make_an_entry_once(store: Store, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    makers = [start_maker(store, notes, 1.5, "if missing") for _ in range(2)]
    said = [maker.communicate(timeout=30)[1] for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0]
    assert notes.read_text() == "filling\n"
    assert sorted(said) == ["", "waiting for another process that sets up tool\n"]


def test_lock_that_is_never_released_ends_in_an_error(store: Store, tmp_path: Path) -> None:
    maker = start_maker(store, tmp_path / "notes", 60, "always")
    wait_for(tmp_path / "notes")
    try:
        path = store.root / "entries/tool.lock"
        with (
            pytest.raises(HostError, match=r"still held .*tool\.lock after 0 s"),
            cache.locked(path, "tool", timeout_s=0.1),
        ):
            pass
    finally:
        maker.kill()
        maker.communicate()


def test_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HostError, match="cannot write to the cache"),
        Store(tmp_path / "file").lock("tool"),
    ):
        pass


def test_space_is_asked_for_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 5_000_000))
    cache.require_space(tmp_path / "not/yet/made", 5_000_000, "QEMU")
    with pytest.raises(HostError, match=r"no space for QEMU: 6\.0 MB needed, 5\.0 MB free"):
        cache.require_space(tmp_path / "not/yet/made", 6_000_000, "QEMU")


def test_cache_directory_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(cache.CACHE_VARIABLE, str(tmp_path))
    assert cache.cache_dir() == tmp_path
    monkeypatch.delenv(cache.CACHE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / ".cache/tdharness"


def test_tree_with_closed_directories_is_removed(tmp_path: Path) -> None:
    closed = tmp_path / "tree/closed"
    closed.mkdir(parents=True)
    (closed / "file").write_text("")
    closed.chmod(0o500)
    cache.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()

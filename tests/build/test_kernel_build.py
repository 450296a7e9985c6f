# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels from source, on a tree with a kernel's targets: what is built, when, and what is said."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from harness.errors import BuildError, ConfigError, HostError, PatchError
from harness.kernel import built as shelf_module
from harness.kernel.build import build
from harness.kernel.built import BuiltKernel, Shelf
from harness.kernel.kconfig import Config
from harness.kernel.origin import Base, base_of
from harness.provision.buildroot import BuildRoot
from harness.provision.cache import Store
from harness.provision.toolchain import Toolchain
from harness.testing.toykernel import ToyKernel

CONFIG = Config("toy", "tinyconfig", "CONFIG_64BIT=y\n", strict=True)


class Builder:
    """build() of a toy in a cache of its own."""

    def __init__(self, path: Path, root: BuildRoot) -> None:
        self.toy = ToyKernel(path)
        self.store = Store(path / "cache")
        self.home = path / "cache/kernels"
        self.toolchain = Toolchain(root, "toy compiler 1")
        self.said: list[str] = []

    @property
    def base(self) -> Base:
        self.toy.reset()
        return base_of(str(self.toy.path), self.store)

    def __call__(self, *patches: Path, config: Config = CONFIG) -> BuiltKernel:
        return build(
            self.base,
            patches,
            config,
            self.said.append,
            store=self.store,
            toolchain=self.toolchain,
        )

    @property
    def tree(self) -> Path:
        (tree,) = (path for path in (self.home / "trees").iterdir() if path.is_dir())
        return tree


@pytest.fixture
def fresh(tmp_path: Path, buildroot: BuildRoot) -> Builder:
    """One that has built nothing."""
    return Builder(tmp_path, buildroot)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, buildroot: BuildRoot) -> Builder:
    """One for many tests: a tree is made to be moved from patch to patch."""
    shared = Builder(tmp_path_factory.mktemp("builder"), buildroot)
    shared()
    return shared


@pytest.fixture
def builder(used: Builder) -> Builder:
    used.toy.reset()
    return used


def compiled(kernel: BuiltKernel) -> list[str]:
    """The files that the build of a kernel compiled."""
    return sorted(
        line.split()[1] for line in kernel.log.read_text().splitlines() if "  CC " in line
    )


def test_a_base_is_built_once(fresh: Builder) -> None:
    first = fresh()
    assert not first.cached
    assert compiled(first) == ["one.o", "two.o"]
    assert first.image == first.build_tree / "arch/x86/boot/bzImage"
    assert "CONFIG_64BIT=y" in first.image.read_text()
    (warning,) = first.warnings
    assert warning.startswith("two.c: unused variable ") and "unused" in warning
    assert first.new_warnings == ()
    fresh.toolchain = replace(fresh.toolchain, root=BuildRoot(Path("/nothing")))
    again = fresh()
    assert again == replace(first, cached=True)


def test_the_tree_for_modules_is_whole_and_holds_no_objects(builder: Builder) -> None:
    tree = builder().build_tree
    for name in (".config", "Module.symvers", "System.map", "vmlinux", "Makefile", "build.log"):
        assert (tree / name).is_file(), name
    assert (tree / "include/toy.h").is_file()
    assert (tree / "include/generated/autoconf.h").is_file()
    assert (tree / "arch/x86/include/asm/toy.h").is_file()
    assert (tree / "arch/x86/Makefile").is_file()
    assert (tree / "scripts/fixdep").is_file()
    assert not list(tree.rglob("*.o"))


def test_a_patch_costs_what_it_changes(fresh: Builder) -> None:
    patch = fresh.toy.patch("p", one=("TOY", "TOY + 1"))
    kernel = fresh(patch)
    assert compiled(kernel) == ["one.o"]
    assert "TOY + 1" in kernel.image.read_text()
    facts = json.loads((kernel.build_tree / "build.json").read_text())
    assert (facts["patches"], facts["toolchain"]) == ([patch.name], "toy compiler 1")
    # the base was built on the way, and is there
    assert fresh().cached


def test_from_patch_to_patch_nothing_of_the_former_stays(fresh: Builder) -> None:
    first = fresh.toy.patch("first", one=("TOY", "TOY + 1"))
    fresh.toy.reset()
    second = fresh.toy.patch("second", two=("return 2", "return 3"))
    fresh(first)
    kernel = fresh(second)
    assert compiled(kernel) == ["one.o", "two.o"]
    assert "TOY + 1" not in kernel.image.read_text()
    assert "return 3" in kernel.image.read_text()


def test_headers_of_a_kernel_outlive_the_next_patch(builder: Builder) -> None:
    base = builder()
    patched = builder(builder.toy.patch("header", toy_h=("TOY 1", "TOY 7")))
    assert (base.build_tree / "include/toy.h").read_text() == "#define TOY 1\n"
    assert (patched.build_tree / "include/toy.h").read_text() == "#define TOY 7\n"
    marks = {(k.build_tree / "tdharness-headers").read_text() for k in (base, patched)}
    assert len(marks) == 2


def test_a_series_goes_on_from_its_beginning(fresh: Builder) -> None:
    patches = [
        fresh.toy.patch("1", one=("return TOY", "return TOY + 1")),
        fresh.toy.patch("2", two=("return 2", "return 3")),
    ]
    fresh(patches[0])
    assert compiled(fresh(*patches)) == ["two.o"]


def test_only_new_warnings_are_new(builder: Builder) -> None:
    patch = builder.toy.patch("w", two=("return 2", "int fresh;\n\n\treturn 2"))
    kernel = builder(patch)
    assert len(kernel.warnings) == 2
    (new,) = kernel.new_warnings
    assert new.startswith("two.c: unused variable ") and "fresh" in new


def test_what_does_not_compile_is_told_by_its_line(builder: Builder) -> None:
    bad = builder.toy.patch("bad", one=("return TOY", "return NOTHING"))
    with pytest.raises(BuildError, match=r"bad.* failed: one\.c:5:16: error: .*NOTHING") as caught:
        builder(bad)
    assert caught.value.log is not None and "NOTHING" in caught.value.log.read_text()
    builder.toy.reset()
    good = builder.toy.patch("good", one=("return TOY", "return 5"))
    assert "return 5" in builder(good).image.read_text()


def test_modules_are_kept_with_their_kernel_alone(fresh: Builder) -> None:
    with_modules = Config("modules", "tinyconfig", "CONFIG_64BIT=y\nCONFIG_ONE=m\n", strict=True)
    first = fresh(config=with_modules)
    module = Path("lib/modules/toy/kernel/one.ko")
    assert "TOY" in (first.build_tree / module).read_text()
    patched = fresh(fresh.toy.patch("p", one=("TOY", "TOY + 1")), config=with_modules)
    assert "TOY + 1" in (patched.build_tree / module).read_text()
    assert compiled(patched) == ["one.o"]
    assert not (fresh().build_tree / "lib").exists()


def test_an_image_of_another_kernel_is_refused(fresh: Builder) -> None:
    copied = "cp $(O)/vmlinux $(O)/arch"
    patch = fresh.toy.patch("p", makefile=(copied, "cp $(O)/one.o $(O)/arch"))
    with pytest.raises(HostError, match="holds another kernel"):
        fresh(patch)
    fresh.toy.reset()
    kernel = fresh(fresh.toy.patch("q", one=("TOY", "TOY + 1")))
    assert "TOY + 1" in kernel.image.read_text()


def test_what_does_not_apply_leaves_nothing(builder: Builder) -> None:
    builder.toy.patch("before", one=("return TOY", "return TOY + 1"))
    late = builder.toy.patch("late", one=("return TOY + 1", "return TOY + 2"))
    new_file = builder.toy.path / "three.c"
    new_file.write_text("int three;\n")
    with pytest.raises(PatchError) as caught:
        builder(late)
    message = str(caught.value)
    assert "late.patch does not apply to toy " in message
    assert "one.c, hunk @@ -2,5 +2,5 @@" in message
    assert not list((builder.tree / "src").rglob("*.rej"))
    assert "TOY + 1" not in (builder.tree / "src/one.c").read_text()
    assert builder().image.is_file()


def test_a_symbol_that_is_refused_is_named(fresh: Builder) -> None:
    config = replace(CONFIG, text="CONFIG_REFUSED=y\nCONFIG_GONE=y\n")
    with pytest.raises(ConfigError, match=r"toy .* does not take CONFIG_REFUSED=y of the conf"):
        fresh(config=config)
    # ... and again, not taken as built
    with pytest.raises(ConfigError):
        fresh(config=config)


def test_a_symbol_that_the_kernel_does_not_know_is_said(fresh: Builder) -> None:
    kernel = fresh(config=replace(CONFIG, text="CONFIG_64BIT=y\nCONFIG_GONE=y\n"))
    assert kernel.missing == ("GONE",)
    assert any("has no CONFIG_GONE=y" in words for words in fresh.said)


def test_a_whole_configuration_may_lose_symbols(fresh: Builder) -> None:
    config = Config("whole", "", "CONFIG_64BIT=y\nCONFIG_REFUSED=y\n", strict=False)
    assert fresh(config=config).missing == ("REFUSED",)


def test_a_patch_that_moves_the_configuration(builder: Builder) -> None:
    moved = builder.toy.patch(
        "moved", makefile=("REFUSED", "REFUSED\\|64BIT"), kconfig=("toy", "moved")
    )
    assert builder(moved).missing == ("64BIT",)
    after = builder()
    assert "CONFIG_64BIT=y" in after.image.read_text()


def test_objects_of_a_make_that_was_killed_are_not_trusted(fresh: Builder) -> None:
    fresh()
    (fresh.tree / "building").touch()
    (fresh.tree / "obj/one.o").write_text("half of it")
    patch = fresh.toy.patch("p", two=("return 2", "return 3"))
    kernel = fresh(patch)
    assert compiled(kernel) == ["two.o"]
    assert (fresh.tree / "obj/one.o").read_bytes().startswith(b"\x7fELF")


def test_a_tree_that_was_cleaned_up_is_made_again(fresh: Builder) -> None:
    fresh()
    tree = fresh.tree
    patch = fresh.toy.patch("p", two=("return 2", "return 3"))
    shutil.rmtree(tree / "src")
    assert "return 3" in fresh(patch).image.read_text()
    fresh.toy.reset()
    assert Shelf(fresh.home).clean_up(frozenset(), limit_bytes=0)
    assert not tree.exists()
    assert compiled(fresh(patch)) == ["two.o"]


def test_a_worktree_that_was_killed_is_mended(builder: Builder) -> None:
    builder()
    source = builder.tree / "src"
    (source / "one.c").write_text("half")
    (source / "left.c").write_text("over")
    place = (source / ".git").read_text().removeprefix("gitdir: ").strip()
    Path(place, "index.lock").touch()
    kernel = builder(builder.toy.patch("p", two=("return 2", "return 3")))
    assert "return TOY" in kernel.image.read_text()
    assert not (source / "left.c").exists()


def test_another_compiler_is_another_kernel(builder: Builder) -> None:
    builder()
    builder.toolchain = replace(builder.toolchain, version="toy compiler 2")
    assert not builder().cached


def test_make_that_takes_too_long_is_ended(fresh: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.kernel.make.TIMEOUT_S", 0.0)
    with pytest.raises(HostError, match="took over 0 s"):
        fresh()
    assert (fresh.tree / "building").exists()


def test_damage_on_the_shelf_is_built_anew(fresh: Builder) -> None:
    first = fresh()
    first.image.unlink()
    second = fresh()
    assert (second.cached, second.image.is_file()) == (False, True)


@pytest.fixture
def shelf(tmp_path: Path) -> Callable[[str, int, float], Path]:
    def add(name: str, size: int, used: float) -> Path:
        place = tmp_path / name
        place.mkdir(parents=True)
        (place / "used").write_text(str(size))
        os.utime(place / "used", (used, used))
        return place

    return add


def test_the_longest_unused_goes_first(
    tmp_path: Path, shelf: Callable[[str, int, float], Path]
) -> None:
    old = shelf("built/old", 10, 1)
    kept = shelf("built/kept", 10, 2)
    tree = shelf("trees/tree", 10, 3)
    young = shelf("built/young", 10, 4)
    gone = Shelf(tmp_path).clean_up(frozenset({kept}), limit_bytes=20)
    assert gone == [old, tree]
    assert (kept.exists(), young.exists(), old.exists(), tree.exists()) == (
        True,
        True,
        False,
        False,
    )


def test_what_somebody_makes_now_is_left_alone(
    tmp_path: Path, shelf: Callable[[str, int, float], Path]
) -> None:
    making, left = shelf("built/.temporary-new", 9, 1), shelf("built/.temporary-old", 9, 1)
    os.utime(left, (1, 1))
    assert Shelf(tmp_path).clean_up(frozenset(), limit_bytes=0) == [left]
    assert making.exists()


def test_what_fits_stays(tmp_path: Path, shelf: Callable[[str, int, float], Path]) -> None:
    shelf("built/old", 10, 1)
    assert Shelf(tmp_path).clean_up(frozenset(), limit_bytes=10) == []


def test_a_tree_that_is_built_in_stays(
    tmp_path: Path, shelf: Callable[[str, int, float], Path]
) -> None:
    tree = shelf("trees/tree", 10, 1)
    with FileLock(shelf_module.lock_of(tree)):
        assert Shelf(tmp_path).clean_up(frozenset(), limit_bytes=0) == []
    assert Shelf(tmp_path).clean_up(frozenset(), limit_bytes=0) == [tree]


def test_the_limit_is_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(shelf_module.LIMIT_VARIABLE, "20G")
    with pytest.raises(ConfigError, match="no number of bytes: '20G'"):
        Shelf(tmp_path).clean_up(frozenset())

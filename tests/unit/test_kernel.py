# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel image says of itself, and how the test module is built for it."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BuildError, ConfigError
from harness.kernel.base import Kernel, check_efi, inspect_kernel
from harness.kernel.module import SOURCES, build_module, first_complaint
from harness.proc import Result
from harness.provision.buildroot import BuildRoot

RELEASE = "6.12.95+deb12-cloud-amd64"


def bzimage(release: str = RELEASE, *, td: bool = True, magic: bytes = b"HdrS") -> bytes:
    """The parts of a bzImage that are looked at."""
    image = bytearray(0x1000)
    image[0x202:0x206] = magic
    struct.pack_into("<H", image, 0x20E, 0x600)
    version = f"{release} (somebody@somewhere) #1 SMP\0".encode()
    image[0x800 : 0x800 + len(version)] = version
    return bytes(image) + (b"...IntelTDX    ..." if td else b"")


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_packaged_kernel_and_what_belongs_to_it(tmp_path: Path) -> None:
    image = write(tmp_path / f"boot/vmlinuz-{RELEASE}", bzimage())
    system_map = write(tmp_path / f"boot/System.map-{RELEASE}", b"")
    modules = tmp_path / "lib/modules" / RELEASE
    (modules / "kernel").mkdir(parents=True)
    kernel = inspect_kernel(image)
    assert (kernel.release, kernel.system_map, kernel.modules) == (RELEASE, system_map, modules)
    assert kernel.headers is None


def test_a_kernel_whose_image_is_with_its_modules(tmp_path: Path) -> None:
    modules = tmp_path / "usr/lib/modules/7.3.4"
    image = write(modules / "vmlinuz", bzimage("7.3.4"))
    write(modules / "System.map", b"")
    (modules / "kernel").mkdir()
    kernel = inspect_kernel(image)
    assert (kernel.modules, kernel.system_map) == (modules, modules / "System.map")


def test_a_kernel_in_its_build_tree(tmp_path: Path) -> None:
    image = write(tmp_path / "arch/x86/boot/bzImage", bzimage("6.12.0-rc1"))
    write(tmp_path / "System.map", b"")
    (tmp_path / "include/generated").mkdir(parents=True)
    kernel = inspect_kernel(image)
    assert (kernel.headers, kernel.system_map) == (tmp_path, tmp_path / "System.map")
    assert kernel.modules is None
    (tmp_path / "lib/modules/6.12.0-rc1/kernel").mkdir(parents=True)
    assert inspect_kernel(image).modules == tmp_path / "lib/modules/6.12.0-rc1"
    assert kernel.to_json()["release"] == "6.12.0-rc1"


def test_what_is_given_is_not_looked_for(tmp_path: Path) -> None:
    image = write(tmp_path / "vmlinuz", bzimage())
    write(tmp_path / "System.map", b"")
    kernel = inspect_kernel(image, release="mine", system_map=tmp_path, modules=tmp_path)
    assert (kernel.release, kernel.system_map, kernel.modules) == ("mine", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a bzImage"),
        (b"\x7fELF" + bytes(5000), "not a bzImage"),
        (bzimage(magic=b"XXXX"), "not a bzImage"),
        (bzimage("nothing"), "release"),
        (bzimage(td=False), "without TDX guest support"),
        (bzimage("6.1.0-40-amd64", td=False), "too old"),
        (bzimage("5.19.0"), "too old"),
    ],
)
def test_what_cannot_be_the_kernel_of_a_td(tmp_path: Path, data: bytes, words: str) -> None:
    image = write(tmp_path / "vmlinuz", data)
    with pytest.raises(ConfigError, match=words) as caught:
        inspect_kernel(image)
    assert str(image) in caught.value.message


def test_a_plain_vm_takes_any_kernel(tmp_path: Path) -> None:
    image = write(tmp_path / "vmlinuz", bzimage("5.19.0", td=False))
    assert inspect_kernel(image, td=False).release == "5.19.0"


def test_the_firmware_of_a_td_starts_efi_programs_only(tmp_path: Path) -> None:
    check_efi(write(tmp_path / "good", b"MZ" + bzimage()[2:]))
    with pytest.raises(ConfigError, match="CONFIG_EFI_STUB=y"):
        check_efi(write(tmp_path / "bad", bzimage()))


def test_a_kernel_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        inspect_kernel(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot read"):
        inspect_kernel(tmp_path)


class FakeRoot(BuildRoot):
    """A build root whose compiler is this class."""

    calls: list[dict[str, Any]]
    output: str = ""
    returncode: int = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        object.__setattr__(self, "calls", [])

    def run(self, argv: Sequence[Any], **options: Any) -> Result:
        self.calls.append({"argv": list(argv), **options})
        binds: Mapping[Path, Path] = options["binds"]
        build = next(host for host, inside in binds.items() if inside == options["cwd"])
        assert {p.name for p in build.iterdir()} == {
            p.name for p in SOURCES.iterdir() if p.suffix in (".c", ".h") or p.name == "Kbuild"
        }
        if self.returncode == 0:
            (build / "tdharness.ko").write_bytes(b"module")
        options["log_path"].write_text(self.output)
        return Result(tuple(argv), self.returncode, self.output, "")


@pytest.fixture
def root(tmp_path: Path) -> FakeRoot:
    write(tmp_path / f"root/usr/src/linux-headers-{RELEASE}/Makefile", b"")
    return FakeRoot(tmp_path / "root")


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(release=RELEASE, image=tmp_path / "vmlinuz")


def test_the_module_is_built_once(root: FakeRoot, kernel: Kernel, tmp_path: Path) -> None:
    first = build_module(kernel, root, cache_dir=tmp_path / "cache")
    assert first.read_bytes() == b"module"
    assert build_module(kernel, root, cache_dir=tmp_path / "cache") == first
    (call,) = root.calls
    assert call["argv"][:3] == ["make", "-C", f"/usr/src/linux-headers-{RELEASE}"]
    # Nothing but the module and its log is left.
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".ko", ".log"}


def test_other_headers_make_another_module(root: FakeRoot, kernel: Kernel, tmp_path: Path) -> None:
    first = build_module(kernel, root, cache_dir=tmp_path / "cache")
    write(root.path / f"usr/src/linux-headers-{RELEASE}/Module.symvers", b"changed")
    assert build_module(kernel, root, cache_dir=tmp_path / "cache") != first
    assert len(root.calls) == 2


def test_headers_of_a_build_tree_are_seen_at_their_own_path(root: FakeRoot, tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    write(tree / "Module.symvers", b"")
    kernel = Kernel(release="6.13.0-mine", image=tree / "bzImage", headers=tree)
    build_module(kernel, root, cache_dir=tmp_path / "cache")
    (call,) = root.calls
    assert call["argv"][2] == str(tree)
    assert call["binds"][tree] == tree


def test_a_build_tree_without_its_exports(root: FakeRoot, tmp_path: Path) -> None:
    kernel = Kernel(release="6.13.0-mine", image=tmp_path / "bzImage", headers=tmp_path)
    with pytest.raises(ConfigError, match=r"no Module\.symvers") as caught:
        build_module(kernel, root, cache_dir=tmp_path / "cache")
    assert caught.value.hint == f"make -C {tmp_path} modules"
    assert root.calls == []


@pytest.mark.parametrize("headers", [None, Path("/usr/src")])
def test_no_usable_headers(root: FakeRoot, tmp_path: Path, headers: Path | None) -> None:
    kernel = Kernel(release="6.13.0-mine", image=tmp_path / "bzImage", headers=headers)
    with pytest.raises(ConfigError, match=r"6\.13\.0-mine"):
        build_module(kernel, root, cache_dir=tmp_path / "cache")
    assert root.calls == []


def test_a_failing_build_shows_the_compilers_words(
    root: FakeRoot, kernel: Kernel, tmp_path: Path
) -> None:
    object.__setattr__(root, "returncode", 2)
    object.__setattr__(
        root, "output", "  CC x.o\nx.c:3:1: error: unknown type name 'foo'\nmake: end\n"
    )
    with pytest.raises(BuildError, match="unknown type name 'foo'") as caught:
        build_module(kernel, root, cache_dir=tmp_path / "cache")
    assert caught.value.log and "unknown type" in caught.value.log.read_text()
    assert not list((tmp_path / "cache").glob("*.ko"))


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("a\nERROR: modpost: x undefined!\nb", "ERROR: modpost: x undefined!"),
        ("make: *** [x] Error 1\n", "make: *** [x] Error 1"),
        ("one\ntwo\n", "two"),
        ("", "no output"),
    ],
)
def test_the_first_complaint(output: str, line: str) -> None:
    assert first_complaint(output) == line

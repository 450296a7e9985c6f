# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs: its format, what is packed, and that the same inputs give the same file."""

import gzip
import json
import lzma
import shutil
import stat
from pathlib import Path

import pytest
import zstandard

from harness import proc
from harness.cpio import Entry, pack
from harness.errors import BuildError
from harness.image import RECIPE, GuestRoot, build_initramfs, offsets_of
from harness.kernel.base import Kernel
from harness.kernel.modules import ModuleTree, decompress, function_offsets, module_depends
from harness.testing import elf

LOADER = "/lib64/ld-linux-x86-64.so.2"


def unpack(archive: bytes) -> dict[str, Entry]:
    """A reader of the format that shares nothing with the writer but the Entry."""
    found: dict[str, Entry] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, uid, gid, size, name_size = (numbers[i] for i in (1, 2, 3, 6, 11))
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        data_at = (at + 110 + name_size + 3) & ~3
        if name == b"TRAILER!!!\0":
            return found
        assert (uid, gid) == (0, 0)
        path = "/" + name[:-1].decode()
        assert path not in found
        data = archive[data_at : data_at + size]
        found[path] = Entry(path, mode, data, (numbers[9], numbers[10]))
        at = (data_at + size + 3) & ~3


def test_what_is_packed_can_be_read() -> None:
    entries = [
        Entry.file("/bin/tool", b"odd", 0o755),
        Entry.link("/bin/other", "tool"),
        Entry.character_device("/dev/console", 5, 1),
        Entry.directory("/proc"),
        Entry.file("/empty", b""),
    ]
    found = unpack(pack(entries))
    for entry in entries:
        assert found[entry.path] == entry
    assert set(found) == {e.path for e in entries} | {"/bin", "/dev"}
    assert stat.S_ISDIR(found["/bin"].mode)


def test_parents_come_first_and_order_does_not_matter() -> None:
    entries = [Entry.file(f"/a{i}/b/c", b"%d" % i) for i in range(5)]
    assert pack(entries) == pack(reversed(entries))
    names = list(unpack(pack(entries)))
    for name in names:
        parent = str(Path(name).parent)
        assert parent == "/" or names.index(parent) < names.index(name)


@pytest.mark.parametrize("tool", [t for t in ("cpio", "busybox") if shutil.which(t)])
def test_other_readers_agree(tool: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(pack([Entry.file("/x/y", b"hello"), Entry.link("/z", "x/y")]))
    argv = ["busybox", "cpio"] if tool == "busybox" else ["cpio"]
    result = proc.run([*argv, "-i", "-t", "-F", archive], timeout_s=10)
    assert result.stdout.split() == ["x", "x/y", "z"]


@pytest.fixture
def guest_root(tmp_path: Path) -> Path:
    """Unpacked packages: one library in each of the places, loader behind an absolute link."""
    root = tmp_path / "root"
    files = {
        "bin/busybox": elf.program(),
        "usr/sbin/dropbear": elf.program(["liba.so.1", "libc.so.6"], LOADER),
        "usr/bin/dropbearkey": elf.program(["libc.so.6"], LOADER),
        "usr/lib/x86_64-linux-gnu/liba.so.1.2": elf.program(["libb.so.1", "libc.so.6"]),
        "lib/x86_64-linux-gnu/libb.so.1": elf.program(["libc.so.6", "liba.so.1"]),
        "usr/lib/x86_64-linux-gnu/libc.so.6": elf.program(["ld-linux-x86-64.so.2"]),
        "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2": elf.program(),
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "usr/lib/x86_64-linux-gnu/liba.so.1").symlink_to("liba.so.1.2")
    (root / "usr/lib64").mkdir()
    link = root / "usr/lib64/ld-linux-x86-64.so.2"
    link.symlink_to("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    return root


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    modules = tmp_path / "modules"
    files = {
        "kernel/net/failover.ko.xz": lzma.compress(elf.kernel_module()),
        "kernel/net/net_failover.ko.zst": zstandard.compress(elf.kernel_module(["failover"])),
        "kernel/net/virtio_net.ko.gz": gzip.compress(elf.kernel_module(["net-failover"])),
        "kernel/char/virtio-rng.ko": elf.kernel_module(),
    }
    for name, content in files.items():
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_bytes(content)
    return Kernel(release="6.12-test", image=tmp_path / "vmlinuz", modules=modules)


def test_libraries_are_found_directly_and_through_others(guest_root: Path) -> None:
    program = (guest_root / "usr/sbin/dropbear").read_bytes()
    paths = [entry.path for entry in GuestRoot(guest_root).libraries(program)]
    directory = "/lib/x86_64-linux-gnu"
    assert sorted(paths) == sorted(
        [
            LOADER,
            f"{directory}/ld-linux-x86-64.so.2",
            f"{directory}/liba.so.1",
            f"{directory}/libb.so.1",
            f"{directory}/libc.so.6",
        ]
    )


def test_a_missing_library_is_named(guest_root: Path) -> None:
    program = elf.program(["libnone.so.9"])
    with pytest.raises(BuildError, match=r"libnone\.so\.9"):
        list(GuestRoot(guest_root).libraries(program))


def test_modules_come_after_what_they_depend_on(kernel: Kernel) -> None:
    tree = ModuleTree(kernel.modules)
    order = tree.load_order(["virtio_rng", "virtio_net", "failover", "built_in"])
    assert order == ["virtio_rng", "failover", "net_failover", "virtio_net"]


def test_modules_that_depend_on_each_other_end(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"kernel/{name}.ko").write_bytes(elf.kernel_module([other]))
    assert ModuleTree(tmp_path).load_order(["a"]) == ["b", "a"]


def test_a_kernel_without_modules_has_none_to_load() -> None:
    assert ModuleTree(None).load_order(["virtio_net"]) == []


def test_what_modinfo_says() -> None:
    assert module_depends(elf.kernel_module(["a-b", "c"])) == ["a_b", "c"]
    assert module_depends(elf.kernel_module()) == []
    assert module_depends(elf.program()) == []


FUNCTIONS = {
    ".text": {"one": 0, "two.cold": 0x40, "bad name": 4},
    ".text.unlikely": {"three": 8},
    ".init.text": {"init_module": 0},
    ".data": {"no_code": 0},
}


def test_functions_of_a_module() -> None:
    found = function_offsets(elf.kernel_module(["a"], FUNCTIONS))
    assert found == {".text": {"one": 0, "two.cold": 0x40}, ".text.unlikely": {"three": 8}}
    assert function_offsets(elf.program()) == {}


def test_the_image_comes_with_the_offsets_in_its_modules(
    guest_root: Path, kernel: Kernel, tmp_path: Path
) -> None:
    module = tmp_path / "tdharness.ko"
    module.write_bytes(elf.kernel_module(functions=FUNCTIONS))
    path = build_initramfs(guest_root, kernel, module, cache_dir=tmp_path / "cache")
    offsets = json.loads(offsets_of(path).read_text())
    assert offsets["tdharness"][".text"] == {"one": 0, "two.cold": 0x40}
    assert offsets["virtio_net"] == {}
    offsets_of(path).unlink()
    build_initramfs(guest_root, kernel, module, cache_dir=tmp_path / "cache")
    assert json.loads(offsets_of(path).read_text()) == offsets


def test_all_compressions_are_undone(kernel: Kernel) -> None:
    assert kernel.modules
    for path in kernel.modules.glob("kernel/*/*"):
        assert decompress(path).startswith(b"\x7fELF")


def test_the_image_holds_what_the_recipe_says(
    guest_root: Path, kernel: Kernel, tmp_path: Path
) -> None:
    module = tmp_path / "tdharness.ko"
    module.write_bytes(elf.kernel_module())
    path = build_initramfs(guest_root, kernel, module, cache_dir=tmp_path / "cache")
    found = unpack(path.read_bytes())
    assert found["/init"].data == (RECIPE / "init").read_bytes()
    for name in ("/init", "/bin/agent", "/bin/tdh", "/bin/busybox", "/usr/sbin/dropbear"):
        assert stat.S_IMODE(found[name].mode) == 0o755, name
    assert found["/bin/sh"].data == b"busybox"
    assert found["/dev/console"].device == (5, 1)
    listed = found["/etc/modules"].data.decode().split()
    assert listed[-1] == "/lib/modules/tdharness.ko"
    assert listed[0] == "/lib/modules/failover.ko"
    for name in listed:
        assert found[name].data.startswith(b"\x7fELF")


def test_the_same_inputs_give_the_same_file_once(
    guest_root: Path, kernel: Kernel, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = build_initramfs(guest_root, kernel, None, cache_dir=cache)
    made = first.stat()
    assert build_initramfs(guest_root, kernel, None, cache_dir=cache) == first
    assert first.stat().st_mtime_ns == made.st_mtime_ns
    assert stat.S_IMODE(made.st_mode) == 0o444
    assert {p.name for p in cache.iterdir()} == {first.name, offsets_of(first).name}
    (guest_root / "bin/busybox").write_bytes(elf.program(["libc.so.6"]))
    assert build_initramfs(guest_root, kernel, None, cache_dir=cache) != first


def test_a_cut_file_in_the_cache_is_made_anew(
    guest_root: Path, kernel: Kernel, tmp_path: Path
) -> None:
    path = build_initramfs(guest_root, kernel, None, cache_dir=tmp_path / "cache")
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:1000])
    assert build_initramfs(guest_root, kernel, None, cache_dir=tmp_path / "cache") == path
    assert path.read_bytes() == whole


def test_a_missing_program_is_named(guest_root: Path, kernel: Kernel, tmp_path: Path) -> None:
    (guest_root / "bin/busybox").unlink()
    with pytest.raises(BuildError, match="usr/bin/busybox") as caught:
        build_initramfs(guest_root, kernel, None, cache_dir=tmp_path)
    assert "setup" in str(caught.value.hint)


def test_a_broken_module_is_no_traceback(guest_root: Path, kernel: Kernel, tmp_path: Path) -> None:
    assert kernel.modules
    (kernel.modules / "kernel/net/failover.ko.xz").write_bytes(b"not xz")
    with pytest.raises(BuildError, match=r"failover\.ko\.xz"):
        build_initramfs(guest_root, kernel, None, cache_dir=tmp_path)

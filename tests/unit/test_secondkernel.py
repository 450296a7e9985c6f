# SPDX-License-Identifier: GPL-2.0-or-later
"""What is put into the image of a guest that starts a second kernel."""

from pathlib import Path

import pytest

from harness import secondkernel
from harness.errors import BuildError, ConfigError
from harness.prepare import Request, prepare
from harness.testing import elf
from harness.workload.plan import WORKLOADS


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, content in {
        "usr/sbin/kexec": elf.program(["libz.so.1"]),
        "usr/lib/x86_64-linux-gnu/libz.so.1": elf.program(),
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_the_kernel_goes_in_with_kexec_and_its_libraries(packages: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(b"a kernel")
    entries = {entry.path: entry for entry in secondkernel.entries(kernel, packages)}
    assert set(entries) == {
        secondkernel.IMAGE,
        "/usr/sbin/kexec",
        "/lib/x86_64-linux-gnu/libz.so.1",
    }
    assert entries[secondkernel.IMAGE].data == b"a kernel"
    assert entries["/usr/sbin/kexec"].mode & 0o111


def test_a_kernel_that_cannot_be_read_is_named(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="none"):
        secondkernel.entries(tmp_path / "none", packages)


def test_a_guest_with_a_seed_has_no_second_kernel() -> None:
    with pytest.raises(ConfigError, match="second kernel"):
        prepare(Request(seed=1), print, steps=WORKLOADS["kexec"])

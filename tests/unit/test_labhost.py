# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab host without a boot: its definition, QEMU's command line, machine checks."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BuildError
from harness.labhost import checks, definition
from harness.labhost.arguments import Start, Wiring, arguments
from harness.labhost.build import find
from harness.labhost.image import Image
from harness.provision.cache import Store

IMAGE = Image(
    disk=Path("/cache/a,b/disk"),
    overlay=Path("/cache/a,b/overlay"),
    state=Path("/cache/a,b/state"),
    boot_id="",
    kernel=Path("/cache/vmlinuz"),
    initrd=Path("/cache/initrd"),
    key=Path("/cache/key"),
    host_key="",
)
WIRING = Wiring(
    start=Start.SAVED,
    qmp_fd=7,
    ssh_port=2222,
    console_socket=Path("/private/console"),
    console_log=Path("/out/console.log"),
    sandbox=True,
    tsc_khz=None,
)


def test_it_listens_on_this_machine_only_and_reaches_nothing() -> None:
    (network,) = (word for word in arguments(IMAGE, WIRING) if word.startswith("user,"))
    assert network == "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"


@pytest.mark.parametrize(
    ("start", "disk", "resumes"),
    [
        (Start.COLD, "file=/cache/a,,b/disk,format=raw,cache=unsafe,snapshot=on", False),
        (Start.FIRST, "file=/cache/a,,b/overlay,format=qcow2,cache=unsafe,snapshot=off", False),
        (Start.SAVED, "file=/cache/a,,b/overlay,format=qcow2,cache=unsafe,snapshot=on", True),
    ],
)
def test_only_the_first_boot_writes_the_image(start: Start, disk: str, resumes: bool) -> None:
    words = arguments(IMAGE, replace(WIRING, start=start))
    assert f"id=disk,if=none,{disk}" in words
    assert ("file:/cache/a,,b/state" in words) is resumes


def test_each_file_of_the_definition_counts(tmp_path: Path) -> None:
    copied = shutil.copytree(definition.DIRECTORY, tmp_path / "lab-host")
    before = definition.read(copied)
    assert before.digest == definition.read().digest
    (copied / "README.md").write_text("other words")
    assert definition.read(copied).digest == before.digest
    (copied / "configure").chmod(0o644)
    assert definition.read(copied).digest != before.digest


def test_packages_of_backports_are_asked_for_there() -> None:
    assert "qemu-system-x86/trixie-backports" in definition.read().wanted


@pytest.mark.parametrize("text", ["", "release = 1", "no table"])
def test_a_broken_definition_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "lab-host.toml").write_text(text)
    with pytest.raises(BuildError, match="does not define a lab host"):
        definition.read(tmp_path)


def test_an_empty_cache_has_none(tmp_path: Path) -> None:
    assert find(Store(tmp_path)) is None


def test_a_corrected_error_raises_no_exception() -> None:
    check = checks.corrected(0x1000, cpu=1)
    assert check.command == "mce 1 9 0x8c00004000000090 0x0 0x1000 0x8c"


@pytest.mark.parametrize("check", [checks.recoverable(0x1000), checks.fatal(0x1000)])
def test_an_uncorrected_error_reaches_all_processors(check: checks.MachineCheck) -> None:
    """Without -b the kernel waits for the other processors, and dies of that instead."""
    assert check.command.startswith("mce -b 0 ")
    assert check.global_status == 5


def test_only_the_fatal_one_corrupts_the_context() -> None:
    corrupt = 1 << 57
    assert checks.fatal(0).status & corrupt
    assert not (checks.recoverable(0).status | checks.corrected(0).status) & corrupt

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QEMU the stub can use, tried on programs that talk like one."""

from pathlib import Path

import pytest

from harness.errors import ConfigError, HostError
from harness.provision import accel, qemu
from harness.provision.cache import Store

WITH_PLUGINS = "qemu: Could not load plugin /nonexistent.so: cannot open shared object file"
WITHOUT_PLUGINS = "qemu: -plugin /nonexistent.so: plugin support is disabled"


def write_program(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def fake_qemu(path: Path, version: str, answer: str = WITH_PLUGINS) -> Path:
    return write_program(
        path,
        f'case "$*" in\n*--version*) echo "{version}" ;;\n*) echo "{answer}" >&2; exit 1 ;;\nesac',
    )


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright", "11.1.3"),
        ("QEMU emulator version 12.0", "12.0"),
        ("QEMU emulator version 11.0.50 (v11.0.0-1-gabc)", "11.0.50"),
        ("bash: qemu: not found", None),
        ("QEMU emulator version unknown", None),
        ("", None),
    ],
)
def test_version_is_read(words: str, version: str | None) -> None:
    assert qemu.parse_version(words) == version


@pytest.mark.parametrize("version", ["11.1.0", "11.1.3", "11.10.0", "12.0.1"])
def test_new_enough_qemu_with_plugins_is_used(tmp_path: Path, version: str) -> None:
    path = fake_qemu(tmp_path / "qemu", f"QEMU emulator version {version}")
    assert qemu.from_path(path) == qemu.Qemu((str(path),), {}, version, str(path))


@pytest.mark.parametrize("version", ["10.0.13", "11.0.9", "8.2.2"])
def test_old_qemu_is_refused(tmp_path: Path, version: str) -> None:
    path = fake_qemu(tmp_path / "qemu", f"QEMU emulator version {version}")
    reason = rf"is QEMU {version}: too old, .* needs 11\.1 or newer"
    with pytest.raises(ConfigError, match=reason):
        qemu.from_path(path)


def test_qemu_without_plugins_is_refused(tmp_path: Path) -> None:
    path = fake_qemu(tmp_path / "qemu", "QEMU emulator version 11.1.3", WITHOUT_PLUGINS)
    with pytest.raises(ConfigError, match="built without TCG plugins"):
        qemu.from_path(path)


def test_program_that_is_no_qemu_is_refused(tmp_path: Path) -> None:
    path = write_program(tmp_path / "ls", "echo ls 9.1")
    with pytest.raises(ConfigError, match=r"is no QEMU: --version said 'ls 9\.1"):
        qemu.from_path(path)


def test_missing_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("")
    for path in (tmp_path / "none", tmp_path / "text", tmp_path):
        with pytest.raises(ConfigError, match="no such program"):
            qemu.from_path(path)


def test_file_that_cannot_be_executed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_bytes(b"\x7fELF no")
    path.chmod(0o755)
    with pytest.raises(HostError, match="cannot start"):
        qemu.from_path(path)


def test_machines_qemu_is_used_when_it_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "cache")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    program = tmp_path / "bin" / qemu.PROGRAM
    fake_qemu(program, "QEMU emulator version 11.1.3")
    found = qemu.find(store)
    assert found is not None and found.origin == str(program)
    assert qemu.find_or_make(store) == found
    fake_qemu(program, "QEMU emulator version 10.0.2")
    assert qemu.find(store) is None
    fake_qemu(program, "QEMU emulator version 11.1.3", WITHOUT_PLUGINS)
    assert qemu.find(store) is None


def test_boot_sector_is_one_the_bios_starts() -> None:
    sector = accel.boot_sector()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")
    # what its own jumps and table addresses rely on
    assert sector[0x57:0x59] == b"\xdb\xe3"
    assert sector[0x6D:0x6F] == b"\x0f\x00"
    assert sector[0x78:0x80] == bytes(8)


def refusal_of(path: Path, body: str, timeout_s: float = 20) -> str | None:
    program = write_program(path, body)
    trial = qemu.Qemu((str(program),), {}, "11.1.3", "test")
    return accel.refusal(trial, "kvm", timeout_s=timeout_s)


def test_accelerator_that_ran_the_guest_is_good(tmp_path: Path) -> None:
    assert refusal_of(tmp_path / "qemu", "exit 85") is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'failed to initialize kvm: Permission denied'; exit 1", "Permission denied"),
        ("exit 0", "QEMU exited with 0"),
        ("kill -SEGV $$", "QEMU exited with -11"),
    ],
)
def test_accelerator_that_failed_says_why(tmp_path: Path, body: str, reason: str) -> None:
    assert reason in str(refusal_of(tmp_path / "qemu", body))


def test_accelerator_that_hangs_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    reason = refusal_of(tmp_path / "qemu", f"echo $$ >{pid}; exec sleep 60", timeout_s=0.5)
    assert "did not get through its boot sector" in str(reason)
    assert not Path("/proc", pid.read_text().strip()).exists()


def test_stopped_guest_is_noticed_before_the_deadline(tmp_path: Path) -> None:
    body = "echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60"
    assert "KVM internal error" in str(refusal_of(tmp_path / "qemu", body))

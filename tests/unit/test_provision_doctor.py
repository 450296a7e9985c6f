# SPDX-License-Identifier: GPL-2.0-or-later
"""What doctor says of a machine, with and without the parts."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from harness.errors import HostError
from harness.provision import accel, apt, buildroot, doctor
from harness.provision.cache import Store
from harness.provision.doctor import Check
from harness.provision.qemu import Qemu

GOOD = Check("part", "version 1", "everything", True, "install it")
BAD = Check("part", "none", "everything", False, "apt-get install part")
OPTIONAL = Check("extra", "none", "something", False, "buy one", needed=False)


def test_machine_is_usable_when_all_that_is_needed_is_there() -> None:
    assert doctor.usable([GOOD, OPTIONAL])
    assert not doctor.usable([GOOD, BAD])


def text_of(checks: list[Check], width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(doctor.render(checks))
    return out.getvalue()


def test_table_says_what_is_missing_and_what_mends_it() -> None:
    lines = text_of([GOOD, BAD, OPTIONAL]).splitlines()
    rows = [line.split()[0] for line in lines if " part " in line or " extra " in line]
    assert rows == ["ok", "missing", "no"]
    assert "apt-get install part" in "\n".join(lines)
    assert "install it" not in "\n".join(line for line in lines if line.split()[:1] == ["ok"])


def test_table_fits_a_hundred_columns_and_takes_no_markup_from_what_was_found() -> None:
    found = "[bold]/a/very" + "/long" * 60 + "[/bold]"
    text = text_of([Check("part", found, "everything " * 9, False, "command " * 20)])
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "[bold]/a/very" in text


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Check]:
    """The checks of a machine where nothing is set up and little works."""

    def no_mirror() -> str:
        raise HostError("no archive", hint="name a mirror")

    def no_namespaces() -> tuple[str, ...]:
        raise HostError("no namespace", hint="sysctl -w x=1")

    monkeypatch.setattr(apt, "mirror", no_mirror)
    monkeypatch.setattr(buildroot, "namespaces", no_namespaces)
    monkeypatch.setattr(doctor, "_SPACE", 10**18)
    monkeypatch.setattr("harness.provision.qemu.on_this_machine", lambda: None)
    checks = doctor.diagnose(Store(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()
    return {check.name: check for check in checks}


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("apt", "name a mirror"),
        ("mount namespace", "sysctl -w x=1"),
        ("QEMU", "tdharness setup"),
        ("Linux 6.12", "tdharness setup"),
        ("guest programs", "tdharness setup"),
    ],
)
def test_each_missing_part_names_its_command(bare: dict[str, Check], name: str, mend: str) -> None:
    assert (bare[name].ok, bare[name].needed, bare[name].mend) == (False, True, mend)


def test_full_disk_is_reported_with_the_room_needed(bare: dict[str, Check]) -> None:
    assert not bare["disk"].ok
    assert "TDHARNESS_CACHE" in str(bare["disk"].mend)


def test_what_the_stub_does_without_is_not_needed(bare: dict[str, Check]) -> None:
    assert [name for name, check in bare.items() if not check.needed] == [
        *("user", "git", "cores", "seccomp", "KVM", "Linux 7", "libvirt", "TDX")
    ]


@pytest.mark.parametrize(("uid", "ok"), [(0, False), (1000, True)])
def test_root_is_told_to_be_someone_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid: int, ok: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    (check,) = doctor._user(Store(tmp_path))
    assert (check.ok, check.needed) == (ok, False)
    assert "nothing in it takes root" in str(check.mend)


def test_a_mirror_is_shown_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "https://ci:hunter2@deb.example/debian")
    (check,) = doctor._apt(Store(tmp_path))
    assert "hunter2" not in check.found
    assert "https://ci:...@deb.example/debian" in check.found or not check.ok


def test_a_qemu_without_seccomp_is_named(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text(
        "#!/bin/sh\ncase $* in *-sandbox*) echo 'qemu: -sandbox on: sandbox is not supported';"
        " exit 1 ;; esac\nexit 85\n"
    )
    program.chmod(0o755)
    check = doctor.seccomp(Qemu((str(program),), {}, "11.1.3", "test"))
    assert (check.ok, check.needed) == (False, False)
    assert check.found == "no filter: qemu: -sandbox on: sandbox is not supported"
    program.write_text("#!/bin/sh\nexit 85\n")
    assert doctor.seccomp(Qemu((str(program),), {}, "11.1.3", "test")).ok


def test_this_machine_runs_python_and_has_memory(bare: dict[str, Check]) -> None:
    assert bare["Python"].ok
    assert "MB free" in bare["memory"].found


QEMU = Qemu(("qemu",), {}, "11.1.3", "test")


@pytest.mark.parametrize(
    ("refusal", "ok", "words"),
    [(None, True, "ran a guest"), ("it hung", False, "is there, but it hung")],
)
def test_kvm_is_judged_by_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str | None, ok: bool, words: str
) -> None:
    monkeypatch.setattr(accel, "refusal", lambda qemu, name: refusal)
    node = tmp_path / "kvm"
    node.touch()
    check = doctor.kvm(QEMU, node)
    assert (check.ok, check.needed) == (ok, False)
    assert check.found.endswith(words)


def test_kvm_that_is_not_there_or_not_open_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "refusal", lambda qemu, name: pytest.fail("a guest was tried"))
    node = tmp_path / "kvm"
    assert doctor.kvm(QEMU, node).found == f"no {node}"
    node.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    check = doctor.kvm(QEMU, node)
    assert not check.ok
    assert str(check.mend).startswith("as root: adduser ")

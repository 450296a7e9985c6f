# SPDX-License-Identifier: GPL-2.0-or-later
"""What a TD on hardware is started with, and judged by.

The machine that starts TDs is pretended, for none was at hand; its answers have the forms of the
kernel's parameter and of QEMU's firmware descriptors.
"""

import json
from pathlib import Path

import pytest

from harness.errors import ConfigError, HostError
from harness.judge import judge_slice
from harness.machine.arguments import Wiring, arguments
from harness.machine.base import MachineSpec
from harness.machine.tdhost import described, td_of
from harness.machine.tdx import Td
from harness.remote import LocalRemote
from harness.testing.no_tdx import TdHost, plain
from harness.verdict import Outcome

DESCRIPTOR = "/usr/share/qemu/firmware/60-tdx.json"
IMAGE = "/usr/share/ovmf/OVMF.inteltdx.fd"


def descriptor(path: object = IMAGE, device: str = "memory", features: object = ()) -> bytes:
    return json.dumps(
        {"mapping": {"device": device, "filename": path}, "features": features}
    ).encode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (DESCRIPTOR, IMAGE):
        (tmp_path / name[1:]).parent.mkdir(parents=True)
    return tmp_path


def put(root: Path, text: bytes = b"", image: bytes = b"") -> None:
    if text:
        (root / DESCRIPTOR[1:]).write_bytes(text)
    if image:
        (root / IMAGE[1:]).write_bytes(image)


def test_the_firmware_of_the_machine_is_brought_here(root: Path) -> None:
    put(root, descriptor(features=["intel-tdx"]), b"TDVF")
    td = td_of(TdHost(root), "here", None, root / "builds")
    assert td.firmware.read_bytes() == b"TDVF"
    assert td_of(TdHost(root), "here", None, root / "builds") == td


def test_a_firmware_that_is_named_is_taken_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own.fd"
    own.write_bytes(b"mine")
    assert td_of(TdHost(tmp_path), "here", own, tmp_path / "builds").firmware == own
    assert not (tmp_path / "builds").exists()
    with pytest.raises(ConfigError, match="no such file"):
        td_of(TdHost(tmp_path), "here", tmp_path / "none", tmp_path)


@pytest.mark.parametrize(
    ("parameter", "text", "image", "words"),
    [
        ("", b"", b"", "no TD can be started on tdx1: KVM's parameter tdx is missing"),
        ("N\n", b"", b"", "parameter tdx is N"),
        ("\x1b[2J", b"", b"", r"parameter tdx is \\x1b"),
        ("Y\n", b"", b"", "no firmware for TDs"),
        ("Y\n", descriptor(), b"", "cannot be read"),
        ("Y\n", descriptor(features=["secure-boot"]), b"none", "cannot be taken out"),
    ],
)
def test_what_a_machine_lacks_is_named(
    parameter: str, text: bytes, image: bytes, words: str, root: Path
) -> None:
    put(root, text, image)
    with pytest.raises(HostError, match=words):
        td_of(TdHost(root, parameter), "on tdx1", None, root)
    assert not list(root.glob("*-no-keys*"))


def test_this_machine_is_asked_too(tmp_path: Path) -> None:
    parameter = Path("/sys/module/kvm_intel/parameters/tdx")
    if parameter.exists() and parameter.read_text().strip() == "Y":
        pytest.skip("this machine starts TDs")
    with pytest.raises(HostError, match="no TD can be started"):
        td_of(LocalRemote(), "here", None, tmp_path)


@pytest.mark.parametrize(
    ("features", "has_keys"),
    [(["intel-tdx"], False), (["enrolled-keys", "intel-tdx"], True), (["secure-boot"], True)],
)
def test_the_descriptor_says_whether_secure_boot_is_on(features: list[str], has_keys: bool) -> None:
    assert described(descriptor(features=features), "x") == (IMAGE, has_keys)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, descriptor(device="flash"),
        descriptor(path="relative"), descriptor(path=7), descriptor(features=7),
    ],
)  # fmt: skip
def test_a_descriptor_that_is_none(text: bytes) -> None:
    with pytest.raises(HostError, match="describes no firmware"):
        described(text, "x")


def test_its_machine_is_kvm_s(tmp_path: Path) -> None:
    spec = MachineSpec(
        kernel=Path("/k"), initrd=Path("/i"), td_mode="tdx", td=Td(firmware=Path("/fw/tdvf.fd"))
    )
    paths = dict.fromkeys(
        ("transcript", "console_socket", "console_log", "events", "disk"), tmp_path
    )
    wiring = Wiring(qmp_fd=5, agent_fd=6, ssh_port=2222, sandbox=True, **paths)
    words = arguments(spec, wiring)
    for name, value in (("-accel", "kvm"), ("-cpu", "host"), ("-bios", "/fw/tdvf.fd")):
        assert [word for at, word in enumerate(words[1:]) if words[at] == name] == [value]
    assert "kernel-irqchip=split,confidential-guest-support=td,hpet=off" in words
    assert "-plugin" not in words
    # The same guest without TDX, for what it has to do with its firmware and its devices.
    left = plain(words)
    assert [word for word in words if word not in left] == [
        "kvm", "host", words[words.index("-object") + 1],
        "kernel-irqchip=split,confidential-guest-support=td,hpet=off",
    ]  # fmt: skip


def test_a_guests_word_is_no_evidence_where_there_is_a_stub() -> None:
    told = [{"name": "sh", "rc": 0, "output": "conversions=2\n"}]
    assert judge_slice((), "", told).outcome is Outcome.EMPTY
    assert judge_slice((), "", told, td_mode="none").outcome is Outcome.EMPTY
    assert judge_slice((), "", told, td_mode="tdx").outcome is Outcome.PASS

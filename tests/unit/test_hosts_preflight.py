# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host needs. The facts of a TDX host are composed from the kernel's sources and QEMU's
documentation, not recorded: no such machine was at hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.errors import HostError
from harness.hosts.config import Host
from harness.hosts.facts import Facts, facts_of
from harness.hosts.preflight import Grade, Line, fit, preflight, render
from harness.remote import MOST_BYTES, Answer, LocalRemote
from harness.report.text import console

TDX = Host(name="tdx1", address="192.0.2.7", mode="tdx", guests=4)
LOG = """\
virt/tdx: BIOS enabled: private KeyID range [16, 64)
virt/tdx: TDX module version: 1.5.16
virt/tdx: TDX-Module initialized
"""
GOOD = Facts(
    said={
        "cpuinfo": "flags\t\t: fpu sse4_2 tdx_host_platform\nbugs\t\t: tdx_pw_mce\n",
        "kernel": "6.18.2-lab\n",
        "tdx_parameter": "Y\n",
        "journal": LOG,
        "meminfo": "MemTotal: 263921000 kB\nMemAvailable: 250000000 kB\nHugePages_Free: 0\n",
        "qemu": "QEMU emulator version 11.1.0 (Debian 1:11.1.0)\n",
        "libvirt": "libvirtd (libvirt) 12.8.0\n",
        "firmware": "/usr/share/qemu/firmware/60-edk2-ovmf-x64-inteltdx.json\n",
        "rasdaemon": "active\n",
        "ntp": "yes\n",
    },
    msrs={"tme": 0x3, "seamrr": 0x800, "key_ids": 48 << 32 | 15, "refused": 0},
    skew_s=0.4,
)


def graded(host: Host, facts: Facts) -> dict[str, Line]:
    return {line.name: line for line in preflight(host, facts)}


def less(facts: Facts, **said: str | None) -> Facts:
    """The facts with other answers, or without those that are None."""
    kept = {**facts.said, **{name: text for name, text in said.items() if text is not None}}
    return replace(
        facts, said={name: kept[name] for name in kept if said.get(name, "") is not None}
    )


def test_a_host_that_has_all() -> None:
    lines = preflight(TDX, GOOD)
    assert fit(lines)
    assert {line.grade for line in lines} == {Grade.OK}
    assert len(lines) == 17
    assert not any(line.do for line in lines)
    found = graded(TDX, GOOD)
    assert found["module version"].found == "1.5.16"
    assert found["private KeyIDs"].found == "48"


@pytest.mark.parametrize(
    ("facts", "name", "do"),
    [
        (less(GOOD, cpuinfo="flags : fpu\n"), "processor", "firmware's setup"),
        (replace(GOOD, msrs={**GOOD.msrs, "tme": 1}), "TME", "firmware's setup"),
        (replace(GOOD, msrs={**GOOD.msrs, "seamrr": 0}), "SEAM", "firmware's setup"),
        (replace(GOOD, msrs={**GOOD.msrs, "refused": 5}), "firmware's check", "its own log"),
        (replace(GOOD, msrs={**GOOD.msrs, "key_ids": 4 << 32}), "private KeyIDs", "TME-MK"),
        (less(GOOD, tdx_parameter="N\n"), "kvm_intel", "kvm_intel tdx=1"),
        (less(GOOD, tdx_parameter=None), "kvm_intel", "kvm_intel tdx=1"),
        (less(GOOD, journal="virt/tdx: module not loaded\n"), "TDX module", "dmesg"),
        (less(GOOD, journal=LOG + "virt/tdx: initialization failed (-5)\n"), "TDX module", "dmesg"),
        (less(GOOD, kernel="6.12.95\n"), "kernel", "newer"),
        (less(GOOD, qemu="QEMU emulator version 10.0.2\n"), "qemu", "newer"),
        (less(GOOD, qemu=None), "qemu", "newer"),
        (less(GOOD, firmware=None), "TD firmware", "ovmf"),
        (less(GOOD, meminfo="MemTotal: 9 kB\nMemAvailable: 9 kB\n"), "memory", "runs there"),
    ],
)
def test_what_is_missing_makes_it_unfit(facts: Facts, name: str, do: str) -> None:
    line = graded(TDX, facts)[name]
    assert line.grade is Grade.FAIL
    assert do in line.do and line.needed
    assert not fit(preflight(TDX, facts))


@pytest.mark.parametrize(
    ("facts", "name", "grade"),
    [
        (replace(GOOD, msrs={}), "TME", Grade.UNKNOWN),
        (replace(GOOD, skew_s=-7200.0), "clock", Grade.WARN),
        (less(GOOD, ntp="no\n"), "time service", Grade.WARN),
        (less(GOOD, ntp=None), "time service", Grade.UNKNOWN),
        (less(GOOD, rasdaemon="inactive\n"), "rasdaemon", Grade.WARN),
        (less(GOOD, libvirt=None), "libvirt", Grade.WARN),
        (less(GOOD, journal=None), "TDX module", Grade.UNKNOWN),
        (less(GOOD, journal="virt/tdx: TDX-Module initialized\n"), "module version", Grade.UNKNOWN),
    ],
)
def test_what_is_not_known_or_a_comfort_does_not(facts: Facts, name: str, grade: Grade) -> None:
    assert graded(TDX, facts)[name].grade is grade
    assert fit(preflight(TDX, facts))


def test_key_ids_are_in_the_kernel_log_too() -> None:
    facts = replace(GOOD, msrs={})
    assert graded(TDX, facts)["private KeyIDs"].found == "48"
    assert graded(replace(TDX, key_ids=48), facts)["private KeyIDs"].grade is Grade.FAIL


def test_libvirt_is_needed_where_it_is_used() -> None:
    host = replace(TDX, libvirt="qemu:///system")
    assert (
        graded(host, less(GOOD, libvirt="libvirtd (libvirt) 9.0.0"))["libvirt"].grade is Grade.FAIL
    )


def test_a_stub_needs_little() -> None:
    host = Host(name="local")
    facts = Facts(said={"cpuinfo": "flags : sse4_2", "meminfo": "MemTotal: 9000000 kB\n"
                        "MemAvailable: 8000000 kB\n"}, skew_s=0.0)  # fmt: skip
    found = graded(host, facts)
    assert set(found) == {"processor", "memory", "clock", "time service", "rasdaemon"}
    assert fit(list(found.values()))
    assert not fit(preflight(host, less(facts, cpuinfo="flags : fpu")))


def test_answers_are_hostile_text(capsys: pytest.CaptureFixture[str]) -> None:
    evil = less(GOOD, rasdaemon="\x1b]0;x\x07[bold]" + "A" * 5000, kernel="\x1b[2J")
    console().print(render(TDX, preflight(TDX, evil)))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "[bold]" in shown
    assert max(map(len, shown.splitlines())) <= 100


class Lab(LocalRemote):
    """A machine with these answers, and no others."""

    def __init__(self, answers: dict[str, bytes], gone: bool = False) -> None:
        self.answers, self.gone = answers, gone

    def run(
        self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:  # fmt: skip
        if self.gone:
            raise HostError("no route")
        for words, out in self.answers.items():
            if words in " ".join(argv):
                return Answer(0, out[:max_bytes], b"", False)
        return Answer(1, b"", b"no such thing", False)


def test_facts_are_asked_for_in_words_that_change_nothing() -> None:
    remote = Lab({"true": b"", "uname -r": b"6.18\n", "skip=135 ": b"", "date": b"1000\n",
                  "skip=135": (48 << 32).to_bytes(8, "little"), "skip=160": b"short"})  # fmt: skip
    facts = facts_of(remote)
    assert facts.said["kernel"] == "6.18\n" and facts.version("kernel") == (6, 18)
    assert facts.msrs == {"key_ids": 48 << 32}
    assert facts.skew_s is not None and facts.skew_s < -1e9
    assert "qemu" not in facts.said


def test_a_host_that_does_not_answer_at_all() -> None:
    with pytest.raises(HostError, match="no route"):
        facts_of(Lab({}, gone=True))


def test_this_machine() -> None:
    facts = facts_of(LocalRemote())
    assert facts.version("kernel") >= (4,)
    assert facts.number("meminfo", r"MemTotal:\s+(\d+) kB")
    assert abs(facts.skew_s or 0.0) < 60

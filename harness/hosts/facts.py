# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host says of itself, asked in a few bounded commands that change nothing."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.remote import Remote

_TIMEOUT_S = 30.0
_MOST_BYTES = 256 << 10
# As Canonical's system-report.sh reads them to tell whether a machine is set up for TDX; the third
# is IA32_MKTME_KEYID_PARTITIONING, with the number of private KeyIDs in its upper half.
MSRS = {"tme": 0x982, "seamrr": 0x1401, "key_ids": 0x87, "refused": 0xA0}
# Answered Y where KVM starts TDs, and with the descriptors of firmware for them (QEMU's
# docs/interop/firmware.json).
TDX_PARAMETER = ("cat", "/sys/module/kvm_intel/parameters/tdx")
FIRMWARE = ("sh", "-c", "grep -ls intel-tdx /usr/share/qemu/firmware/*.json")
_ASKED: dict[str, tuple[str, ...]] = {
    "cpuinfo": ("head", "-c", "4096", "/proc/cpuinfo"),
    "kernel": ("uname", "-r"),
    "tdx_parameter": TDX_PARAMETER,
    "journal": ("journalctl", "-k", "-b", "--no-pager", "-o", "cat", "-g", "virt/tdx"),
    "dmesg": ("sh", "-c", "dmesg | grep virt/tdx | head -n 100"),
    "meminfo": ("cat", "/proc/meminfo"),
    "qemu": ("qemu-system-x86_64", "--version"),
    "libvirt": ("sh", "-c", "libvirtd --version || virtqemud --version"),
    "firmware": FIRMWARE,
    "rasdaemon": ("systemctl", "is-active", "rasdaemon"),
    "ntp": ("timedatectl", "show", "--property=NTPSynchronized", "--value"),
    "clock": ("date", "+%s"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Answers by the names above, without those of commands that failed."""

    said: dict[str, str] = field(default_factory=dict)
    # by the names of MSRS; none for one that could not be read
    msrs: dict[str, int] = field(default_factory=dict)
    # the host's clock less ours, to a second or so
    skew_s: float | None = None

    def number(self, name: str, pattern: str) -> int | None:
        """The number in the first match of an answer."""
        found = re.search(pattern, self.said.get(name, ""))
        return int(found[1]) if found else None

    def version(self, name: str) -> tuple[int, ...]:
        """The first version in an answer; empty when there is none."""
        found = re.search(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", self.said.get(name, ""))
        return tuple(int(part) for part in found.groups() if part) if found else ()


def facts_of(remote: Remote) -> Facts:
    """Ask a host. Raises HarnessError when it cannot be reached at all."""
    remote.run(["true"], timeout_s=_TIMEOUT_S)
    said = {name: text for name, argv in _ASKED.items() if (text := _ask(remote, argv)) is not None}
    clock = said.pop("clock", "").strip()
    skew_s = int(clock) - time.time() if clock.isdecimal() else None
    msrs = {name: _msr(remote, number) for name, number in MSRS.items()}
    read = {name: value for name, value in msrs.items() if value is not None}
    return Facts(said=said, msrs=read, skew_s=skew_s)


def _ask(remote: Remote, argv: Sequence[str]) -> str | None:
    try:
        answer = remote.run(argv, timeout_s=_TIMEOUT_S, max_bytes=_MOST_BYTES)
    except HarnessError:
        return None
    # systemctl says "inactive" and ends with 3.
    if answer.exit_code and argv[0] != "systemctl":
        return None
    return answer.stdout.decode("utf-8", "replace")


def _msr(remote: Remote, number: int) -> int | None:
    words = ["if=/dev/cpu/0/msr", "bs=8", "count=1", "iflag=skip_bytes", f"skip={number}"]
    try:
        answer = remote.run(["dd", "status=none", *words], timeout_s=_TIMEOUT_S)
    except HarnessError:
        return None
    if answer.exit_code or len(answer.stdout) != 8:
        return None
    return int.from_bytes(answer.stdout, "little")

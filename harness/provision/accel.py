# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether QEMU really runs a guest with an accelerator, found out by running one."""

import os
import tempfile
import time
from pathlib import Path

from harness import proc
from harness.provision.qemu import Qemu
from harness.timeouts import Deadline

TRIAL_TIMEOUT_S = 10.0
_WORD = 0x2A
# isa-debug-exit makes the exit status of QEMU from what the guest writes to its port.
_STATUS = _WORD << 1 | 1
_SECTOR = 512

# Loaded at 0x7c00 by the BIOS. It goes to long mode with its first 2 MiB mapped, as a kernel does,
# and takes a square root there: KVM without hardware virtualization lets a guest's boot code run
# in its instruction emulator, which knows no such instruction; a kernel would stop there as well.
_CODE = bytes.fromhex(
    "fa 31c0 8ed8 8ec0"  # cli; ds = es = 0
    "66bf00900000 0f22df"  # cr3 = edi = 0x9000
    "6631c0 b9000c fc 66f3ab"  # clear three pages of tables
    "c706009003a0 c70600a003b0 c70600b08300"  # 0x9000 -> 0xa000 -> 0xb000 -> 2 MiB at 0
    "0f20e0 0c20 0f22e0"  # cr4.PAE
    "66b9800000c0 0f32 80cc01 0f30"  # EFER.LME
    "0f20c0 660d01000080 0f22c0"  # cr0.PG and PE
    "0f01166d7c ea577c0800"  # lgdt at 0x7c6d; jump to 0x7c57 in a 64-bit segment
    "dbe3 d9e8 d9fa"  # fninit; fld1; fsqrt
    "0f20d8 0f22d8"  # flush the TLB
    "66ba0105 b02a ee f4 ebfd"  # out 0x501, 0x2a; halt
    "0f00787c0000 0f1f440000"  # for lgdt: 16 bytes at 0x7c78
    "0000000000000000 00000000009a2000"  # the null segment, a 64-bit code segment
)


def boot_sector() -> bytes:
    """A disk of one sector whose guest reaches long mode and ends QEMU."""
    return _CODE.ljust(_SECTOR - 2, b"\0") + b"\x55\xaa"


def refusal(
    qemu: Qemu, accel: str, *, sandbox: bool = False, timeout_s: float = TRIAL_TIMEOUT_S
) -> str | None:
    """Why QEMU cannot run a guest with this accelerator ("kvm", "tcg"); None when it can.

    With `sandbox` behind its filter of system calls. Raises HostError when QEMU cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="tdharness-") as name:
        disk = Path(name) / "disk"
        disk.write_bytes(boot_sector())
        argv = [*qemu.argv_prefix, "-machine", "pc", "-accel", accel, "-cpu", "max", "-m", "32"]
        argv += ["-nodefaults", "-display", "none", "-no-reboot"]
        argv += ["-device", "isa-debug-exit,iobase=0x501,iosize=1"]
        argv += ["-drive", f"file={disk},format=raw,if=floppy,readonly=on"]
        argv += ["-sandbox", "on"] if sandbox else []
        return _watch(argv, {**os.environ, **qemu.env}, Path(name) / "output", Deadline(timeout_s))


def _watch(argv: list[str], env: dict[str, str], output: Path, deadline: Deadline) -> str | None:
    with output.open("wb") as file:
        child = proc.spawn(argv, stdout=file, env=env)
    try:
        while child.poll() is None and not deadline.expired():
            if "KVM internal error" in _text(output):
                return "it cannot execute a guest's instructions (KVM internal error)"
            time.sleep(0.02)
    finally:
        still_running = child.poll() is None
        proc.kill_group(child)
    if still_running:
        return f"the guest did not get through its boot sector in {deadline.timeout_s:.0f} s"
    if child.returncode == _STATUS:
        return None
    words = _text(output).strip().splitlines() or [f"QEMU exited with {child.returncode}"]
    return words[-1]


def _text(path: Path) -> str:
    return path.read_text(errors="replace")[:10_000]

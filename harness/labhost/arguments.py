# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line for the lab host; pure."""

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness.labhost.image import Image
from harness.machine.arguments import SANDBOX, quoted

MEMORY_MIB = 2048
VCPUS = 2
# Sapphire Rapids, a processor with TDX: rasdaemon and the kernel decode machine checks by model.
_CPU = "max,vendor=GenuineIntel,family=6,model=143,stepping=8"
_CMDLINE = "console=ttyS0 systemd.show_status=false"


class Start(Enum):
    """From what the host starts, and whether what it writes is kept."""

    # its disk as it was built: a whole boot
    COLD = "cold"
    # the same, for the image's own first boot: its overlay is written
    FIRST = "first"
    # the moment that the first boot was saved at
    SAVED = "saved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Where QEMU's ends go: inherited file descriptors, paths, the forwarded port."""

    start: Start
    qmp_fd: int
    ssh_port: int
    console_socket: Path
    console_log: Path
    # not every host has it
    sandbox: bool
    # of the host's time stamp counter, as far as it is known
    tsc_khz: int | None


def arguments(image: Image, wiring: Wiring) -> list[str]:
    """QEMU's arguments behind the program; pure.

    restrict=on: what runs in the lab host reaches nothing outside it. snapshot=on: what it writes
    is kept in a temporary file of QEMU. Without -no-reboot: a host that resets boots again.
    """
    clock = f" tsc_early_khz={wiring.tsc_khz}" if wiring.tsc_khz else ""
    console = quoted(wiring.console_socket), quoted(wiring.console_log)
    words = ["-machine", "q35,smm=off,sata=off", "-accel", "tcg,thread=multi", "-cpu", _CPU]
    words += ["-m", str(MEMORY_MIB), "-smp", str(VCPUS)]
    words += ["-display", "none", "-nodefaults", "-no-user-config"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    words += ["-append", _CMDLINE + clock]
    words += [
        "-chardev",
        f"socket,id=con,path={console[0]},server=on,wait=off,logfile={console[1]}",
    ]
    words += ["-serial", "chardev:con"]
    words += ["-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}"]
    words += ["-object", "monitor-qmp,id=monitor,chardev=qmp"]
    words += ["-drive", f"id=disk,if=none,{_disk(image, wiring.start)}"]
    words += ["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"]
    # Tells the kernel that it is a copy, so that no two draw the same random numbers.
    words += ["-device", "vmgenid,guid=auto"]
    forward = f"hostfwd=tcp:127.0.0.1:{wiring.ssh_port}-:22"
    words += ["-netdev", f"user,id=net,restrict=on,{forward}"]
    words += ["-device", "virtio-net-pci,netdev=net,romfile="]
    if wiring.start is Start.SAVED:
        words += ["-incoming", f"file:{quoted(image.state)}"]
    return [*words, *(["-sandbox", SANDBOX] if wiring.sandbox else [])]


def _disk(image: Image, start: Start) -> str:
    """The file behind the disk. cache=unsafe: no copy outlives a power failure."""
    path, kind = (image.disk, "raw") if start is Start.COLD else (image.overlay, "qcow2")
    kept = "off" if start is Start.FIRST else "on"
    return f"file={quoted(path)},format={kind},cache=unsafe,snapshot={kept}"


def fingerprint() -> str:
    """Changes with the machine, whose saved state then is of no use any more."""
    nowhere = Path("/")
    image = Image(
        **dict.fromkeys(("disk", "overlay", "state", "kernel", "initrd", "key"), nowhere),
        boot_id="",
        host_key="",
    )
    wiring = Wiring(
        start=Start.FIRST,
        qmp_fd=0,
        ssh_port=0,
        console_socket=nowhere,
        console_log=nowhere,
        sandbox=True,
        tsc_khz=None,
    )
    return hashlib.sha256("\n".join(arguments(image, wiring)).encode()).hexdigest()[:16]

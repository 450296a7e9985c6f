# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line for a guest; pure."""

from dataclasses import dataclass
from pathlib import Path

from harness.machine.base import MachineSpec

MIB = 1 << 20
LOW_MEMORY = 2048 * MIB
_VIRTIO = "iommu_platform=on,disable-legacy=on"
# What a guest that breaks out of QEMU's devices could not do.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Where QEMU's ends go: inherited file descriptors, paths, the forwarded port."""

    qmp_fd: int
    agent_fd: int
    ssh_port: int
    console_socket: Path
    console_log: Path
    events: Path
    disk: Path
    # not every QEMU has it, nor every host
    sandbox: bool


def plugin_argument(spec: MachineSpec, events: Path) -> str:
    """QEMU's -plugin argument. Memory above 2 GiB lies above 4 GiB (see arguments())."""
    memory = spec.memory_mib * MIB
    below = min(memory, LOW_MEMORY)
    switches = f"track={_switch(spec.track)},single={_switch(spec.single_thread)}"
    if spec.fault:
        switches += f",fault={spec.fault}"
    if spec.vmm:
        switches += f",vmm={spec.vmm}"
    plugin, out = (_path(path) for path in (spec.plugin or Path(), events))
    return (
        f"{plugin},out={out},vcpus={spec.smp},below4g={below},above4g={memory - below},{switches}"
    )


def _switch(on: bool) -> str:
    return "on" if on else "off"


def arguments(spec: MachineSpec, wiring: Wiring) -> list[str]:
    """QEMU's arguments behind the program; pure.

    -cpu: without the vendor the kernel's AMD code resets what the TDX code found out, and without
    the level leaf 0x21 is out of range. smm=off: a TD has no SMM, and the plugin would not see
    the control registers that an SMI changes.
    """
    console = _path(wiring.console_socket), _path(wiring.console_log)
    words = ["-machine", f"q35,max-ram-below-4g={LOW_MEMORY},smm=off"]
    words += ["-accel", f"tcg,thread={'single' if spec.single_thread else 'multi'}"]
    words += ["-cpu", "max,vendor=GenuineIntel,level=0x21"]
    words += ["-m", str(spec.memory_mib), "-smp", str(spec.smp)]
    words += ["-no-reboot", "-display", "none", "-nodefaults", "-no-user-config"]
    words += ["-kernel", str(spec.kernel), "-initrd", str(spec.initrd), "-append", spec.cmdline]
    words += [
        "-chardev",
        f"socket,id=con,path={console[0]},server=on,wait=off,logfile={console[1]}",
    ]
    words += ["-serial", "chardev:con"]
    words += ["-chardev", f"socket,id=qmp,fd={wiring.qmp_fd}"]
    # -S: the guest waits for QMP's "cont", so that none of its events comes before we listen.
    words += ["-object", "monitor-qmp,id=monitor,chardev=qmp", "-S"]
    words += ["-device", f"virtio-serial-pci,{_VIRTIO}"]
    words += ["-chardev", f"socket,id=agent,fd={wiring.agent_fd}"]
    words += ["-device", "virtserialport,chardev=agent,name=tdharness.agent"]
    words += ["-device", "pvpanic-pci", "-device", "edu,dma_mask=0xffffffff"]
    words += ["-device", f"virtio-rng-pci,{_VIRTIO}"]
    words += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{wiring.ssh_port}-:22"]
    words += ["-device", f"virtio-net-pci,netdev=net,romfile=,{_VIRTIO}"]
    words += ["-drive", f"id=disk,file={_path(wiring.disk)},format=raw,if=none"]
    words += ["-device", "nvme,serial=tdharness,drive=disk"]
    if wiring.sandbox:
        words += ["-sandbox", _SANDBOX]
    if spec.td_mode == "stub":
        words += ["-plugin", plugin_argument(spec, wiring.events)]
    return words


def _path(path: Path) -> str:
    """A path inside a QEMU option, where a comma is written twice."""
    return str(path).replace(",", ",,")

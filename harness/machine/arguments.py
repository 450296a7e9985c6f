# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's command line for a guest; pure."""

from dataclasses import dataclass
from pathlib import Path

from harness.machine.base import MachineSpec
from harness.machine.tdx import Td, td_arguments

MIB = 1 << 20
LOW_MEMORY = 2048 * MIB
# An instruction takes 2^4 virtual ns. Less makes idle waits long (HLT of a TD returns at once, so
# waiting takes instructions), more makes the timer interrupt more of the work.
ICOUNT_SHIFT = 4
# A run that can be repeated has no device that QEMU's other threads serve, as they come at moments
# of their own, and none with a PCI BAR: two runs were the same to the microsecond until the guest
# sized BARs. That makes QEMU replace its memory map, and the thread that frees the old ones may
# interrupt the vCPU that runs, for the next to have its turn (QEMU's rr_force_rcu()).
_NO_BARS = ",sata=off,smbus=off"
# Of the guest's real-time clock at the start: any fixed moment will do.
_EPOCH = "2021-04-06T00:00:00"
CPU = "max,vendor=GenuineIntel,level=0x21"
_VIRTIO = "iommu_platform=on,disable-legacy=on"
# What a guest that breaks out of QEMU's devices could not do.
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Where QEMU's ends go: inherited file descriptors, paths, the forwarded port."""

    qmp_fd: int
    agent_fd: int
    # what a guest with a script writes, in place of the agent's port
    transcript: Path
    ssh_port: int
    console_socket: Path
    console_log: Path
    events: Path
    disk: Path
    # not every QEMU has it, nor every host
    sandbox: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainWiring:
    """Where the ends of a domain's QEMU go. libvirt hands no descriptors on: paths only."""

    # a socket that QEMU makes
    agent_socket: Path
    ssh_port: int
    console_log: Path
    events: Path
    disk: Path


def plugin_argument(spec: MachineSpec, events: Path) -> str:
    """QEMU's -plugin argument. Memory above 2 GiB lies above 4 GiB (see arguments())."""
    memory = spec.memory_mib * MIB
    below = min(memory, LOW_MEMORY)
    switches = f"track={_switch(spec.track)},single={_switch(spec.seed is not None)}"
    if spec.fault:
        switches += f",fault={spec.fault}"
    if spec.vmm:
        switches += f",vmm={spec.vmm}"
    plugin, out = (quoted(path) for path in (spec.plugin or Path(), events))
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
    console = quoted(wiring.console_socket), quoted(wiring.console_log)
    words = _td(spec.td) if spec.td else _emulated(spec)
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
    if spec.seed is None:
        words += _devices(f"socket,id=agent,fd={wiring.agent_fd}", wiring.ssh_port, wiring.disk)
    else:
        words += _transcript(wiring)
    if wiring.sandbox:
        words += ["-sandbox", SANDBOX]
    if spec.td_mode == "stub":
        words += ["-plugin", plugin_argument(spec, wiring.events)]
    return words


def domain_arguments(spec: MachineSpec, wiring: DomainWiring) -> list[str]:
    """What a libvirt domain (harness.machine.domain) needs besides; pure."""
    words = [] if spec.td else ["-machine", f"max-ram-below-4g={LOW_MEMORY}", "-cpu", CPU]
    agent = f"socket,id=agent,path={quoted(wiring.agent_socket)},server=on,wait=off"
    words += _devices(agent, wiring.ssh_port, wiring.disk)
    if spec.td_mode == "stub":
        words += ["-plugin", plugin_argument(spec, wiring.events)]
    return words


def _td(td: Td) -> list[str]:
    """The machine of a TD on hardware; the firmware's memory map is its own affair."""
    return ["-machine", "q35,smm=off", "-accel", "kvm", "-cpu", "host", *td_arguments(td)]


def _emulated(spec: MachineSpec) -> list[str]:
    bare = "" if spec.seed is None else _NO_BARS
    words = ["-machine", f"q35,max-ram-below-4g={LOW_MEMORY},smm=off{bare}"]
    return [*words, *_clock(spec), "-cpu", CPU]


def _clock(spec: MachineSpec) -> list[str]:
    """The accelerator, and where time and random numbers come from."""
    if spec.seed is None:
        return ["-accel", "tcg,thread=multi"]
    words = ["-accel", "tcg,thread=single", "-icount", f"shift={ICOUNT_SHIFT},sleep=off"]
    return [*words, "-rtc", f"base={_EPOCH},clock=vm", "-seed", str(spec.seed)]


def _devices(agent: str, ssh_port: int, disk: Path) -> list[str]:
    """Devices of a guest without a seed: see _NO_BARS for the others."""
    words = ["-device", "pvpanic-pci", "-device", "edu,dma_mask=0xffffffff"]
    words += ["-device", f"virtio-serial-pci,{_VIRTIO}"]
    words += ["-chardev", agent]
    words += ["-device", "virtserialport,chardev=agent,name=tdharness.agent"]
    words += ["-device", f"virtio-rng-pci,{_VIRTIO}"]
    words += ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{ssh_port}-:22"]
    words += ["-device", f"virtio-net-pci,netdev=net,romfile=,{_VIRTIO}"]
    words += ["-drive", f"id=disk,file={quoted(disk)},format=raw,if=none"]
    return [*words, "-device", "nvme,serial=tdharness,drive=disk"]


def _transcript(wiring: Wiring) -> list[str]:
    words = ["-chardev", f"file,id=transcript,path={quoted(wiring.transcript)}"]
    return [*words, "-serial", "chardev:transcript"]


def quoted(path: Path) -> str:
    """A path inside a QEMU option, where a comma is written twice."""
    return str(path).replace(",", ",,")

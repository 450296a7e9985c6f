# SPDX-License-Identifier: GPL-2.0-or-later
"""All that a run is made of, decided before it begins."""

from dataclasses import dataclass
from typing import Any

from harness.kernel.base import Kernel
from harness.machine.base import MachineSpec
from harness.provision.qemu import Qemu


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is made of. Timeouts are for a guest of two vCPUs, slower ones get more."""

    spec: MachineSpec
    kernel: Kernel
    qemu: Qemu
    # of the libvirt that starts the guest; "": QEMU is our child
    libvirt: str = ""
    scenario: str = "conversion"
    # names and selectors of what the stub ignores (harness.faults)
    fault: str = ""
    # names and selectors of how the VMM misbehaves (harness.vmm)
    vmm: str = ""
    # the guest traces its own conversions (harness.tracer)
    trace: bool = False
    # words behind `tdharness` that repeat the run
    repeat: tuple[str, ...] = ("run",)
    boot_timeout_s: float = 180.0
    # Of the console, before user space: a guest that hangs need not be waited for so long. It is
    # more than the 60 s after which NVMe's driver looks for itself: on a busy host QEMU has been
    # seen to lose the interrupt of an admin command ("timeout, completion polled").
    silence_timeout_s: float = 90.0


def first_facts(plan: Plan) -> dict[str, Any]:
    """What run.json says from the start; the session adds what happens."""
    spec = plan.spec
    return {
        "schema": 1,
        "scenario": plan.scenario,
        "td_mode": spec.td_mode,
        "kernel": plan.kernel.to_json(),
        "smp": spec.smp,
        "memory_mib": spec.memory_mib,
        "cmdline": spec.cmdline,
        "fault": plan.fault,
        "fault_option": spec.fault,
        "vmm": plan.vmm,
        "vmm_option": spec.vmm,
        "seed": spec.seed,
        "trace": plan.trace,
        "patience": spec.patience,
        "qemu": qemu_facts(plan.qemu),
        "libvirt": plan.libvirt,
        "plugin": str(spec.plugin) if spec.plugin else None,
        "planned_stop": False,
        "guest_failures": [],
        "harness_errors": [],
        "timings": {},
    }


def qemu_facts(qemu: Qemu) -> dict[str, Any]:
    """What run.json says of a QEMU."""
    return {"argv_prefix": list(qemu.argv_prefix), "version": qemu.version}

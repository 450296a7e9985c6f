# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest runs on: the specification, and the small protocol that every launcher serves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.agent import Agent
from harness.console import Console
from harness.errors import ConfigError
from harness.machine.tdx import Td
from harness.provision.qemu import Qemu

TD_MODES = ("stub", "tdx", "none")
MOST_VCPUS = 8
MOST_PATIENCE = 1000
# With a seed: virtual time is in nanoseconds, and so is the time stamp counter.
VIRTUAL_TSC_KHZ = 1_000_000
# Of the NVMe disk that every guest has.
DISK_BYTES = 16 << 20
MIN_MEMORY_MIB, MOST_MEMORY_MIB = 512, 8192
# The console, from the first moment on: a kernel that panics at once has to be heard. A panic ends
# QEMU (-no-reboot). Hardware with TDX needs no page table isolation, so its kernels run without.
CMDLINE = "console=ttyS0 earlyprintk=ttyS0 panic=-1 pti=off"
# The kernel's own: half of the time to a soft lockup, and that to a stall of RCU.
_WATCHDOG_THRESH_S, _STALL_S = 10, 21


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """One guest to be started."""

    kernel: Path
    initrd: Path
    smp: int = 2
    memory_mib: int = 1024
    # "stub": a TD under the plugin; "tdx": one on hardware; "none": the same machine as a plain VM
    td_mode: str = "stub"
    plugin: Path | None = None
    # what a TD on hardware is measured by
    td: Td | None = None
    # off: emulate the TDX module only, to measure what the tracking costs
    track: bool = True
    extra_cmdline: str = ""
    # the plugin's option of what the guest does in vain (harness.faults); "": nothing
    fault: str = ""
    # the plugin's option of how its VMM misbehaves (harness.vmm); "": not at all
    vmm: str = ""
    # of the host's time stamp counter (harness.machine.tsc); None: the guest measures it
    tsc_khz: int | None = None
    # for a run that can be repeated: one host thread for all vCPUs, virtual time counted in
    # instructions, random numbers from this seed, no device that works at the host's pace
    seed: int | None = None
    # how many times longer all may take than on an idle machine: where QEMU is itself emulated
    patience: float = 1.0

    def __post_init__(self) -> None:
        """Raises ConfigError for what cannot be started."""
        if self.td_mode not in TD_MODES:
            raise ConfigError(
                f"no TD mode {self.td_mode!r}", hint=f"choose one of {', '.join(TD_MODES)}"
            )
        check_size(self.smp, self.memory_mib)
        check_patience(self.patience)
        if self.td_mode == "stub" and self.plugin is None:
            raise ConfigError("the stub needs its plugin")
        if (self.td_mode == "tdx") != (self.td is not None):
            raise ConfigError("a TD on hardware, and no other guest, has a firmware of its own")
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            raise ConfigError(f"{self.seed} is no seed: from 0 to 2^64 - 1 can be given")

    @property
    def cmdline(self) -> str:
        """The kernel's command line."""
        tsc_khz = self.tsc_khz if self.seed is None else VIRTUAL_TSC_KHZ
        clock = f"tsc_early_khz={tsc_khz}" if tsc_khz else ""
        # The firmware polls devices that work at the host's pace, so the time at which the kernel
        # draws its place in memory is not always the same.
        place = "nokaslr" if self.seed is not None else ""
        words = (CMDLINE, clock, place, _watchdogs(_slowness(self)), self.extra_cmdline)
        return " ".join(word for word in words if word)


def _watchdogs(times: float) -> str:
    """The kernel's own watchdogs, for more vCPUs than most hosts have for one guest; or nothing.

    A clean kernel of 8 vCPUs on two CPUs that others used has reported a soft lockup of 26 s.
    """
    if times <= 1:
        return ""
    lockup_s, stall_s = (round(kernel_s * times) for kernel_s in (_WATCHDOG_THRESH_S, _STALL_S))
    return f"watchdog_thresh={lockup_s} rcupdate.rcu_cpu_stall_timeout={stall_s}"


def check_size(smp: int, memory_mib: int) -> None:
    """Raises ConfigError for a size of guest that cannot be started."""
    if not 1 <= smp <= MOST_VCPUS:
        raise ConfigError(f"{smp} vCPUs: from 1 to {MOST_VCPUS} can be started")
    if not MIN_MEMORY_MIB <= memory_mib <= MOST_MEMORY_MIB or memory_mib % 2:
        raise ConfigError(
            f"{memory_mib} MiB of memory: an even number from {MIN_MEMORY_MIB} to "
            f"{MOST_MEMORY_MIB} can be given"
        )


def check_patience(patience: float) -> None:
    """Raises ConfigError for one that nobody has."""
    if not 1.0 <= patience <= MOST_PATIENCE:
        raise ConfigError(f"a patience of {patience:g}: from 1 to {MOST_PATIENCE} can be given")


def slowness(spec: MachineSpec) -> float:
    """How many times longer things take than with two vCPUs, at worst, for scaling deadlines."""
    return _slowness(spec) * (1.0 if spec.seed is None else 4.0)


def _slowness(spec: MachineSpec) -> float:
    return max(1.0, spec.smp / 2) * spec.patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a machine ended. Orderly: the guest or the harness asked for it, nothing failed."""

    orderly: bool
    # what failed, with QEMU's own last words if it said any; or who asked: "guest-reset" and so on
    words: str


class Monitor(Protocol):
    """QMP of a machine; documented in harness.qmp."""

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = 5.0
    ) -> Any:
        """The command's return value. Raises MachineError."""

    def human(self, command: str, *, timeout_s: float = 5.0) -> str:
        """Output of a command of QEMU's human monitor. Raises MachineError."""


class Machine(Protocol):
    """A VM process, or a domain that stands for one."""

    console: Console
    ssh_port: int
    # a directory for what must not outlive the guest, removed by stop()
    private: Path
    # of the console, during which the guest counts as alive; None: for ever
    most_silence_s: float | None
    # that runs it: known from its start on
    qemu: Qemu

    @property
    def qmp(self) -> Monitor:
        """The monitor, while it runs."""

    @property
    def agent(self) -> Agent:
        """The guest's agent, while it runs."""

    def start(self) -> None:
        """Start it. Raises HostError, MachineError."""

    def alive(self) -> bool:
        """Whether the VM process runs."""

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; false when it still runs."""

    def ending(self) -> Ending | None:
        """How it ended; None while it runs, or when it was never started."""

    def settle(self) -> None:
        """Have all evidence so far in the run directory. Raises HostError."""

    def diagnose(self) -> str:
        """What can be learned of a guest that hangs: last words, status, vCPU state."""

    def stop(self) -> None:
        """End it so that the evidence is whole, or else end it; safe to call twice."""

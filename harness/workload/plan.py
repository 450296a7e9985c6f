# SPDX-License-Identifier: GPL-2.0-or-later
"""The steps of the workloads: data only, no way to run them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness import faults, vmm
from harness.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command in the guest, judged by what happened between its marks."""

    name: str
    # one line for the guest's shell; `tdh` and `device` are programs of the image
    command: str
    timeout_s: float = 60.0
    # rule ids that the step breaks on purpose
    expected_rules: tuple[str, ...] = ()
    # the command itself must fail: its own check is what is being tried
    must_fail: bool = False
    # smaller guests leave it out
    min_cpus: int = 1
    # has no meaning, or would crash, in a plain VM
    needs_td: bool = False
    # breaks a rule that only the stub sees broken
    needs_stub: bool = False
    # uses a PCI device: a guest with a seed has none
    needs_device: bool = False
    # another kernel runs in the guest once the command has ended
    restarts: bool = False
    # of the marks around it; None: the session's next
    mark: int | None = None


def _fault(
    name: str,
    *rules: str,
    must_fail: bool = False,
    cpus: int = 1,
    stub: bool = True,
    device: bool = False,
) -> Step:
    return Step(
        name=f"fault-{name}",
        command=f"tdh fault name={name}",
        expected_rules=rules,
        must_fail=must_fail,
        min_cpus=cpus,
        needs_stub=stub,
        needs_device=device,
    )


CONVERSION = (
    Step(name="convert-4k", command="tdh convert size=4K cycles=3"),
    Step(name="convert-64k", command="tdh convert size=64K cycles=3"),
    Step(name="convert-2m", command="tdh convert size=2M cycles=2"),
    Step(name="convert-4m", command="tdh convert size=4M"),
    # 64 KiB on either side of a 2 MiB boundary
    Step(name="straddle-2m", command="tdh convert size=128K block=4M offset=1984K cycles=2"),
    # one page in the middle of what is mapped as one large page
    Step(name="split-large-page", command="tdh convert size=4K block=2M offset=1M cycles=2"),
    Step(name="repeat-4k", command="tdh convert size=4K cycles=20"),
    Step(name="one-cpu-64k", command="tdh convert size=64K cpus=1 cycles=2"),
    Step(name="parallel-4k", command="tdh parallel size=4K cycles=10", min_cpus=2),
    Step(name="parallel-64k", command="tdh parallel size=64K cycles=5", min_cpus=2),
    Step(name="parallel-2m", command="tdh parallel size=2M", min_cpus=2),
)

DMA = (
    Step(name="coherent-4k", command="tdh coherent size=4K cycles=3"),
    Step(name="coherent-64k", command="tdh coherent size=64K cycles=3"),
    Step(name="coherent-1m", command="tdh coherent size=1M"),
    Step(name="atomic-pool", command="tdh atomic count=8"),
    Step(name="stream-4k", command="tdh stream size=4K"),
    Step(name="stream-64k", command="tdh stream size=64K"),
    Step(name="stream-unaligned", command="tdh stream size=1234"),
    Step(name="edu-coherent", command="tdh edu method=coherent", needs_device=True),
    Step(name="edu-stream", command="tdh edu method=stream", needs_device=True),
    Step(name="edu-stream-unaligned", command="tdh edu method=stream size=1234", needs_device=True),
)

DEVICES = (
    Step(name="rng-use", command="device use rng", needs_device=True),
    Step(name="net-use", command="device use net", needs_device=True),
    Step(name="nvme-use", command="device use nvme", needs_device=True),
    Step(name="rng-rebind", command="device rebind rng 2", needs_device=True),
    Step(name="net-rebind", command="device rebind net 2", needs_device=True),
    Step(name="nvme-rebind", command="device rebind nvme 2", needs_device=True),
)

KEXEC = (
    Step(name="kexec-first", command="tdh convert size=64K", needs_td=True),
    Step(name="kexec", command="second-kernel", timeout_s=120.0, needs_td=True, restarts=True),
    Step(name="kexec-second", command="tdh convert size=64K", needs_td=True),
    Step(name="kexec-stream", command="tdh stream size=64K", needs_td=True),
)

FAULTS = (
    _fault("no-cache-flush", "guest-cache-flush"),
    _fault("no-tlb-flush", "guest-tlb-flush"),
    _fault("local-tlb-flush", "guest-tlb-flush", cpus=2),
    _fault("used-stale", "guest-tlb-flush"),
    _fault("private-access", "private-access-to-shared"),
    _fault("shared-access", "shared-access-to-private"),
    _fault("unaccepted", "unaccepted-access"),
    _fault("double-accept", "double-accept"),
    _fault("accept-shared", "accept-shared"),
    _fault("bad-tdcall", "tdcall-contract"),
    _fault("redundant-flush", "redundant-flush"),
    _fault("dma-mismatch", "dma-data", must_fail=True, stub=False, device=True),
    _fault("warn", "kernel-log", stub=False),
    # last: an oops taints what comes after it
    _fault("oops", "kernel-log", stub=False),
)

# What a guest does unless it is asked for something else.
NORMAL = ("conversion", "dma", "devices")
WORKLOADS: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {"conversion": CONVERSION, "dma": DMA, "devices": DEVICES, "kexec": KEXEC, "faults": FAULTS}
)


def injected_steps(injections: Iterable[faults.Injection], *, cpus: int) -> tuple[Step, ...]:
    """A step for each fault that has a mark: it runs what the fault is tried with."""
    return tuple(
        Step(
            name=f"injected-{one.fault.name}",
            command=one.fault.command,
            expected_rules=one.fault.rules,
            must_fail=one.fault.must_fail,
            min_cpus=one.fault.min_cpus,
            needs_stub=True,
            mark=one.mark,
        )
        for one in injections
        if one.mark is not None and one.fault.min_cpus <= cpus
    )


def misbehaviour_steps(shown: Iterable[vmm.Misbehaviour]) -> tuple[Step, ...]:
    """A step for each way to misbehave that has a mark: it runs what it is tried with."""
    return tuple(
        Step(
            name=f"vmm-{one.behaviour.name}",
            command=one.behaviour.command,
            expected_rules=one.behaviour.rules,
            must_fail=one.behaviour.fails,
            needs_stub=True,
            mark=one.mark,
        )
        for one in shown
        if one.mark is not None
    )


def steps_for(
    names: Iterable[str], *, cpus: int, td_mode: str = "stub", devices: bool = True
) -> tuple[Step, ...]:
    """The steps of these workloads that a guest of this kind (MachineSpec.td_mode) can run.

    Raises ConfigError for a name that is no workload.
    """
    steps: list[Step] = []
    for name in names:
        if name not in WORKLOADS:
            raise ConfigError(
                f"there is no workload {name!r}", hint=f"choose from {', '.join(WORKLOADS)}"
            )
        steps += WORKLOADS[name]
    return tuple(
        step
        for step in steps
        if step.min_cpus <= cpus
        and (td_mode != "none" or not step.needs_td)
        and (td_mode == "stub" or not step.needs_stub)
        and (devices or not step.needs_device)
    )

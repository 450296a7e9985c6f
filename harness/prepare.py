# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a user asked for to a Plan: provision, build the plugin, the module and the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import faults, secondkernel, vmm
from harness.errors import ConfigError
from harness.image import build_initramfs
from harness.kernel.base import Kernel, check_efi, inspect_kernel
from harness.kernel.module import build_module
from harness.machine.base import MachineSpec, check_patience, check_size
from harness.machine.tdx import Td
from harness.machine.tsc import host_tsc_khz
from harness.plan import Plan
from harness.provision.cache import cache_dir
from harness.provision.kernels import DEFAULT_SERIES
from harness.provision.setup import Provisioned, setup
from harness.provision.tools import kexec_files
from harness.remote import LocalRemote
from harness.session import Progress
from harness.stub.build import build_plugin
from harness.symbols import read_kernel
from harness.workload import Step, commands_of, script_of

STOCK = "stock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asked for, before anything was looked at."""

    # "stock", "stock:7", or the path of a bzImage
    kernel: str = STOCK
    td_mode: str = "stub"
    smp: int = 2
    memory_mib: int = 1024
    extra_cmdline: str = ""
    qemu: Path | None = None
    track: bool = True
    # what the stub ignores (harness.faults.parse)
    fault: str = ""
    # how the stub's VMM misbehaves (harness.vmm.parse)
    vmm: str = ""
    # of a run that can be repeated; None: vCPUs run in parallel
    seed: int | None = None
    # of a TD on hardware; None: what the machine has for TDs
    firmware: Path | None = None
    # the URI of the libvirt that starts the guest; "": QEMU is our child
    libvirt: str = ""
    # how many times longer all may take (MachineSpec)
    patience: float = 1.0
    # the guest traces its own conversions; None: where nobody else sees them
    trace: bool | None = None

    @property
    def traces(self) -> bool:
        """Whether the guest traces its own conversions."""
        return self.td_mode == "tdx" if self.trace is None else self.trace

    def words(self) -> tuple[str, ...]:
        """The options of `tdharness run` that ask for this again."""
        words = ["--kernel", self.kernel, "--td-mode", self.td_mode]
        words += ["--smp", str(self.smp), "--memory", str(self.memory_mib)]
        if self.extra_cmdline:
            words += ["--cmdline", self.extra_cmdline]
        if self.qemu:
            words += ["--qemu", str(self.qemu)]
        if self.fault:
            words += ["--fault", self.fault]
        if self.vmm:
            words += ["--vmm", self.vmm]
        if self.seed is not None:
            words += ["--seed", str(self.seed)]
        if self.firmware:
            words += ["--firmware", str(self.firmware)]
        if self.libvirt:
            words += ["--libvirt", self.libvirt]
        if self.patience != 1.0:
            words += ["--patience", f"{self.patience:g}"]
        if self.trace is not None:
            words += ["--guest-trace" if self.trace else "--no-guest-trace"]
        return tuple(words)


def series_of(kernel: str) -> str | None:
    """The stock series that a kernel word names; None for a path."""
    word, _, series = kernel.partition(":")
    return (series or DEFAULT_SERIES) if word == STOCK else None


def prepare(
    request: Request,
    progress: Progress,
    *,
    scenario: str = "conversion",
    steps: Sequence[Step] = (),
) -> Plan:
    """Everything built and in its place. Raises ConfigError, HostError, BuildError.

    `steps` are needed where the image depends on them: with a seed, and with a second kernel.
    """
    series = series_of(request.kernel)
    restarts = _restarts(steps)
    # What the user got wrong is said before anything is fetched.
    _check(request, restarts)
    injections, shown = _asked_of_stub(request)
    named = None if series else _named(request)
    td = _td(request) if request.td_mode == "tdx" else None
    progress("checking the cache")
    given = setup(series or DEFAULT_SERIES, qemu_path=request.qemu)
    kernel = named or Kernel.of_stock(given.kernel)
    progress("checking the plugin, the module and the image")
    module = _module(kernel, given, series)
    spec = MachineSpec(
        kernel=kernel.image,
        initrd=_image(request, steps, given.guest_root, kernel, module),
        smp=request.smp,
        memory_mib=request.memory_mib,
        td_mode=request.td_mode,
        plugin=_plugin(given) if request.td_mode == "stub" else None,
        td=td,
        track=request.track,
        fault=_fault_option(injections, kernel),
        vmm=vmm.plugin_option(shown),
        extra_cmdline=_joined(request.extra_cmdline, secondkernel.CMDLINE if restarts else ""),
        # A TD on hardware is told by the TDX module.
        tsc_khz=None if td else host_tsc_khz(),
        seed=request.seed,
        patience=request.patience,
    )
    return Plan(
        spec=spec,
        kernel=kernel,
        qemu=given.qemu,
        libvirt=request.libvirt,
        scenario=scenario,
        fault=request.fault,
        vmm=request.vmm,
        trace=request.traces,
        repeat=("run", *request.words()),
    )


def _check(request: Request, restarts: bool) -> None:
    """Raises ConfigError for a guest that cannot be started."""
    check_size(request.smp, request.memory_mib)
    check_patience(request.patience)
    if restarts and request.seed is not None:
        raise ConfigError("a guest with a seed starts no second kernel: leave kexec or --seed out")
    if request.td_mode == "tdx" and request.seed is not None:
        raise ConfigError("a TD on hardware cannot be repeated: leave --seed out")
    if request.trace and (request.td_mode == "none" or request.seed is not None):
        raise ConfigError("no trace of a plain VM, nor with a seed: leave --guest-trace out")
    if request.firmware and request.td_mode != "tdx":
        raise ConfigError("only a TD on hardware has a firmware of its own: --td-mode tdx")


def _named(request: Request) -> Kernel:
    """The kernel of an image. Raises ConfigError for one that cannot run in this mode."""
    kernel = inspect_kernel(Path(request.kernel), td=request.td_mode != "none")
    if request.td_mode == "tdx":
        check_efi(kernel.image)
    return kernel


def _td(request: Request) -> Td:
    """The TD as the machine that starts it has it. Raises HostError, ConfigError."""
    from harness.hosts.ssh import SshRemote, host_of
    from harness.machine.tdhost import td_of

    host = host_of(request.libvirt)
    if not host:
        return td_of(LocalRemote(), "here", request.firmware, _builds())
    with SshRemote(host) as remote:
        return td_of(remote, f"on {host.address}", request.firmware, _builds())


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))


def _asked_of_stub(
    request: Request,
) -> tuple[Sequence[faults.Injection], Sequence[vmm.Misbehaviour]]:
    """What the stub is to do wrong. Raises ConfigError."""
    injections, shown = faults.parse(request.fault), vmm.parse(request.vmm)
    if (injections or shown) and request.td_mode != "stub":
        raise ConfigError("faults and misbehaviour are made by the stub: they need --td-mode stub")
    return injections, shown


def _fault_option(injections: Sequence[faults.Injection], kernel: Kernel) -> str:
    named = any(one.selector.caller for one in injections)
    files = read_kernel(kernel.image.read_bytes(), None) if named else None
    return faults.plugin_option(injections, files.functions if files else None)


def _plugin(given: Provisioned) -> Path:
    return build_plugin(given.buildroot, cache_dir=_builds())


def _builds() -> Path:
    return cache_dir() / "builds"


def _restarts(steps: Sequence[Step]) -> bool:
    return any(step.restarts for step in steps)


def _image(
    request: Request, steps: Sequence[Step], guest_root: Path, kernel: Kernel, module: Path
) -> Path:
    return build_initramfs(
        guest_root,
        kernel,
        module,
        cache_dir=_builds(),
        script=None if request.seed is None else script_of(commands_of(steps)),
        more=secondkernel.entries(kernel.image, kexec_files()) if _restarts(steps) else (),
    )


def _module(kernel: Kernel, given: Provisioned, series: str | None) -> Path:
    buildroot = given.kernel.headers_buildroot if series else given.buildroot
    return build_module(kernel, buildroot, cache_dir=_builds())

# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine has, what that is good for, and the command that mends what is missing."""

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from harness.errors import HarnessError
from harness.provision import accel, apt, buildroot, kernels, qemu, tools
from harness.provision.cache import Store, megabytes
from harness.text import without_password

SETUP = "tdharness setup"
# Measured: a setup with both kernel series, from nothing.
_SPACE = 3_000_000_000
_MEMORY = 2_000_000_000
_CORES = 2
LIBVIRT_MEND = "apt-get install libvirt-dev pkg-config gcc; harness/bootstrap setup"
_SHUT_IN = "guests that break out of QEMU"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `mend` is the command to run when it is not ok."""

    name: str
    found: str
    good_for: str
    ok: bool
    mend: str | None = None
    # False: the default run does without it
    needed: bool = True


def diagnose(store: Store | None = None) -> list[Check]:
    """All checks, in the order in which a setup needs them. Downloads and changes nothing."""
    store = store or Store()
    steps: list[Callable[[Store], Iterator[Check]]] = [
        _python,
        _user,
        _apt,
        _namespaces,
        _git,
        _disk,
        _memory,
        _cores,
        _qemu,
        _kernels,
        _guest_files,
        _libvirt,
        _tdx,
    ]
    return [check for step in steps for check in step(store)]


def usable(checks: list[Check]) -> bool:
    """Whether all that the default run needs is there."""
    return all(check.ok for check in checks if check.needed)


def render(checks: list[Check]) -> Table:
    """The checks as a table of at most 100 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=100)
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("found", ratio=4, overflow="fold")
    table.add_column("good for", ratio=2)
    table.add_column("to mend it", ratio=3, overflow="fold")
    for check in checks:
        word, style = ("ok", "green") if check.ok else ("no", "yellow")
        if check.needed and not check.ok:
            word, style = "missing", "bold red"
        # Text, not markup: what was found may hold brackets
        cells = (check.name, check.found, check.good_for, "" if check.ok else check.mend or "")
        table.add_row(Text(word, style), *map(Text, cells))
    return table


def _python(_: Store) -> Iterator[Check]:
    version = platform.python_version()
    yield Check("Python", f"{version}, {sys.executable}", "the harness", True)


def _user(_: Store) -> Iterator[Check]:
    root = os.geteuid() == 0
    found = "root: QEMU runs as root too, behind its seccomp filter" if root else "not root"
    mend = "run tdharness as a user of its own: nothing in it takes root"
    yield Check("user", found, _SHUT_IN, not root, mend, needed=False)


def _apt(_: Store) -> Iterator[Check]:
    good_for = "QEMU, kernels, compilers from Debian"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        yield Check("apt", "no apt-get or dpkg-deb", good_for, False, "use a Debian machine")
        return
    try:
        archive = without_password(apt.mirror())
        found, mend = f"{archive}, verified by {apt.keyring().name}", None
    except HarnessError as error:
        found, mend = error.message, error.hint
    yield Check("apt", found, good_for, mend is None, mend)


def _namespaces(_: Store) -> Iterator[Check]:
    try:
        found, mend = " ".join(buildroot.namespaces()), None
    except HarnessError as error:
        found, mend = error.message, error.hint
    yield Check("mount namespace", found, "building plugin and guest module", mend is None, mend)


def _git(_: Store) -> Iterator[Check]:
    path = shutil.which("git")
    found, mend = path or "no git", "apt-get install git"
    yield Check("git", found, "building kernels", path is not None, mend, needed=False)


def _disk(store: Store) -> Iterator[Check]:
    place = store.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    enough = free >= _SPACE or kernels.find(kernels.DEFAULT_SERIES, store) is not None
    mend = f"make room for {megabytes(_SPACE)}, or set $TDHARNESS_CACHE to another disk"
    yield Check("disk", f"{megabytes(free)} free at {place}", "the cache", enough, mend)


def _memory(_: Store) -> Iterator[Check]:
    match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    free = int(match[1]) * 1024 if match else 0
    mend = "end other programs, or give the guest less with --memory"
    yield Check("memory", f"{megabytes(free)} free", "a guest of 1 GiB", free >= _MEMORY, mend)


def _cores(_: Store) -> Iterator[Check]:
    count = len(os.sched_getaffinity(0))
    mend = "--smp 1; findings on other vCPUs need two"
    yield Check("cores", str(count), "guests with 2 vCPUs", count >= _CORES, mend, needed=False)


def _qemu(store: Store) -> Iterator[Check]:
    good_for = f"the stub (plugin API {qemu.PLUGIN_API})"
    found = qemu.find(store)
    if found is None:
        yield Check("QEMU", "none that the stub can use", good_for, False, SETUP)
        yield Check("seccomp", "not tried: no QEMU", _SHUT_IN, False, SETUP, needed=False)
        yield Check("KVM", "not tried: no QEMU", "plain VMs", False, SETUP, needed=False)
        return
    refusal = accel.refusal(found, "tcg")
    text = f"{found.version}, {found.origin}"
    yield Check("QEMU", text if not refusal else f"{text}: {refusal}", good_for, not refusal, SETUP)
    yield seccomp(found)
    yield kvm(found)


def seccomp(found: qemu.Qemu) -> Check:
    """Whether this QEMU filters its own system calls here; guests run without if it does not."""
    mend = "a QEMU that is built with seccomp, and a kernel or container that allows the filter"
    refusal = accel.refusal(found, "tcg", sandbox=True)
    words = f"no filter: {refusal}" if refusal else "QEMU runs behind its filter"
    return Check("seccomp", words, _SHUT_IN, not refusal, mend, needed=False)


def kvm(found: qemu.Qemu, node: Path = Path("/dev/kvm")) -> Check:
    """Whether this QEMU runs a guest on KVM; the node alone says little."""
    good_for = "plain VMs at full speed"
    mend = "a machine with hardware virtualization; the stub does without"
    if not node.exists():
        return Check("KVM", f"no {node}", good_for, False, mend, needed=False)
    if not os.access(node, os.R_OK | os.W_OK):
        mend = f"as root: adduser {os.environ.get('USER', '<user>')} kvm, then log in again"
        return Check("KVM", f"{node} is not open to you", good_for, False, mend, needed=False)
    refusal = accel.refusal(found, "kvm")
    words = f"{node} is there, but {refusal}" if refusal else "ran a guest"
    return Check("KVM", words, good_for, not refusal, mend, needed=False)


def _kernels(store: Store) -> Iterator[Check]:
    for series in kernels.SERIES:
        kernel = kernels.find(series, store)
        default = series == kernels.DEFAULT_SERIES
        mend = SETUP if default else f"{SETUP} --kernel stock:{series}"
        found = kernel.release if kernel else "not in the cache"
        good_for = "the stock kernel, its headers"
        yield Check(f"Linux {series}", found, good_for, bool(kernel), mend, needed=default)


def _guest_files(store: Store) -> Iterator[Check]:
    tree = tools.find(store)
    found = str(tree) if tree else "not in the cache"
    yield Check("guest programs", found, "busybox and ssh in the guest", bool(tree), SETUP)


def _libvirt(_: Store) -> Iterator[Check]:
    there = importlib.util.find_spec("libvirt") is not None
    found = "libvirt-python" if there else "no libvirt-python"
    yield Check("libvirt", found, "guests by --libvirt URI", there, LIBVIRT_MEND, needed=False)


def _tdx(_: Store) -> Iterator[Check]:
    good_for = "TDs on hardware"
    mend = "a CPU with TDX, enabled in the firmware, and kvm_intel.tdx=1; the stub does without"
    parameter = Path("/sys/module/kvm_intel/parameters/tdx")
    enabled = parameter.exists() and parameter.read_text().strip() in ("Y", "1")
    flags = Path("/proc/cpuinfo").read_text()
    if enabled:
        found = "KVM can make TDs"
    elif "tdx_guest" in flags:
        found = "this machine is itself a TD"
    elif "tdx_host_platform" in flags:
        found = "the CPU has it, KVM does not use it"
    else:
        found = "none"
    yield Check("TDX", found, good_for, enabled, mend, needed=False)

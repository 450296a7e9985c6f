# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host needs, held against what it says: one line each, with what to do about it."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from rich import box
from rich.table import Table
from rich.text import Text

from harness.hosts.config import Host
from harness.hosts.facts import Facts
from harness.text import printable

_MOST_SKEW_S = 5.0
_KIB_PER_MIB = 1024
# KVM runs TDs since 6.16; QEMU since 10.1; libvirt's domains know them since 11.6.
_KERNEL, _QEMU, _LIBVIRT = (6, 16), (10, 1), (11, 6)
_ROLES = "ansible/site.yml does it"


class Grade(StrEnum):
    """Of one line; a host is fit when none is FAIL."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One requirement."""

    name: str
    grade: Grade
    found: str
    needed: str
    do: str = ""


def preflight(host: Host, facts: Facts) -> list[Line]:
    """All that the host's mode needs; nothing is asked of the host here."""
    checks: list[Callable[[Host, Facts], Iterator[Line]]] = [_memory, _clock, _rasdaemon]
    if host.mode == "tdx":
        checks = [_processor, _msrs, _kvm, _module, _key_ids, _versions, _firmware, *checks]
    else:
        checks = [_stub, *checks]
    return [line for check in checks for line in check(host, facts)]


def fit(lines: list[Line]) -> bool:
    """Whether guests can be run there."""
    return not any(line.grade is Grade.FAIL for line in lines)


def _line(
    name: str, good: bool | None, found: str, needed: str, do: str, *, bad: Grade = Grade.FAIL
) -> Line:
    grade = Grade.UNKNOWN if good is None else Grade.OK if good else bad
    kept = printable(found.strip(), 120) or "nothing"
    return Line(name=name, grade=grade, found=kept, needed=needed, do="" if good else do)


def _processor(host: Host, facts: Facts) -> Iterator[Line]:
    flags = facts.said.get("cpuinfo", "")
    has = bool(re.search(r"^flags\s*:.*\btdx_host_platform\b", flags, re.MULTILINE))
    yield _line(
        "processor",
        has if flags else None,
        "tdx_host_platform" if has else "no tdx_host_platform",
        "the flag tdx_host_platform",
        "switch TDX, TME and SEAM on in the firmware's setup",
    )


def _msrs(host: Host, facts: Facts) -> Iterator[Line]:
    why = "modprobe msr, and be root"
    for name, what, bit in (("tme", "TME", 1), ("seamrr", "SEAM", 11)):
        value = facts.msrs.get(name)
        yield _line(
            what,
            None if value is None else bool(value >> bit & 1),
            "not to be read" if value is None else f"{value:#x}",
            f"bit {bit} of its MSR",
            why if value is None else f"switch {what} on in the firmware's setup",
        )
    value = facts.msrs.get("refused")
    yield _line(
        "firmware's check",
        None if value is None else value == 0,
        "not to be read" if value is None else f"{value:#x}",
        "MSR 0xa0 is 0",
        why if value is None else "the firmware refused its memory layout: see its own log",
    )


def _kvm(host: Host, facts: Facts) -> Iterator[Line]:
    value = facts.said.get("tdx_parameter")
    yield _line(
        "kvm_intel",
        value is not None and value.strip() == "Y",
        "no parameter tdx" if value is None else f"tdx={value}",
        "tdx=Y",
        f"options kvm_intel tdx=1, nohibernate, and a restart: {_ROLES}",
    )


def _log(facts: Facts) -> str:
    return facts.said.get("journal") or facts.said.get("dmesg") or ""


def _module(host: Host, facts: Facts) -> Iterator[Line]:
    log = _log(facts)
    failed = re.search(r"virt/tdx: .*(?:fail|not loaded|error)[^\n]*", log, re.IGNORECASE)
    done = re.search(r"virt/tdx: .*initialized[^\n]*", log)
    version = re.search(r"virt/tdx: .*version:? *([\d.]+)[^\n]*", log)
    said = failed or done
    yield _line(
        "TDX module",
        None if not log else bool(done and not failed),
        said[0] if said else "the kernel log says nothing of it",
        "initialized, in the kernel log",
        "6.12 initializes it with the first TD; newer kernels at boot: see dmesg for virt/tdx",
    )
    yield _line(
        "module version",
        True if version else None,
        version[1] if version else "not in the kernel log",
        "one that is known",
        "newer kernels log it; else ask the firmware's maker",
        bad=Grade.WARN,
    )


def _key_ids(host: Host, facts: Facts) -> Iterator[Line]:
    count = None
    if (value := facts.msrs.get("key_ids")) is not None:
        count = value >> 32
    elif found := re.search(r"private KeyID range \[(\d{1,5}), (\d{1,5})\)", _log(facts)):
        count = int(found[2]) - int(found[1])
    # One is the module's own.
    needed = (host.key_ids or host.guests or 1) + 1
    yield _line(
        "private KeyIDs",
        None if count is None else count >= needed,
        "not told" if count is None else str(count),
        f"{needed}: one of them is the module's",
        "the firmware's setup divides KeyIDs between TME-MK and TDX",
    )


def _versions(host: Host, facts: Facts) -> Iterator[Line]:
    for name, least in (("kernel", _KERNEL), ("qemu", _QEMU), ("libvirt", _LIBVIRT)):
        version = facts.version(name)
        yield _line(
            name,
            version >= least if version else False,
            ".".join(map(str, version)) or "none",
            f"{'.'.join(map(str, least))} or newer",
            f"install a newer one: {_ROLES}",
            bad=Grade.WARN if name == "libvirt" and not host.libvirt else Grade.FAIL,
        )


def _firmware(host: Host, facts: Facts) -> Iterator[Line]:
    found = facts.said.get("firmware", "").split()
    yield _line(
        "TD firmware",
        bool(found),
        found[0] if found else "none that says intel-tdx",
        "an OVMF that knows TDX",
        f"install it (Debian: ovmf-inteltdx): {_ROLES}",
    )


def _stub(host: Host, facts: Facts) -> Iterator[Line]:
    found = facts.said.get("cpuinfo", "")
    yield _line(
        "processor",
        "sse4_2" in found if found else None,
        "x86-64" if "sse4_2" in found else "no x86-64-v2",
        "x86-64-v2",
        "QEMU and its parts are built for x86-64",
    )


def _memory(host: Host, facts: Facts) -> Iterator[Line]:
    total = facts.number("meminfo", r"MemTotal:\s+(\d{1,12}) kB")
    free = facts.number("meminfo", r"MemAvailable:\s+(\d{1,12}) kB")
    needed = host.memory_mib or 2048
    yield _line(
        "memory",
        None if free is None else free // _KIB_PER_MIB >= needed,
        "not told"
        if free is None or total is None
        else f"{free // _KIB_PER_MIB} of {total // _KIB_PER_MIB} MiB available",
        f"{needed} MiB",
        "end what runs there, or say less in hosts.toml",
    )
    pages = facts.number("meminfo", r"HugePages_Free:\s+(\d{1,9})")
    if host.mode == "tdx":
        yield _line(
            "hugepages",
            None if pages is None else True,
            "not told" if pages is None else f"{pages} free",
            "none: guest_memfd does not take them",
            "",
        )


def _clock(host: Host, facts: Facts) -> Iterator[Line]:
    skew_s = facts.skew_s
    yield _line(
        "clock",
        None if skew_s is None else abs(skew_s) <= _MOST_SKEW_S,
        "not told" if skew_s is None else f"{skew_s:+.0f} s from here",
        f"within {_MOST_SKEW_S:.0f} s",
        "let it synchronise; nothing is compared by clocks, but people read them",
        bad=Grade.WARN,
    )
    said = facts.said.get("ntp", "").strip()
    yield _line(
        "time service",
        {"yes": True, "no": False}.get(said),
        said or "not told",
        "synchronised",
        "systemctl enable --now systemd-timesyncd",
        bad=Grade.WARN,
    )


def _rasdaemon(host: Host, facts: Facts) -> Iterator[Line]:
    said = facts.said.get("rasdaemon", "").strip()
    yield _line(
        "rasdaemon",
        said == "active",
        said or "not there",
        "active: it keeps machine checks",
        f"install and start it: {_ROLES}",
        bad=Grade.WARN,
    )


_STYLES = {Grade.OK: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red", Grade.UNKNOWN: "dim"}


def render(host: Host, lines: list[Line]) -> Table:
    """One line each, within 100 columns."""
    title = f"{host.name}: {'fit' if fit(lines) else 'not fit'} for mode {host.mode}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=100, title=title, title_justify="left")
    for name in ("what", "", "found", "needed", "what to do"):
        table.add_column(name)
    for line in lines:
        grade = Text(line.grade.value, style=_STYLES[line.grade])
        table.add_row(line.name, grade, Text(line.found), line.needed, line.do)
    return table

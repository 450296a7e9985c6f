# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of a few instructions: a firmware without Linux, on the real QEMU with the real plugin.

A case is some assembly and the facts that it has to give, each in a word or two:

    convert N          MapGPA was done; N lines were dirty under the old key
    refused S          MapGPA was refused with the status S
    stale, used        a translation came to the commit uninvalidated, or was used so
    wrong, unaccepted  an access through the wrong alias, to a pending page
    tdcall L S         leaf and status; vmcall F S: function and R10
    accept S           upper half of the status, or the whole when its lower half tells more
    cache XX           WBINVD, WBNOINVD or INVD, by its opcode
    change             a page table entry changed its shared bit
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.errors import BuildError
from harness.events import Event, Flag, Kind, Stream, decode
from harness.provision.buildroot import BuildRoot
from harness.provision.qemu import Qemu

HIGH = 0xFFFF800000000000
# 2 MiB leaves of the cases begin behind the window's other mappings.
WINDOW, LARGE_AT = 4 << 20, 68 << 20
NONGLOBAL, SHARED = HIGH + (64 << 20), HIGH + (66 << 20)
WINDOW_PT, NONGLOBAL_PT, SHARED_PT = 0x205000, 0x206000, 0x207000
HIGH_PD = 0x204000
PAGE, LARGE = 4096, 2 << 20
MEMORY_MIB = 128
_EXIT = 0x10
_EXIT_STATUS = _EXIT << 1 | 1  # isa-debug-exit's
_TIMEOUT_S = 60.0
_SOURCE = Path(__file__).with_name("tiny.S")


@dataclass(frozen=True, slots=True)
class Case:
    """Instructions, what the manuals say comes of them, and where they say so."""

    name: str
    source: str
    code: str
    expected: tuple[str, ...]


def assembly(cases: Sequence[Case]) -> str:
    """The cases as tiny.S takes them: each knows its own page and its own 2 MiB by names."""
    lines = []
    large = LARGE_AT
    for number, case in enumerate(cases):
        page = number * PAGE
        large += LARGE if "{large" in case.code else 0
        names = {
            "gpa": WINDOW + page,
            "page": HIGH + WINDOW + page,
            "nonglobal": NONGLOBAL + page,
            "shared": SHARED + page,
            "pte": WINDOW_PT + 8 * number,
            "nonglobal_pte": NONGLOBAL_PT + 8 * number,
            "large_gpa": large,
            "large": HIGH + large,
            "large_pte": HIGH_PD + large // LARGE * 8,
        }
        lines.append(f"case_{number}:")
        lines.append(case.code.format_map(names))
        lines.append("        ret")
    lines.append("        .balign 4\ncases:")
    lines += [f"        .long case_{number}" for number in range(len(cases))]
    return "\n".join([*lines, ""])


def build(buildroot: BuildRoot, cases: Sequence[Case], place: Path) -> Path:
    """The firmware. Raises BuildError."""
    (place / "tiny.S").write_text(_SOURCE.read_text())
    (place / "cases.inc").write_text(assembly(cases))
    equs = {
        "HIGH": HIGH, "WINDOW": WINDOW, "WINDOW_PT": WINDOW_PT, "NONGLOBAL_PT": NONGLOBAL_PT,
        "SHARED_PT": SHARED_PT, "CASES": len(cases), "EXIT_CODE": _EXIT,
    }  # fmt: skip
    flags = [f"--defsym={name}={value:#x}" for name, value in equs.items()]
    inside = Path("/tiny")
    for argv in (
        ["as", "--64", *flags, "tiny.S", "-o", "tiny.o"],
        ["ld", "-Ttext=0xf0000", "--oformat=binary", "-e", "0", "tiny.o", "-o", "tiny.bin"],
    ):
        buildroot.run(argv, binds={place: inside}, cwd=inside, log_path=place / "log")
    return place / "tiny.bin"


def run(qemu: Qemu, plugin: Path, firmware: Path) -> Stream:
    """Run it to its end on one vCPU. Raises BuildError when it did not come to it."""
    out = firmware.with_name("events")
    memory = MEMORY_MIB << 20
    options = f"{plugin},out={out},vcpus=1,below4g={memory},above4g=0"
    argv = [*qemu.argv_prefix, "-machine", "q35,smm=off", "-accel", "tcg"]
    argv += ["-cpu", "max,vendor=GenuineIntel,level=0x21", "-m", str(MEMORY_MIB)]
    argv += ["-no-reboot", "-display", "none", "-nodefaults", "-no-user-config"]
    argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-bios", str(firmware)]
    argv += ["-plugin", options]
    log, env = firmware.with_name("qemu.log"), {**os.environ, **qemu.env}
    result = proc.run(argv, timeout_s=_TIMEOUT_S, env=env, check=False, log_path=log)
    if result.returncode != _EXIT_STATUS:
        raise BuildError(
            f"the guest ended with {result.returncode}, not {_EXIT_STATUS}",
            hint="a case faulted: there are no handlers",
            log=log,
        )
    return decode(out.read_bytes())


def by_case(events: Iterable[Event]) -> dict[int, list[str]]:
    """The facts of each case, by its number."""
    facts: dict[int, list[str]] = {}
    current: list[str] | None = None
    for event in events:
        if event.kind is Kind.MARK:
            current = facts.setdefault(event.args[1], []) if event.args[0] == 1 else None
        elif current is not None:
            word = fact(event)
            current += [word] if word else []
    return facts


def fact(event: Event) -> str:
    """The event in the words of this module; empty for what they leave out."""
    a = event.args
    match event.kind:
        case Kind.CONVERT:
            return f"refused {a[2]:#x}" if a[2] else f"convert {a[3]}"
        case Kind.STALE:
            return "used" if event.flags & Flag.USED else "stale"
        case Kind.WRONG_ALIAS:
            return "wrong"
        case Kind.UNACCEPTED:
            return "unaccepted"
        case Kind.TDCALL:
            return f"tdcall {a[0] & 0xFFFF} {a[4]:#x}"
        case Kind.VMCALL:
            return f"vmcall {a[0]:#x} {a[3]:#x}"
        case Kind.ACCEPT:
            return f"accept {a[2]:#x}"
        case Kind.CACHE_ALL:
            return f"cache {a[0]:02x}"
        case Kind.PTE_CHANGE:
            return "change"
    return ""


def check(cases: Sequence[Case], facts: dict[int, list[str]]) -> dict[str, str]:
    """What is wrong with which case, by name; empty when all is as expected."""
    return {
        case.name: f"{facts.get(number)} in place of {list(case.expected)} ({case.source})"
        for number, case in enumerate(cases)
        if facts.get(number) != list(case.expected)
    }

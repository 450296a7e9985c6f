# SPDX-License-Identifier: GPL-2.0-or-later
"""tdcall-contract: calls that the TDX module or the VMM refused as malformed or unknown."""

from collections.abc import Sequence

from harness.events import Event, Flag, Kind
from harness.rules.context import Context, caller_key, counted, finding, grouped, places
from harness.verdict import Finding

# TDX module ABI specification, guest-side leaves that a Linux guest issues.
TDCALL_NAMES = {
    0: "TDG.VP.VMCALL",
    1: "TDG.VP.INFO",
    2: "TDG.MR.RTMR.EXTEND",
    3: "TDG.VP.VEINFO.GET",
    4: "TDG.MR.REPORT",
    6: "TDG.MEM.PAGE.ACCEPT",
    7: "TDG.VM.RD",
    8: "TDG.VM.WR",
}
# Guest-Host-Communication Interface; below 0x10000 the numbers are those of VM exits.
VMCALL_NAMES = {
    0x0A: "CPUID",
    0x0C: "HLT",
    0x1E: "IO",
    0x1F: "RDMSR",
    0x20: "WRMSR",
    0x30: "MMIO",
    0x10000: "GetTdVmCallInfo",
    0x10001: "MapGPA",
    0x10002: "GetQuote",
    0x10003: "ReportFatalError",
    0x10004: "SetupEventNotifyInterrupt",
}
FATAL_ERROR = 0x10003
_KINDS = frozenset({Kind.TDCALL, Kind.VMCALL, Kind.CONVERT, Kind.ACCEPT})


def tdcall_contract(events: Sequence[Event], context: Context) -> list[Finding]:
    """One finding per call, status and calling function, over all repeats."""
    wrong = [e for e in events if e.kind in _KINDS and e.flags & (Flag.BAD | Flag.UNKNOWN)]
    groups = grouped(wrong, lambda e: (_call(e), _status(e), caller_key(e, context)))
    return [_finding(group, context) for group in groups.values()]


def _call(event: Event) -> str:
    if event.kind is Kind.TDCALL:
        leaf = event.args[0]
        name = TDCALL_NAMES.get(leaf)
        return f"{name} (TDCALL leaf {leaf})" if name else f"TDCALL leaf {leaf:#x}"
    if event.kind is Kind.VMCALL:
        number = event.args[0]
        name = VMCALL_NAMES.get(number)
        return f"TDVMCALL {name}" if name else f"TDVMCALL {number:#x}"
    return "TDVMCALL MapGPA" if event.kind is Kind.CONVERT else "TDG.MEM.PAGE.ACCEPT"


def _status(event: Event) -> int:
    index = {Kind.TDCALL: 4, Kind.VMCALL: 3, Kind.CONVERT: 2, Kind.ACCEPT: 2}[event.kind]
    return event.args[index]


def _operands(event: Event) -> str:
    a0, a1, a2, a3, _ = event.args
    if event.kind is Kind.TDCALL:
        return f"RCX={a1:#x} RDX={a2:#x} R8={a3:#x}"
    if event.kind is Kind.VMCALL:
        return f"R12={a1:#x} R13={a2:#x}"
    if event.kind is Kind.CONVERT:
        return f"GPA={a0:#x} size={a1:#x}"
    return f"GPA={a0:#x} level={a1}"


def _sentence(event: Event) -> str:
    if event.kind is Kind.VMCALL and event.args[0] == FATAL_ERROR:
        return "the guest gave up: it reported a fatal error to the VMM (ReportFatalError)"
    if event.flags & Flag.UNKNOWN:
        return f"{_call(event)} is no call that exists here ({_operands(event)})"
    if event.kind is Kind.VMCALL and not _status(event):
        # It never reached the VMM, which would have said no.
        return f"{_call(event)} was refused by the TDX module: reserved bits in RCX"
    return (
        f"{_call(event)} broke its contract ({_operands(event)}): answered with {_status(event):#x}"
    )


def _finding(group: Sequence[Event], context: Context) -> Finding:
    first = group[0]
    times = f", {counted(len(group), 'time')}" if len(group) > 1 else ""
    return finding(
        "tdcall-contract",
        f"{_sentence(first)}{times}",
        gpa=first.args[0] if first.kind in (Kind.CONVERT, Kind.ACCEPT) else None,
        vcpu=first.vcpu,
        **places(first, context),
        seq=first.seq,
        count=len(group),
        extra={"call": _call(first), "status": _status(first), "operands": _operands(first)},
    )

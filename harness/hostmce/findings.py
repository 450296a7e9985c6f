# SPDX-License-Identifier: GPL-2.0-or-later
"""host-mce and guest-mce: machine checks as findings, and a host that went down as what it is."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from harness.events import LINE_BYTES, PAGE_BYTES
from harness.hostmce import codes
from harness.hostmce.page import PageHistory, history_of
from harness.hostmce.record import MceRecord, page_of
from harness.hostmce.status import Grade, flag_names
from harness.hostmce.told import HostState, HostTold
from harness.kernellog_patterns import GUEST_MCE
from harness.rules.context import Context, counted, finding
from harness.verdict import Finding, Severity

# What a guest runs into when the ground goes from under it.
_FOLLOWS = frozenset({"workload"})


def host_findings(told: HostTold, context: Context) -> list[Finding]:
    """One finding per kind of machine check; corrected ones are reported only."""
    merged = told.merged
    last = len(merged.records) - 1
    found = [
        _finding(told, record, context, panicked=bool(told.panic) and place == last)
        for place, record in enumerate(merged.records)
    ]
    if merged.left_out or merged.overflowed:
        least = "at least " if merged.overflowed or merged.left_out else ""
        grades = ", ".join(f"{count} {name}" for name, count in merged.by_grade.items())
        said = f"the host took {least}{counted(merged.total, 'machine check')} ({grades})"
        if merged.overflowed:
            said += f"; {counted(merged.overflowed, 'record')} say that their bank had lost some"
        if found:
            found[0] = dataclasses.replace(found[0], extra={**found[0].extra, "in_all": said})
    return found


def _finding(told: HostTold, record: MceRecord, context: Context, *, panicked: bool) -> Finding:
    key_id, address = record.address(told.phys_bits) or (0, 0)
    known = record.addr is not None
    guest = _guest_address(told, record)
    history = None if guest is None else history_of(guest, context)
    grade, code = record.grade, codes.name(record.status)
    title = f"host machine check: {grade.value}, {code}"
    extra: dict[str, Any] = {
        "title": title,
        "kind": "mce",
        "fingerprint": hashlib.sha256(title.encode()).hexdigest()[:16],
        "panicked": panicked,
        "step": "",
        "grade": grade.value,
        "address": address if known else None,
        "key_id": key_id if known else None,
        "flags": flag_names(record.status, record.mcgstatus),
        "of_tdx": record.of_tdx(),
        "told_by": [source.value for source in record.sources],
        "kernel_said": list(record.said),
        "banks": [record.to_json()],
    }
    found = finding("host-mce", _summary(told, record, panicked))
    return dataclasses.replace(
        found,
        severity=found.severity if grade.uncorrected else Severity.REPORT,
        seq=record.line,
        count=record.count,
        extra=extra | ({"page_history": list(history.words)} if history else {}),
        **(_place(history) if history else {}),
    )


def _guest_address(told: HostTold, record: MceRecord) -> int | None:
    """The guest-physical address that the record is about, as far as that is known."""
    place = record.address(told.phys_bits)
    if place and told.guest_physical:
        return place[1]
    # QEMU names the guest's address, and the record the host's: with one of each they are the same.
    pages = {page_of(address) for address in told.guest_addresses}
    consumed = sum(r.grade in (Grade.SRAR, Grade.SRAO) for r in told.merged.records)
    if len(pages) == 1 and consumed == 1 and record.grade in (Grade.SRAR, Grade.SRAO):
        return told.guest_addresses[0]
    return None


def _place(history: PageHistory) -> dict[str, Any]:
    last = history.last
    return {
        "gpa": page_of(history.gpa),
        "lines": (history.gpa % PAGE_BYTES // LINE_BYTES,),
        "direction": last.direction if last else None,
        "conversion_site": last.site if last else None,
    }


def _summary(told: HostTold, record: MceRecord, panicked: bool) -> str:
    cpu = "a CPU" if record.cpu is None else f"CPU {record.cpu}"
    words = [
        f"the host: {cpu} took a machine check, {record.grade.value}: bank {record.bank}, status "
        f"{record.status:#x} ({', '.join(record.meaning)})"
    ]
    if place := record.address(told.phys_bits):
        key_id, address = place
        words.append(f"address {address:#x}, KeyID {key_id}")
    if panicked:
        words.append(f"and the host panicked: {told.panic}")
    return ", ".join(words)


def with_history(findings: Sequence[Finding], context: Context) -> list[Finding]:
    """The findings, with what befell the page of a machine check that the guest itself took."""
    return [
        _with_history(found, history_of(found.gpa, context))
        if found.rule == GUEST_MCE and found.gpa is not None
        else found
        for found in findings
    ]


def _with_history(found: Finding, history: PageHistory) -> Finding:
    last = history.last
    return dataclasses.replace(
        found,
        direction=last.direction if last else None,
        conversion_site=last.site if last else None,
        extra={**found.extra, "page_history": list(history.words)},
    )


def down_reasons(told: HostTold | None) -> list[str]:
    """Why the run can prove nothing good: the host went down under it."""
    if told is None or told.state is HostState.ALIVE:
        return []
    last = f"; its console said last: {told.last_words[-1]}" if told.last_words else ""
    return [f"the host failed, not the guest: {told.down}{last}"]


def blame_host(findings: Sequence[Finding], told: HostTold | None) -> list[Finding]:
    """The findings, with those that follow from the end of the host turned into reports."""
    if told is None or told.state is HostState.ALIVE:
        return list(findings)
    return [
        dataclasses.replace(
            found, severity=Severity.REPORT, extra={**found.extra, "host_down": True}
        )
        if found.rule in _FOLLOWS and found.extra.get("rc") is None
        else found
        for found in findings
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The findings of two runs of one kernel and workload: what differs between them.

Two runs with the same seed have the same findings, bit for bit. Where vCPUs run in parallel the
order of events, and so addresses, numbers and folding differ; the set of bugs found does not.
"""

from collections.abc import Sequence

from harness.triage import identity_of, title_of
from harness.verdict import Finding


def differences(one: Sequence[Finding], other: Sequence[Finding]) -> list[str]:
    """A sentence for each finding that is not the same in every bit; none when all are."""
    found = [
        f"finding {number}, {title_of(a)}: {_fields(a, b)}"
        for number, (a, b) in enumerate(zip(one, other, strict=False), 1)
        if a != b
    ]
    if len(one) != len(other):
        found.append(f"{len(one)} findings and {len(other)}")
    return found


def _fields(one: Finding, other: Finding) -> str:
    first, second = one.to_json(), other.to_json()
    names = [name for name in first if first[name] != second[name]]
    return "different in " + ", ".join(names)


def set_differences(one: Sequence[Finding], other: Sequence[Finding]) -> list[str]:
    """A sentence for each bug, in its step of the workload, that only one of the runs found."""
    first, second = _bugs(one), _bugs(other)
    return [
        *(f"only in the first: {first[bug]}" for bug in first if bug not in second),
        *(f"only in the second: {second[bug]}" for bug in second if bug not in first),
    ]


def _bugs(findings: Sequence[Finding]) -> dict[tuple[str, str, str], str]:
    return {_bug(f): f"{title_of(f)} in step {_step(f)!r}" for f in findings}


def _step(finding: Finding) -> str:
    return str(finding.extra.get("step", ""))


def _bug(finding: Finding) -> tuple[str, str, str]:
    return identity_of(finding), finding.severity.value, _step(finding)

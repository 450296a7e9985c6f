# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel patches: each says what it is for, and series, README and patches agree."""

import re
from pathlib import Path

import pytest

from harness.mutants import read_mutant
from harness.rules.table import RULES
from harness.workload import WORKLOADS

PATCHES = Path(__file__).parents[2] / "kernel-patches"
GROUPS = sorted(path.parent for path in PATCHES.glob("*/*/series"))
HEADERS = ("From", "Subject", "Signed-off-by", "Origin", "Forwarded", "X-Trips")
ROW = re.compile(r"(?m)^\| ([a-z]+/\d{4}) [^|]+ \| ([^|]+) \| ([^|]+) \|$")
SECTIONS = ("Kernels", "Rule", "Reproducer", "Status")


def complaints(group: Path) -> list[str]:
    """What is wrong with a group of patches."""
    lines = (group / "series").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    found = [] if (group.parent / "BASE").is_file() else [f"{group.parent.name}: no BASE"]
    present = sorted(path.name for path in group.glob("*.patch"))
    if listed != present:
        found.append(f"{group.name}: series lists {listed}, there are {present}")
    if [name[:4] for name in present] != [f"{n:04}" for n in range(1, len(present) + 1)]:
        found.append(f"{group.name}: the numbers have gaps or repeats")
    for name in present:
        found += [f"{name}: {what}" for what in complaints_of((group / name).read_text())]
    return found


def complaints_of(patch: str) -> list[str]:
    """What is wrong with the head of a patch, and with what it names."""
    head = patch.partition("\n---\n")[0]
    tags = dict(re.findall(r"(?m)^([A-Z][\w-]+): *(.*)$", head))
    found = [f"no {header}" for header in HEADERS if not tags.get(header)]
    unknown = set(tags.get("X-Trips", "").split()) - {*RULES, "none"}
    found += [f"X-Trips names no rule: {word}" for word in sorted(unknown)]
    strange = set(tags.get("X-Workload", "").split()) - {*WORKLOADS}
    found += [f"X-Workload names no workload: {word}" for word in sorted(strange)]
    if not re.fullmatch(r"|vmm=[a-z0-9:=.-]+", tags.get("X-Needs", "")):
        found.append("X-Needs is not vmm=<behaviour>")
    # Subject, why, warning and tags: each a paragraph of its own.
    if len(head.split("\n\n")) < 4 or "Not for any tree but a test's." not in head:
        found.append("no paragraph that says why, or none that warns")
    return found


def test_there_are_groups() -> None:
    assert {group.name for group in GROUPS} >= {"mutants", "rfc"}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group.parent.name}-{group.name}")
def test_group(group: Path) -> None:
    assert complaints(group) == []


def test_readme_foretells_what_the_patches_do() -> None:
    rows = {name: set(trips.split(", ")) for name, trips, _ in ROW.findall(readme())}
    patches = [read_mutant(path) for group in GROUPS for path in sorted(group.glob("*.patch"))]
    assert rows == {patch.name: set(patch.trips) or {"none"} for patch in patches}


def readme() -> str:
    return (PATCHES / "README.md").read_text()


def lacking(finding: str) -> list[str]:
    """What a write-up of a finding does not say."""
    wanted = [rf"(?m)^- {section}: \S" for section in SECTIONS]
    wanted += [r"\A# \S.*\n", r"(?m)^## Evidence$", r"(?m)^    tdharness run "]
    return [pattern for pattern in wanted if not re.search(pattern, finding)]


@pytest.mark.parametrize(
    "path", sorted(PATCHES.glob("*/findings/*.md")), ids=lambda path: path.stem
)
def test_finding_says_all(path: Path) -> None:
    assert path.stem == "README" or lacking(path.read_text()) == []


def test_faults_of_a_finding_are_seen() -> None:
    assert len(lacking("")) == len(lacking("# Title\n")) + 1 == len(SECTIONS) + 3


def test_faults_of_a_group_are_seen(tmp_path: Path) -> None:
    group = tmp_path / "1.0" / "mutants"
    group.mkdir(parents=True)
    (group / "series").write_text("0001-a.patch\n0002-b.patch\n")
    (group / "0002-a.patch").write_text(
        "From: x\nX-Trips: made-up\nX-Workload: lunch\nX-Needs: luck\n---\n"
    )
    found = "\n".join(complaints(group))
    for word in ("no BASE", "series lists", "gaps", "no Subject", "no Origin", "made-up"):
        assert word in found
    for word in ("lunch", "X-Needs is not", "why"):
        assert word in found

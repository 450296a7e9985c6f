# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel patches: each group's series is whole, each patch says what it is for."""

import re
from pathlib import Path

import pytest

from harness.rules.table import RULES

PATCHES = Path(__file__).parents[2] / "kernel-patches"
GROUPS = sorted(path.parent for path in PATCHES.glob("*/*/series"))
HEADERS = ("From", "Subject", "Signed-off-by", "Origin", "Forwarded", "X-Trips")


def complaints(group: Path) -> list[str]:
    """What is wrong with a group of patches."""
    lines = (group / "series").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    found = [] if (group.parent / "BASE").is_file() else [f"{group.parent.name}: no BASE"]
    present = sorted(path.name for path in group.glob("*.patch"))
    if listed != present:
        found.append(f"{group.name}: series lists {listed}, there are {present}")
    for name in present:
        text = (group / name).read_text()
        head = text.partition("\n---\n")[0]
        found += [f"{name}: no {h}" for h in HEADERS if not re.search(rf"(?m)^{h}: \S", head)]
        trips = re.findall(r"(?m)^X-Trips: (.*)$", head)
        unknown = {word for line in trips for word in line.split()} - {*RULES, "none"}
        found += [f"{name}: X-Trips names no rule: {word}" for word in sorted(unknown)]
    return found


def test_there_are_groups() -> None:
    assert {group.name for group in GROUPS} >= {"mutants", "rfc"}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group.parent.name}-{group.name}")
def test_group(group: Path) -> None:
    assert complaints(group) == []


def test_faults_of_a_group_are_seen(tmp_path: Path) -> None:
    group = tmp_path / "1.0" / "mutants"
    group.mkdir(parents=True)
    (group / "series").write_text("0001-a.patch\n0002-b.patch\n")
    (group / "0001-a.patch").write_text("From: x\nX-Trips: made-up\n---\n")
    found = "\n".join(complaints(group))
    for word in ("no BASE", "series lists", "no Subject", "no Origin", "made-up"):
        assert word in found

# SPDX-License-Identifier: GPL-2.0-or-later
"""The scenario of the rules to its end: a VMM that does not flush, poison, and a real kernel's #MC.

A TD of the stub reads poison; the machine check that its host would take is then taken by the lab
host's kernel, register by register, and both tell the same bank, page and end.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.evidence import load
from harness.hostlog import KEY_ID
from harness.hostmce.record import PHYS_BITS
from harness.job import carry_out
from harness.judge import judge
from harness.labhost.checks import MachineCheck
from harness.labhost.host import LabHost
from harness.prepare import Request, prepare
from harness.verdict import Finding
from harness.workload import Step

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("labhost")]

_RECORD = re.compile(
    r"CPU (\d+): Machine Check Exception: ([0-9a-f]+) Bank (\d+): ([0-9a-f]{16})\n"
    r".*ADDR ([0-9a-f]+) MISC ([0-9a-f]+)"
)


@dataclass(frozen=True)
class Poisoned:
    """What the judge says of a TD that read poison, and the check that its host takes."""

    mce: Finding
    cause: Finding
    check: MachineCheck


def poisoned(vmm: str, request: pytest.FixtureRequest, runs: Path) -> Poisoned:
    option = request.config.getoption
    asked = Request(kernel=option("--kernel"), extra_cmdline="swiotlb=4096", vmm=vmm)
    plan = prepare(asked, lambda words: None, scenario="poison")
    step = Step(name="read-poison", command="tdh convert size=4K")
    run = carry_out(plan, [step], runs, lambda words: None)
    findings = judge(run, evidence=load(run)).findings
    (mce,) = [found for found in findings if found.rule == "host-mce"]
    (cause,) = [f for f in findings if f.rule == "vmm-cache-flush" and f.evidence == "used"]
    record = _RECORD.search(run.host_log.read_text())
    assert record
    check = MachineCheck(
        status=int(record[4], 16),
        address=int(record[5], 16),
        bank=int(record[3]),
        misc=int(record[6], 16),
        # a local one (LMCE_S): no other processor is waited for
        global_status=int(record[2], 16),
        cpu=int(record[1]),
    )
    return Poisoned(mce, cause, check)


def test_the_td_dies_and_the_host_goes_on(
    own_lab_host: LabHost, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = poisoned("cache-flush", request, tmp_path)
    assert found.mce.gpa == found.cause.gpa
    assert found.check.address >> PHYS_BITS == KEY_ID
    own_lab_host.inject(found.check)
    log = own_lab_host.console
    log.wait_for(
        f"Bank {found.check.bank}: {found.check.status:016x}", "#MC", 30, own_lab_host.alive
    )
    log.wait_for(f"ADDR {found.check.address:x}", "its address", 30, own_lab_host.alive)
    assert own_lab_host.run("cat", "/proc/sys/kernel/random/boot_id").stdout.split() == (
        own_lab_host.boot_ids
    )


def test_the_host_dies_with_it(
    own_lab_host: LabHost, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = poisoned("cache-flush-crash", request, tmp_path)
    assert found.mce.gpa == found.cause.gpa
    assert found.cause.gpa is not None
    own_lab_host.inject(found.check)
    own_lab_host.console.wait_for(
        "Kernel panic - not syncing: Fatal local machine check", "panic", 60, own_lab_host.alive
    )
    words = own_lab_host.console.log_path.read_text(errors="replace")
    assert f"Bank {found.check.bank}: {found.check.status:016x}" in words
    (address,) = re.findall("ADDR ([0-9a-f]+)", words)
    page = int(address, 16) & ((1 << PHYS_BITS) - 1) & ~0xFFF
    assert page == found.cause.gpa

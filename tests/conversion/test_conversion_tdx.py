# SPDX-License-Identifier: GPL-2.0-or-later
"""A TD on hardware, as far as a machine without TDX goes: its firmware starts the same guest."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import GuestError
from harness.events import Kind
from harness.evidence import load
from harness.judge import judge
from harness.prepare import Request, prepare
from harness.provision.qemu import find_or_make
from harness.provision.tdvf import td_firmware
from harness.session import Guest
from harness.testing.no_tdx import TdHost, program
from harness.verdict import Outcome
from harness.workload import WORKLOADS

pytestmark = pytest.mark.integration
STEPS = WORKLOADS["conversion"][:2] + WORKLOADS["dma"]


def say_nothing(words: str) -> None:
    """Progress is pytest's to show."""


@pytest.fixture
def asked(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Request:
    monkeypatch.setattr("harness.prepare.LocalRemote", lambda: TdHost(td_firmware()))
    option = request.config.getoption
    return Request(
        kernel=option("--kernel"),
        td_mode="tdx",
        smp=option("--smp"),
        memory_mib=option("--memory"),
        qemu=program(find_or_make(), tmp_path / "qemu"),
    )


def test_a_tds_firmware_starts_the_guest_and_a_plain_vm_is_no_evidence(
    asked: Request, request: pytest.FixtureRequest
) -> None:
    guest = Guest(prepare(asked, say_nothing), request.config.getoption("--runs"), say_nothing)
    try:
        guest.boot()
        guest.run_steps(STEPS)
    finally:
        guest.stop()
    evidence = load(guest.run)
    # Its probes are in place; a plain VM converts nothing that they could see.
    assert evidence.trace and evidence.trace.events
    assert {event.kind for event in evidence.trace.events} == {Kind.MARK}
    verdict = judge(guest.run, evidence=evidence)
    assert verdict.outcome is Outcome.EMPTY
    assert "did not run as a TD" in verdict.reason
    assert verdict.counts["steps_failed"] == 0
    # three cycles each
    assert verdict.counts["conversions_told"] == 12
    assert verdict.counts["dma_transfers"] > 0
    assert "efi: EFI v2" in guest.run.console_log.read_text(errors="replace")
    # what a person pastes has TDX in it
    assert "tdx-guest" in guest.run.argv.read_text()


def test_with_the_keys_of_a_distribution_it_starts_no_kernel_of_ones_own(
    asked: Request, request: pytest.FixtureRequest
) -> None:
    (as_built,) = (td_firmware() / "usr/share/ovmf").glob("*inteltdx*.fd")
    plan = prepare(replace(asked, firmware=as_built), say_nothing)
    guest = Guest(
        replace(plan, silence_timeout_s=15.0), request.config.getoption("--runs"), say_nothing
    )
    try:
        with pytest.raises(GuestError, match="boot: "):
            guest.boot()
    finally:
        guest.stop()
    said = guest.run.console_log.read_text(errors="replace")
    assert "legacy linux kernel loader is disabled" in said

# SPDX-License-Identifier: GPL-2.0-or-later
"""What real kernels and a real rasdaemon told of machine checks (tests/data/hostmce)."""

import gzip
from pathlib import Path

import pytest

from harness.hostmce.journal import Place
from harness.hostmce.journal import read as read_journal
from harness.hostmce.kernel import read_log
from harness.hostmce.merge import merge
from harness.hostmce.rasdaemon import read_database
from harness.hostmce.record import MceRecord, Source
from harness.hostmce.status import Grade
from harness.hostmce.trace import read_trace
from harness.testing.fakehost import FIRST_BOOT, FakeHost

GOLDEN = Path(__file__).parents[1] / "data" / "hostmce"


def golden(path: Path) -> tuple[list[str], list[str], bytes]:
    """What was injected into the real kernel, what has to be found, and what it printed."""
    header, _, log = path.read_bytes().partition(b"\n\n")
    made, *lines = header.decode().splitlines()
    assert made.startswith("MADE: recorded: ")
    injected = [line for line in lines if line.startswith("INJECTED: ")]
    found = [line for line in lines if line.startswith(("FIND: ", "PANIC: ", "NOTE: "))]
    return injected, found, log


def in_words(records: list[MceRecord]) -> list[str]:
    return [
        f"FIND: {r.grade.value}, CPU {r.cpu}, bank {r.bank}, {', '.join(r.meaning)}"
        for r in records
    ]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.console")), ids=lambda path: path.name)
def test_what_a_real_kernel_printed(path: Path) -> None:
    _, found, log = golden(path)
    told = read_log(log, Source.CONSOLE)
    panic = [f"PANIC: {told.panic}"] if told.panic else []
    assert [*in_words(told.records), *panic, *(f"NOTE: {note}" for note in told.notes)] == found


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.trace")), ids=lambda path: path.name)
def test_what_a_real_kernel_traced(path: Path) -> None:
    injected, found, log = golden(path)
    records, lost = read_trace(log.decode().splitlines())
    assert (in_words(records), lost) == (found, 0)
    # Each was told once, with the registers that were written into the bank.
    assert [(r.cpu, r.bank, r.status) for r in records] == [
        (int(words[2]), int(words[3]), int(words[4], 16)) for words in map(str.split, injected)
    ]


def test_the_real_kernel_s_log_and_trace_agree() -> None:
    for name, grade in (("srar-user", Grade.SRAR), ("srar-seam", Grade.SRAR)):
        logs = [golden(GOLDEN / f"{name}{suffix}")[2] for suffix in (".console", ".trace")]
        told = read_log(logs[0], Source.KERNEL_LOG)
        traced, _ = read_trace(logs[1].decode().splitlines())
        merged = merge({Source.KERNEL_LOG: told.records, Source.TRACE: traced})
        (only,) = merged.records
        assert (merged.disagreements, only.grade, only.mcgcap) == ((), grade, 0x100010A)
    assert only.address() == (16, 0x1234567C0)
    assert only.of_tdx()


def test_what_a_real_rasdaemon_stored_agrees_with_its_kernel_s_journal() -> None:
    data = gzip.decompress((GOLDEN / "lab-host.db.gz").read_bytes())
    kept = read_database({"": data}, {})
    log = (GOLDEN / "lab-host.journal").read_bytes()

    class Recorded(FakeHost):
        def _journalctl(self, argv: list[str]) -> tuple[int, bytes, bytes]:
            return 0, log, b""

    kernel, gap = read_journal(Recorded(), Place("s=1", 0.0), FIRST_BOOT)
    assert kernel is not None and not gap
    merged = merge({Source.KERNEL_LOG: kernel.records, Source.RASDAEMON: kept.records})
    assert merged.disagreements == ()
    assert merged.by_grade == {"UCNA": 2, "SRAR": 1, "corrected": 1, "SRAO": 1}
    # The kernel prints neither the corrected one nor the SRAO that the page was given up for.
    only_stored = [r.grade.value for r in merged.records if Source.KERNEL_LOG not in r.sources]
    assert only_stored == ["corrected", "SRAO"]
    (in_td,) = [record for record in merged.records if record.of_tdx()]
    assert in_td.address(40) == (16, 0x12349000)
    assert (in_td.mcgcap, in_td.cpuid) == (0x100010A, 0x806F8)
    assert kept.notes == [
        "memory_failure_event: pfn 0x12347, page_type free buddy page, action_result Recovered"
    ]
    assert kept.last == {"mce_record": 5, "memory_failure_event": 1, "mc_event": 0}
    later = {"mce_record": 4, "memory_failure_event": 1}
    assert len(read_database({"": data}, later).records) == 1

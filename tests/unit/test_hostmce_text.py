# SPDX-License-Identifier: GPL-2.0-or-later
"""Records out of text: kernel logs, trace events, mcelog, and what people paste."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import main
from harness.errors import ExitCode
from harness.hostmce import kernel, paste
from harness.hostmce.kernel import read_log
from harness.hostmce.mcelog import read_mcelog
from harness.hostmce.record import MceRecord, Source
from harness.hostmce.status import Grade
from harness.hostmce.trace import read_trace

HW = "mce: [Hardware Error]: "
STATUS = 0xBD80000000100134
# By hand from arch/x86/kernel/cpu/mce/core.c: no machine at hand has SEAM, or X86_BUG_TDX_PW_MCE.
LINES = (
    HW + "CPU 12: Machine Check Exception: 100f Bank 1: bd80000000100134",
    HW + "RIP !INEXACT! 10:<ffffffffc0a1b2c3> {tdx_vcpu_enter_exit+0x23/0x80 [kvm_intel]}",
    HW + "TSC 1a2b3c ADDR 40001234567c0 MISC 86 PPIN abcdef ",
    HW + "PROCESSOR 0:806f8 TIME 1700000000 SOCKET 1 APIC 18 microcode 2b000571",
    HW + "Machine check: TDX private memory error. Possible kernel bug.",
)
EXPECTED = MceRecord(
    bank=1, status=STATUS, mcgstatus=0x100F, cpu=12, addr=0x40001234567C0, misc=0x86, tsc=0x1A2B3C,
    time_s=1700000000, socket=1, apicid=0x18, cpuid=0x806F8, microcode=0x2B000571, ppin=0xABCDEF,
    ip=0xFFFFFFFFC0A1B2C3, symbol="tdx_vcpu_enter_exit+0x23/0x80 [kvm_intel]", uptime_s=7.000005,
    said=("TDX private memory error. Possible kernel bug.",), sources=(Source.KERNEL_LOG,), line=2,
)  # fmt: skip
TRACE = (
    "     kworker/0:0-9       [000] .....     9.574125: mce_record: CPU: 12, MCGc/s: 7000c16/100f, "
    "MC1: bd80000000100134, IPID: 0000000000000000, ADDR: 00040001234567c0, MISC: 0000000000000086,"
    " SYND: 0000000000000000, RIP: 10:<ffffffffc0a1b2c3>, TSC: 1a2b3c, PPIN: abcdef, vendor: 0, "
    "CPUID: 806f8, time: 1700000000, socket: 1, APIC: 18, microcode: 2b000571"
)
# By hand from mcelog's dump_mce.
MCELOG = """\
Hardware event. This is not a software error.
MCE 0
CPU 12 BANK 1 TSC 1a2b3c
RIP 10:ffffffffc0a1b2c3
MISC 86 ADDR 40001234567c0
TIME 1700000000 Tue Nov 14 22:13:20 2023
MCG status:RIPV EIPV MCIP LMCE
MCA: Data CACHE Level-0 Data-Read Error
STATUS bd80000000100134 MCGSTATUS 100f
MCGCAP 7000c16 APICID 18 SOCKETID 1
CPUID Vendor Intel Family 6 Model 143 Step 8
"""


def stamped(lines: tuple[str, ...] = LINES, start_s: float = 7.0) -> bytes:
    texts = [f"[{start_s + i / 1e6:12.6f}] {line}" for i, line in enumerate(lines, 5)]
    return "\n".join(["[    1.000000] Linux version 6.12", *texts, ""]).encode()


def test_a_record_is_put_together_from_its_lines() -> None:
    told = read_log(stamped(), Source.KERNEL_LOG)
    assert told.records == [EXPECTED]
    assert (told.panic, told.left_out, told.logged) == ("", 0, 0)
    assert told.records[0].of_tdx()
    assert told.records[0].grade is Grade.SRAR


def test_registers_that_the_bank_does_not_hold_are_none() -> None:
    head = HW + "CPU 0: Machine Check: 0 Bank 3: b000000000000005"
    (record,) = read_log(stamped((head, HW + "TSC 0 ADDR 40 MISC 86 ")), Source.CONSOLE).records
    assert (record.addr, record.misc, record.tsc) == (None, None, 0)
    # A zero is not printed.
    head = HW + "CPU 0: Machine Check: 0 Bank 3: b400000000000005"
    (record,) = read_log(stamped((head, HW + "TSC 0 ")), Source.CONSOLE).records
    assert record.addr == 0


def test_lines_of_two_cpus_are_told_apart_by_their_callers() -> None:
    text = b"".join(
        b"[    1.00000%d][%s] " % (i, caller) + line.encode() + b"\n"
        for i, (line, caller) in enumerate(
            [
                (HW + "CPU 0: Machine Check: 0 Bank 1: 9c00000000000005", b"   C0"),
                (HW + "CPU 1: Machine Check: 0 Bank 2: 9c00000000000005", b"   C1"),
                (HW + "TSC 10 ADDR 1000 MISC 86 ", b"   C0"),
                (HW + "TSC 20 ADDR 2000 MISC 86 ", b"   C1"),
            ]
        )
    )
    records = read_log(text, Source.CONSOLE).records
    assert [(r.cpu, r.tsc, r.addr) for r in records] == [(0, 0x10, 0x1000), (1, 0x20, 0x2000)]


def test_what_the_kernel_says_around_the_records_is_kept() -> None:
    around = (
        HW + "Machine check events logged",
        "Memory failure: 0x1b200: recovery action for dirty LRU page: Recovered",
        "EDAC MC0: 1 UE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (channel:0 page:0x12)",
        "kvm [1234]: TD vp_enter_ret 0x6000000500000000",
        "kvm_amd: nested paging",
        "Kernel panic - not syncing: Fatal local machine check",
    )
    told = read_log(stamped(around), Source.KERNEL_LOG)
    assert told.logged == 1
    assert [note.split(":")[0] for note in told.notes] == [
        "Memory failure", "EDAC MC0", "kvm [1234]", "Kernel panic - not syncing",
    ]  # fmt: skip
    assert told.panic == "Fatal local machine check"


def test_a_line_of_a_user_is_no_record() -> None:
    forged = b"[    1.000000] Linux version 6.12\nhello [    0.500000] " + LINES[0].encode() + b"\n"
    assert read_log(forged, Source.CONSOLE).records == []
    assert read_log(b"[    1.000000] x\n" + LINES[0].encode() + b"\n", Source.CONSOLE).records == []


def test_a_storm_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "MOST_RECORDS", 5)
    heads = tuple(HW + f"CPU {i}: Machine Check: 0 Bank 3: 9000000000000005" for i in range(9))
    told = read_log(stamped((*heads, HW + "TSC 77 ")), Source.KERNEL_LOG)
    assert (len(told.records), told.left_out) == (5, 4)
    assert all(record.tsc is None for record in told.records)


def test_a_trace_event_tells_the_same() -> None:
    (record,), lost = read_trace(["# tracer: nop", TRACE, "CPU:0 [LOST 7 EVENTS]"])
    assert lost == 7
    assert record.mcgcap == 0x7000C16
    same = ("bank", "status", "mcgstatus", "cpu", "addr", "misc", "tsc", "time_s", "socket",
            "apicid", "cpuid", "microcode", "ppin", "ip")  # fmt: skip
    assert all(getattr(record, name) == getattr(EXPECTED, name) for name in same)
    assert record.uptime_s == 9.574125


def test_a_trace_buffer_that_ran_over_says_how_many_it_dropped() -> None:
    head = "# entries-in-buffer/entries-written: 140080/250280   #P:4"
    assert read_trace([head, "CPU:1 [LOST 7 EVENTS]"]) == ([], 250280 - 140080 + 7)
    assert read_trace(["# entries-in-buffer/entries-written: 2/2   #P:4"]) == ([], 0)


def test_the_form_of_old_kernels_lacks_fields_only() -> None:
    old = TRACE.partition(", PPIN")[0].replace("IPID: 0000000000000000, ", "")
    (record,), _ = read_trace([old])
    assert (record.tsc, record.addr, record.cpuid) == (0x1A2B3C, 0x40001234567C0, None)


def test_mcelog_s_words_tell_the_same() -> None:
    (record,), left_out = read_mcelog(MCELOG.splitlines())
    assert left_out == 0
    same = ("bank", "status", "mcgstatus", "cpu", "addr", "misc", "tsc", "time_s", "socket", "ip")
    assert all(getattr(record, name) == getattr(EXPECTED, name) for name in same)
    assert read_mcelog(["CPU 3 BANK 1", "MISC 86"]) == ([], 0)


def pasted(text: str) -> list[MceRecord]:
    return list(paste.of_lines([line.encode() + b"\n" for line in text.split("\n")]).merged.records)


@pytest.mark.parametrize(
    "prefix",
    ["", "> ", "[ 7.000005] ", "<0>[    7.000005] ", "[Tue Nov 14 22:13:20 2023] ",
     "Nov 14 22:13:20 host kernel: ", "2023-11-14T22:13:20+0000 host kernel: [    7.0] "],
)  # fmt: skip
@pytest.mark.parametrize("marked", [True, False])
def test_a_paste_may_come_from_anywhere(prefix: str, marked: bool) -> None:
    lines = LINES if marked else [line.replace("mce: ", "") for line in LINES]
    (record,) = pasted("\n".join(prefix + line for line in lines))
    assert (record.status, record.addr, record.cpuid) == (STATUS, 0x40001234567C0, 0x806F8)
    assert record.said == EXPECTED.said


def test_a_paste_may_mix_forms_and_tells_each_record_once() -> None:
    (record,) = pasted("\n".join([*LINES, "some words", TRACE, MCELOG]))
    assert record.sources == (Source.KERNEL_LOG, Source.TRACE, Source.MCELOG)
    assert (record.mcgcap, record.count) == (0x7000C16, 1)


def test_a_long_log_is_read_in_time_and_bounded() -> None:
    noise = b"[    1.000000] usb 1-1: new high-speed USB device number 2 using xhci_hcd CPU 1\n"
    lines = [noise] * 200_000 + [line.encode() for line in LINES]
    began_s = time.monotonic()
    told = paste.of_lines(lines)
    assert time.monotonic() - began_s < 10
    assert told.merged.total == 1


@given(st.lists(st.sampled_from([*LINES, TRACE, *MCELOG.splitlines(), "Kernel panic - "])))
def test_lines_in_any_order_are_read(lines: list[str]) -> None:
    told = paste.of_lines([line.encode() for line in lines])
    heads = lines.count(LINES[0])
    assert told.merged.total >= max(heads, lines.count(TRACE))
    read_log("\n".join(lines).encode(), Source.CONSOLE)


@given(st.binary(max_size=300), st.sampled_from([*LINES, TRACE, MCELOG]))
def test_garbage_is_read(garbage: bytes, line: str) -> None:
    half = line.encode()[: len(garbage)]
    paste.of_lines([garbage, half + garbage, half, garbage + half])
    read_log(stamped((line,)) + garbage, Source.CONSOLE)


def test_the_command_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(stamped())
    assert main(["mce", str(path)]) == ExitCode.PASS
    shown = capsys.readouterr().out
    for words in ("SRAR", "load", "0x1234567c0", "KeyID", "16", "TDX private memory error"):
        assert words in shown
    assert main(["mce", "0xbd80000000100134", "--json"]) == ExitCode.PASS
    assert '"grade": "SRAR"' in capsys.readouterr().out
    assert main(["mce", "no-such-file"]) == ExitCode.USAGE
    assert main(["mce", "0xbd80000000100134", "--phys-bits", "70"]) == ExitCode.USAGE
    path.write_bytes(b"nothing\n")
    assert main(["mce", str(path)]) == ExitCode.CANNOT_JUDGE

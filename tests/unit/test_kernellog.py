# SPDX-License-Identifier: GPL-2.0-or-later
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import EvidenceError
from harness.kernellog import (
    MOST_FINDINGS,
    firmware_ranges,
    has_kernel_lines,
    says,
    scan,
    slice_between,
)
from harness.verdict import Finding, Severity

GOLDEN = Path(__file__).parents[1] / "data" / "kernellog"
WARN = b"[    2.000010] WARNING: CPU: 0 PID: 80 at kernel/dma/direct.c:333 f+0x5c/0x90\n"


def render(findings: list[Finding]) -> list[str]:
    """Findings as the header of a golden file says them."""
    lines = []
    for finding in findings:
        extra = finding.extra
        lines += [f"TITLE: {extra['title']}", f"KIND: {extra['kind']}"]
        if finding.rule != "kernel-log":
            lines.append(f"RULE: {finding.rule}")
        if extra["frames"]:
            lines.append(f"FRAMES: {' '.join(extra['frames'])}")
        lines.append(f"FINGERPRINT: {extra['fingerprint']}")
        if extra["panicked"]:
            lines.append("PANICKED: Y")
        if finding.count > 1:
            lines.append(f"COUNT: {finding.count}")
    return lines or ["FIND: none"]


def read_golden(path: Path) -> tuple[dict[str, str], list[str], bytes]:
    """How a golden log was made, what has to be found in it, and the log."""
    header, _, log = path.read_bytes().partition(b"\n\n")
    made, kernel, *found = header.decode().splitlines()
    return dict(line.split(": ", 1) for line in (made, kernel)), found, log


@pytest.mark.parametrize("path", sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_golden_log(path: Path) -> None:
    made, found, log = read_golden(path)
    assert list(made) == ["MADE", "KERNEL"]
    assert made["MADE"].startswith(("recorded: ", "by hand"))
    assert render(scan(log)) == found


def test_golden_logs_are_many_and_a_third_is_clean() -> None:
    golden = [read_golden(path) for path in GOLDEN.iterdir()]
    clean = [found for _, found, _ in golden if found == ["FIND: none"]]
    recorded = [made for made, _, _ in golden if made["MADE"].startswith("recorded")]
    assert len(recorded) >= 40
    assert len(golden) / 3 <= len(clean) < len(golden)


def test_every_bug_has_a_line_a_fingerprint_and_an_excerpt() -> None:
    log = b"[    1.000000] Run /init as init process\n" + WARN
    (finding,) = scan(log)
    assert finding.seq == 2
    assert len(finding.extra["fingerprint"]) == 16
    assert finding.extra["excerpt"] == [WARN[15:-1].decode()]
    assert finding.severity is Severity.FAIL


def test_a_warning_says_its_message() -> None:
    cut = b"[    2.000001] ------------[ cut here ]------------\n"
    said = b"[    2.000002] CPA VMM failure to convert memory (addr=00000000206b3e76): -5\n"
    (finding,) = scan(cut + said + WARN)
    assert finding.extra["message"].startswith("CPA VMM failure")
    assert finding.summary.endswith(finding.extra["message"])
    for without in (cut + WARN, said + WARN, cut + said + said + WARN):
        assert "message" not in scan(without)[0].extra


def test_a_kernel_that_prints_no_stamps() -> None:
    log = read_golden(GOLDEN / "clean-rec-no-stamps")[2] + b"\r\n"
    assert says(log, "Memory Encryption Features active: Intel TDX")
    assert firmware_ranges(log)
    warned = b"WARNING: CPU: 0 PID: 80 at a.c:333 f+0x5c/0x90\r\n g+0x1/0x2\r\n"
    assert [f.extra["frames"] for f in scan(log + warned)] == [["f", "g"]]
    mark = b"tdharness: mark begin 5\r\n"
    assert slice_between(log + mark + warned, 5) == warned
    assert scan(log.replace(b"printk.time=0", b"printk.time=1") + warned) == []


def test_out_of_memory_is_reported_only() -> None:
    (finding,) = scan(b"[   17.000000] Out of memory: Killed process 120 (stress)\n")
    assert finding.severity is Severity.REPORT


def test_machine_check_is_decoded() -> None:
    (finding,) = scan(read_golden(GOLDEN / "mce-fatal")[2])
    assert finding.gpa == 0x1B200040
    (bank,) = finding.extra["banks"]
    assert (bank["cpu"], bank["bank"], bank["mcgstatus"], bank["addr"]) == (0, 1, 5, 0x1B200040)
    assert (bank["status"], bank["grade"]) == (0xBD80000000100134, "SRAR")
    assert bank["meaning"] == ["uncorrected", "signalled", "action required", "data load"]


def test_machine_checks_that_are_folded_keep_their_banks() -> None:
    record = (
        b"[    1.000000] mce: [Hardware Error]: CPU %d: Machine Check: 0 Bank 2: 90000000000000c0\n"
    )
    (finding,) = scan(b"".join(record % cpu for cpu in range(30)))
    assert finding.count == 30
    assert [bank["cpu"] for bank in finding.extra["banks"]] == list(range(16))


def test_text_of_the_guest_is_escaped_and_bounded() -> None:
    log = b"[    1.000000] BUG: \x1b]0;pwned\x07 \xe2\x80\xae" + b"A" * 5000 + b"\n"
    (finding,) = scan(log)
    text = finding.summary + finding.extra["title"] + "".join(finding.extra["excerpt"])
    assert text.isprintable()
    assert "\\x1b" in text
    assert len(text) < 1000


def test_a_stamp_within_a_line_must_fit_its_neighbours() -> None:
    before, after = b"[    1.000000] a\n", b"[    3.000000] b\n"
    fits = b"user text " + WARN
    assert len(scan(before + fits + after)) == 1
    assert scan(b"[    2.500000] a\n" + fits + after) == []
    assert scan(before + fits + b"[    1.100000] b\n") == []


def test_flood_is_bounded() -> None:
    line = b"[%5d.000000] WARNING: CPU: 0 PID: 1 at a.c:1 f%d+0x1/0x2\n"
    log = b"".join(line % (i, i) for i in range(20_000))
    start = time.monotonic()
    assert len(scan(log)) == MOST_FINDINGS
    assert time.monotonic() - start < 5


def test_large_clean_log_is_read_to_its_end() -> None:
    log = b"[    1.000000] nothing to see here, and nothing there either\n" * 400_000 + WARN
    start = time.monotonic()
    (finding,) = scan(log)
    assert finding.seq == 400_001
    assert time.monotonic() - start < 5


def test_slice_between_marks() -> None:
    log = (
        WARN
        + b"[    3.000000] tdharness: mark begin 12\r\n"
        + b"inside\n"
        + b"[    4.000000] tdharness: mark end 12\r\n"
        + b"[    5.000000] tdharness: mark begin 1\r\n"
    )
    assert slice_between(log, 12) == b"inside\n"
    assert slice_between(log, 1) == b""
    with pytest.raises(EvidenceError, match="slice 2"):
        slice_between(log, 2)


def test_firmware_ranges_of_both_forms() -> None:
    log = (
        b"[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\r\n"
        b"[    0.000000] BIOS-e820: [mem 0x000000003ffe0000-0x000000003fffffff] reserved\r\n"
        b"[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000003ffdffff] 1 GB System RAM\n"
        b"[    0.000000] BIOS-e820: [mem 0x000000007fff0000-0x000000007fffffff]   64 KB ACPI data\n"
        b"BIOS-e820: [mem 0x0000000000000000-0xffffffffffffffff] reserved\n"
    )
    assert firmware_ranges(log) == ((0x3FFE0000, 0x40000000), (0x7FFF0000, 0x80000000))


def test_only_the_kernel_can_say_it() -> None:
    line = b"Memory Encryption Features active: Intel TDX\n"
    wanted = "Memory Encryption Features active: Intel TDX"
    assert says(b"[    0.040000] " + line, wanted)
    assert not says(line, wanted)
    assert not says(b"[    0.040000] echo " + line, wanted)
    assert has_kernel_lines(b"SeaBIOS\r\n[    0.040000] x\r\n")
    assert not has_kernel_lines(b"SeaBIOS\r\n")


@given(st.binary(max_size=2000))
def test_any_bytes_can_be_scanned(log: bytes) -> None:
    scan(log)


PIECES = st.sampled_from(
    [
        b"[    1.000000] ",
        b"BUG: x",
        b"WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2",
        b"\n",
        b" f+0x1/0x2\n",
        b"Kernel panic - not syncing: Fatal exception",
        b"mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 1: ffffffffffffffffffff",
        b"---[ end trace",
        b"\x1b[",
        b"\xff",
    ]
)


@given(st.lists(PIECES, max_size=30))
def test_any_mix_of_kernel_text_can_be_scanned(pieces: list[bytes]) -> None:
    for finding in scan(b"".join(pieces)):
        assert finding.extra["title"].isprintable()

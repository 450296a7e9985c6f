# SPDX-License-Identifier: GPL-2.0-or-later
"""MCi_STATUS and MCG_STATUS by the SDM: classes, codes, words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.hostmce import codes
from harness.hostmce.record import PHYS_BITS, MceRecord, from_json, split_address
from harness.hostmce.status import (
    SER_P,
    Grade,
    Mcg,
    Status,
    corrected_count,
    describe,
    describe_mcg,
    flag_names,
    grade,
)

U64 = st.integers(0, (1 << 64) - 1)
VAL, OVER, UC, EN, PCC, S, AR = (
    Status.VAL, Status.OVER, Status.UC, Status.EN, Status.PCC, Status.S, Status.AR
)  # fmt: skip
MCIP = int(Mcg.MCIP)
ICELAKE, SAPPHIRE, EMERALD, QEMU = 0x606A6, 0x806F8, 0xC06F2, 0x663


# The rows of the table "MC Error Classifications", those of "Overwrite Rules for UC, CE, and UCR
# Errors" that end in a reset, and the branches of the handler that the SDM gives.
@pytest.mark.parametrize(
    ("status", "mcgstatus", "mcgcap", "expected"),
    [
        (0, 0, None, Grade.INVALID),
        (UC | EN | PCC, MCIP, None, Grade.INVALID),
        (VAL, 0, None, Grade.CORRECTED),
        (VAL | OVER | EN, 0, None, Grade.CORRECTED),
        (VAL | UC | EN | PCC, MCIP, None, Grade.FATAL),
        (VAL | UC | EN | PCC | S | AR, MCIP, None, Grade.FATAL),
        (VAL | UC | EN | S | AR | 0x134, MCIP, None, Grade.SRAR),
        (VAL | UC | EN | S | 0x17A, MCIP, None, Grade.SRAO),
        (VAL | UC | EN | S | 0x5, MCIP, None, Grade.SRAO),
        (VAL | UC | EN | 0xC3, 0, None, Grade.SRAO),
        (VAL | UC | 0x10C3, 0, None, Grade.SRAO),
        (VAL | UC | EN | 0x90, 0, None, Grade.UCNA),
        (VAL | UC | 0x90, 0, None, Grade.UCNA),
        (VAL | UC | OVER | EN | S | AR | 0x134, MCIP, None, Grade.FATAL),
        (VAL | UC | OVER | EN | S | 0x17A, MCIP, None, Grade.SRAO),
        (VAL | UC | OVER | EN | 0x90, 0, None, Grade.UCNA),
        (VAL | UC | EN | AR | 0x134, MCIP, None, Grade.FATAL),
        (VAL | UC | PCC, MCIP, None, Grade.SPURIOUS),
        (VAL | UC | OVER | PCC, MCIP, None, Grade.FATAL),
        (VAL | UC | EN | S | AR | 0x134, MCIP, SER_P, Grade.SRAR),
        (VAL | UC | EN | S | AR | 0x134, MCIP, 0xC16, Grade.FATAL),
    ],
)
def test_the_class_is_the_sdm_s(
    status: int, mcgstatus: int, mcgcap: int | None, expected: Grade
) -> None:
    assert grade(int(status), mcgstatus, mcgcap) is expected


@given(U64, U64, st.none() | U64)
def test_every_status_has_a_class_words_and_a_json_form(
    status: int, mcgstatus: int, mcgcap: int | None
) -> None:
    record = MceRecord(bank=1, status=status, mcgstatus=mcgstatus, mcgcap=mcgcap)
    assert record.grade.meaning
    assert all(word.isprintable() and word for word in record.meaning)
    assert from_json(record.to_json()) == record


@given(U64, U64)
def test_flags_make_it_only_worse(status: int, mcgstatus: int) -> None:
    order = list(Grade)
    status |= VAL | EN
    plain = order.index(grade(status & ~int(PCC), mcgstatus))
    assert order.index(grade(status | UC | PCC, mcgstatus)) >= plain
    assert grade(status & ~int(UC), mcgstatus) is Grade.CORRECTED
    assert grade(status & ~int(VAL), mcgstatus) is Grade.INVALID


@given(U64)
def test_the_filter_bit_is_no_part_of_the_code(status: int) -> None:
    assert codes.name(status | 1 << 12) == codes.name(status & ~(1 << 12))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x0, "no error"),
        (0x5, "internal parity"),
        (0xE, "memory hierarchy, L2"),
        (0x14, "TLB, data, L0"),
        (0x90, "memory controller, read, channel 0"),
        (0xA3, "memory controller, write, channel 3"),
        (0xCF, "memory controller, scrub"),
        (0xD1, "memory controller, reserved request, channel 1"),
        (0x134, "data load"),
        (0x150, "instruction fetch"),
        (0x151, "cache, instruction instruction fetch, L1"),
        (0x17A, "explicit write-back"),
        (0x29F, "memory used as cache, read"),
        (0x400, "internal timer"),
        (0x405, "internal, unclassified"),
        (0xE0B, "I/O error"),
        (0xE0F, "bus, generic role, error, other, generic level"),
        (0x935, "bus, own request, data read, reserved, L1, timeout"),
        (0x20, "code 0x20"),
        (0x8000, "code 0x8000"),
    ],
)
def test_codes_by_name(code: int, words: str) -> None:
    assert codes.name(code) == words


def test_a_memory_controller_s_own_code_is_named_where_the_cpu_is_known() -> None:
    integrity = VAL | UC | EN | 0x082A << 16 | 0x90
    for cpuid, bank in ((ICELAKE, 17), (SAPPHIRE, 13), (EMERALD, 20)):
        assert "TME_INTEGRITY_ERR" in codes.model_name(integrity, bank, cpuid)
        assert codes.of_tdx(integrity, bank, cpuid)
    for cpuid, bank in ((ICELAKE, 16), (SAPPHIRE, 21), (SAPPHIRE, 1), (QEMU, 13), (0xA0F12, 13)):
        assert codes.model_name(integrity, bank, cpuid) == ""
        assert not codes.of_tdx(integrity, bank, cpuid)
    assert not codes.of_tdx(VAL | 0x0080 << 16, 13, SAPPHIRE)


@pytest.mark.parametrize(
    ("status", "mcgstatus", "words"),
    [
        (0, 0, ("not valid",)),
        (VAL | 0x150, 1 << 12, ("corrected", "instruction fetch", "in SEAM non-root mode")),
        (VAL | 7 << 38 | 0x5, 0, ("corrected", "7 times", "internal parity")),
        (
            VAL | UC | OVER | 0x90,
            0,
            (
                "overflow",
                "uncorrected",
                "memory controller, read, channel 0",
                "reporting not enabled",
            ),
        ),
        (
            VAL | UC | EN | PCC | 0x400,
            MCIP,
            (
                "uncorrected",
                "processor context corrupt",
                "internal timer",
                "neither restart nor error IP",
            ),
        ),
    ],
)
def test_registers_in_words(status: int, mcgstatus: int, words: tuple[str, ...]) -> None:
    assert describe(int(status), mcgstatus) == words


def test_flags_by_name() -> None:
    assert flag_names(0xBD80000000100134, 0x1007) == (
        "VAL UC EN MISCV ADDRV S AR / RIPV EIPV MCIP SEAM_NR"
    )
    assert flag_names(0, 0) == ""
    assert describe_mcg(int(Mcg.MCIP | Mcg.EIPV)) == ()


def test_corrected_errors_are_counted_only_where_the_bits_count() -> None:
    assert corrected_count(int(VAL) | 5 << 38) == 5
    assert corrected_count(int(VAL | UC) | 5 << 38) is None
    assert corrected_count(5 << 38) is None


def test_the_key_id_lies_above_the_address() -> None:
    assert split_address(0x40001234567C0) == (16, 0x1234567C0)
    assert split_address(5 << PHYS_BITS | 64) == (5, 64)
    assert split_address(5 << 40 | 64, 40) == (5, 64)


def test_an_address_is_as_fine_as_misc_says() -> None:
    at = 16 << PHYS_BITS | 0x123456789
    status = int(VAL | UC | EN | Status.ADDRV | Status.MISCV)
    assert MceRecord(bank=1, status=status, addr=at, misc=0x86).address() == (16, 0x123456780)
    assert MceRecord(bank=1, status=status, addr=at, misc=0x8C).address() == (16, 0x123456000)
    assert MceRecord(bank=1, status=status, addr=at).address() == (16, 0x123456789)
    assert MceRecord(bank=1, status=status).address() is None


def test_a_td_is_named_by_each_of_three_witnesses() -> None:
    said = "TDX private memory error. Possible kernel bug."
    assert MceRecord(bank=1, status=1 << 63, mcgstatus=int(Mcg.SEAM_NR)).of_tdx()
    assert MceRecord(bank=1, status=1 << 63, said=(said,)).of_tdx()
    memory = int(VAL | UC | EN) | 0x082B << 16 | 0x90
    assert MceRecord(bank=13, status=memory, cpuid=SAPPHIRE).of_tdx()
    assert not MceRecord(bank=13, status=memory).of_tdx()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine check registers in words (Intel SDM volume 3, chapter "Machine-Check Architecture")."""

_STATUS_BITS = (
    (62, "overflow"),
    (61, "uncorrected"),
    (57, "processor context corrupt"),
    (56, "signalled"),
    (55, "action required"),
)
_VALID = 1 << 63
_UNCORRECTED = 1 << 61
# MCG_STATUS: the check was raised while the CPU ran in SEAM non-root mode, that is, in a TD.
_SEAM_NON_ROOT = 1 << 12
# Compound codes of Intel's architecture, with the filter bit (12) left out.
_CODES = {0x134: "data load", 0x150: "instruction fetch", 0x17A: "explicit write-back"}
_FILTER_BIT = 1 << 12
# Physical address bits of a host that runs TDs, less those that KeyIDs take: ADDR holds the KeyID
# above them.
PHYS_BITS = 46


def describe(status: int, mcgstatus: int) -> tuple[str, ...]:
    """What MCi_STATUS and MCG_STATUS say, as short phrases."""
    if not status & _VALID:
        return ("not valid",)
    words = [name for bit, name in _STATUS_BITS if status >> bit & 1]
    if not status & _UNCORRECTED:
        words.append("corrected")
    code = status & 0xFFFF & ~_FILTER_BIT
    if code in _CODES:
        words.append(_CODES[code])
    elif 0x80 <= code <= 0xFF:
        words.append("memory controller")
    else:
        words.append(f"code {code:#x}")
    if mcgstatus & _SEAM_NON_ROOT:
        words.append("in SEAM non-root mode")
    return tuple(words)


def split_address(address: int, phys_bits: int = PHYS_BITS) -> tuple[int, int]:
    """KeyID and physical address out of MCi_ADDR."""
    return address >> phys_bits, address & ((1 << phys_bits) - 1)

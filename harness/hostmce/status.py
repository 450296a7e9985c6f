# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine check registers in words.

Intel SDM volume 3, chapter "Machine-Check Architecture": IA32_MCG_CAP, IA32_MCG_STATUS,
IA32_MCi_STATUS, the tables "MC Error Classifications" and "Overwrite Rules for UC, CE, and UCR
Errors", and the handler that it gives as pseudo-code. SEAM_NR: arch/x86/include/asm/mce.h, since
7911f145de5f ("x86/mce: Implement recovery for errors in TDX/SEAM non-root mode").
"""

from enum import IntFlag, StrEnum

from harness.hostmce import codes


class Status(IntFlag):
    """Flags of MCi_STATUS."""

    VAL = 1 << 63
    OVER = 1 << 62
    UC = 1 << 61
    EN = 1 << 60
    MISCV = 1 << 59
    ADDRV = 1 << 58
    PCC = 1 << 57
    S = 1 << 56
    AR = 1 << 55


class Mcg(IntFlag):
    """Flags of MCG_STATUS."""

    RIPV = 1 << 0
    EIPV = 1 << 1
    MCIP = 1 << 2
    LMCE_S = 1 << 3
    # the check was raised while the CPU ran in SEAM non-root mode, that is, in a TD
    SEAM_NR = 1 << 12


# MCG_CAP: the CPU can recover from uncorrected errors; without it, S and AR say nothing.
SER_P = 1 << 24
_COUNT_SHIFT, _COUNT_MASK = 38, 0x7FFF
_U64 = (1 << 64) - 1


class Grade(StrEnum):
    """How bad an error is, best first."""

    INVALID = "not valid"
    SPURIOUS = "spurious"
    CORRECTED = "corrected"
    UCNA = "UCNA"
    SRAO = "SRAO"
    SRAR = "SRAR"
    FATAL = "fatal"

    @property
    def meaning(self) -> str:
        """What it asks for, in a few words."""
        return _MEANINGS[self]

    @property
    def uncorrected(self) -> bool:
        """Whether data was lost."""
        return self in (Grade.UCNA, Grade.SRAO, Grade.SRAR, Grade.FATAL)


_MEANINGS = {
    Grade.INVALID: "the bank holds no error",
    Grade.SPURIOUS: "uncorrected, but its reporting was not enabled: logged only",
    Grade.CORRECTED: "corrected by the hardware",
    Grade.UCNA: "uncorrected, not consumed yet: no action required",
    Grade.SRAO: "uncorrected, not consumed yet: recovery is optional",
    Grade.SRAR: "uncorrected and consumed: who consumed it must not go on",
    Grade.FATAL: "uncorrected and past recovery: the machine must stop",
}
_FLAG_WORDS = {
    Status.OVER: "overflow",
    Status.UC: "uncorrected",
    Status.PCC: "processor context corrupt",
    Status.S: "signalled",
    Status.AR: "action required",
}


def grade(status: int, mcgstatus: int = 0, mcgcap: int | None = None) -> Grade:
    """The SDM's class of an error, from its bank alone.

    `mcgstatus` tells an exception (MCIP) from a polled bank; without `mcgcap` the CPU is taken for
    one that can recover, as every CPU with TDX can.
    """
    flags = Status(status & sum(Status))
    if not flags & Status.VAL:
        return Grade.INVALID
    if not flags & Status.UC:
        return Grade.CORRECTED
    recovers = mcgcap is None or bool(mcgcap & SER_P)
    if recovers and mcgstatus & Mcg.MCIP and not flags & (Status.EN | Status.OVER):
        return Grade.SPURIOUS
    if flags & Status.PCC or not recovers:
        return Grade.FATAL
    return _recoverable(flags, status)


def _recoverable(flags: Status, status: int) -> Grade:
    """The class of an error with UC=1 and PCC=0."""
    signalled, required = bool(flags & Status.S), bool(flags & Status.AR)
    if required:
        # AR without S is no combination that a CPU may report. Where an error was overwritten,
        # nobody knows what else was consumed.
        return Grade.FATAL if not signalled or flags & Status.OVER else Grade.SRAR
    # An SRAO error may come by CMCI, and then has S=0: only its code tells it from UCNA.
    return Grade.SRAO if signalled or codes.action_optional(status) else Grade.UCNA


def corrected_count(status: int) -> int | None:
    """How many errors the bank counted; None where the bits do not count (UC=1)."""
    if not status & Status.VAL or status & Status.UC:
        return None
    return status >> _COUNT_SHIFT & _COUNT_MASK


def describe(status: int, mcgstatus: int, *, bank: int = -1, cpuid: int = 0) -> tuple[str, ...]:
    """What MCi_STATUS and MCG_STATUS say, as short phrases.

    With `bank` and `cpuid` (leaf 1, EAX) the model-specific code is named where it is known.
    """
    if not status & Status.VAL:
        return (Grade.INVALID.value,)
    words = [word for flag, word in _FLAG_WORDS.items() if status & flag]
    if not status & Status.UC:
        words.append("corrected")
        count = corrected_count(status)
        words += [f"{count} times"] if count and count > 1 else []
    words.append(codes.name(status))
    if model := codes.model_name(status, bank, cpuid):
        words.append(model)
    if status & Status.UC and not status & Status.EN:
        words.append("reporting not enabled")
    return (*words, *describe_mcg(mcgstatus))


def describe_mcg(mcgstatus: int) -> tuple[str, ...]:
    """What MCG_STATUS says that matters to who reads a record."""
    words = []
    if mcgstatus & Mcg.MCIP and not mcgstatus & (Mcg.RIPV | Mcg.EIPV):
        words.append("neither restart nor error IP")
    if mcgstatus & Mcg.SEAM_NR:
        words.append("in SEAM non-root mode")
    return tuple(words)


def flag_names(status: int, mcgstatus: int) -> str:
    """The flags that are set, by the SDM's names."""
    bank = [str(flag.name) for flag in Status if status & flag]
    whole = [str(flag.name) for flag in Mcg if mcgstatus & flag]
    return " ".join(bank) + (f" / {' '.join(whole)}" if whole else "")


def unsigned(value: int) -> int:
    """A register that was kept as a signed number of 64 or 32 bits."""
    return value & _U64

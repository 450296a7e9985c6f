# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine checks that the lab host can be given; pure.

Bits of MCi_STATUS as in the Intel SDM, volume 3, chapter "Machine-Check Architecture".
"""

from dataclasses import dataclass

_VALID = 1 << 63
_UNCORRECTED = 1 << 61
_ENABLED = 1 << 60
_MISC_VALID = 1 << 59
_ADDRESS_VALID = 1 << 58
_CONTEXT_CORRUPT = 1 << 57
_SIGNALLED = 1 << 56
_ACTION_REQUIRED = 1 << 55
_COUNT_SHIFT = 38
_READ_CHANNEL_0 = 0x0090
_SCRUB_CHANNEL_0 = 0x00C0
_DATA_READ = 0x0134
# The program can be gone on with, and a machine check is in progress.
_RESTARTABLE = 0b101
# The address is physical, and good to a line of 4 KiB.
_PHYSICAL_4K = 0x8C
_MEMORY_BANK = 9
_DATA_BANK = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineCheck:
    """What the registers of a bank say; `cpu` is the processor that has it."""

    status: int
    address: int
    bank: int = _MEMORY_BANK
    misc: int = _PHYSICAL_4K
    # MCG_STATUS; 0: no exception is raised
    global_status: int = 0
    cpu: int = 0
    # To all processors, as Intel's do: without, the kernel dies waiting for the others.
    broadcast: bool = False

    @property
    def command(self) -> str:
        """For QEMU's human monitor."""
        numbers = f"{self.status:#x} {self.global_status:#x} {self.address:#x} {self.misc:#x}"
        return f"mce {'-b ' if self.broadcast else ''}{self.cpu} {self.bank} {numbers}"


def corrected(address: int, *, cpu: int = 0) -> MachineCheck:
    """One corrected error of a memory read; nothing is lost, the kernel finds it as it polls."""
    status = _VALID | _MISC_VALID | _ADDRESS_VALID | 1 << _COUNT_SHIFT | _READ_CHANNEL_0
    return MachineCheck(status=status, address=address, cpu=cpu)


def recoverable(address: int, *, cpu: int = 0) -> MachineCheck:
    """An uncorrected error that scrubbing found (SRAO): the kernel gives up the page."""
    status = _VALID | _UNCORRECTED | _ENABLED | _MISC_VALID | _ADDRESS_VALID | _SIGNALLED
    return MachineCheck(
        status=status | _SCRUB_CHANNEL_0,
        address=address,
        global_status=_RESTARTABLE,
        cpu=cpu,
        broadcast=True,
    )


def fatal(address: int, *, cpu: int = 0) -> MachineCheck:
    """Poison was read and the context is corrupt: the host dies."""
    status = _VALID | _UNCORRECTED | _ENABLED | _MISC_VALID | _ADDRESS_VALID | _SIGNALLED
    status |= _ACTION_REQUIRED | _CONTEXT_CORRUPT | _DATA_READ
    return MachineCheck(
        status=status,
        address=address,
        bank=_DATA_BANK,
        global_status=_RESTARTABLE,
        cpu=cpu,
        broadcast=True,
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host's kernel would have logged when a TD read poison: the stub has no host of its own.

The text is that of arch/x86/kernel/cpu/mce/core.c and of KVM's vp_enter error; harness.kernellog
reads it as it would a real one.
"""

from collections.abc import Sequence

from harness.events import Event, Kind, PoisonAction
from harness.hostmce.record import PHYS_BITS

# A data load in an unrecoverable place, signalled: SDM volume 3, "SRAR errors".
STATUS = 0xBD80000000000134
_CONTEXT_CORRUPT = 1 << 57
# RIPV, EIPV, MCIP, LMCE_S and SEAM_NR: raised while the CPU ran the TD.
_MCG_STATUS = 0x100F
_BANK = 1
# An address of 64 bytes, physical.
_MISC = 0x86
# The first private KeyID of a host with 15 KeyIDs for TME-MK.
KEY_ID = 16
_PREFIX = "mce: [Hardware Error]: "


def host_log(events: Sequence[Event]) -> str:
    """The records of every read of poison that the host took; "" without one."""
    taken = [
        event
        for event in events
        if event.kind is Kind.POISON_READ and event.args[2] != PoisonAction.GUEST_MCE
    ]
    return "".join(line + "\n" for event in taken for line in _record(event))


def _record(event: Event) -> list[str]:
    crash = event.args[2] == PoisonAction.HOST_CRASH
    status = STATUS | (_CONTEXT_CORRUPT if crash else 0)
    address = KEY_ID << PHYS_BITS | event.args[1] // 64 * 64
    lines = [
        f"{_PREFIX}CPU {event.vcpu}: Machine Check Exception: {_MCG_STATUS:x} "
        f"Bank {_BANK}: {status:016x}",
        f"{_PREFIX}TSC 0 ADDR {address:x} MISC {_MISC:x} ",
    ]
    if crash:
        lines.append(f"{_PREFIX}Machine check: Processor context corrupt")
        lines.append("Kernel panic - not syncing: Fatal local machine check")
    else:
        lines.append(f"{_PREFIX}Machine check: Data load error in SEAM non-root mode")
        lines.append("kvm: TD vp_enter_ret 0x6000000500000000")
    return [f"[    0.000000] {line}" for line in lines]

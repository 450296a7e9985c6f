# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes a guest a TD on hardware, and QEMU's words for it; pure.

Tried as far as QEMU and libvirt go without TDX: QEMU's parser, libvirt's schema.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.text import printable

# TD attributes (TDX module ABI specification, ATTRIBUTES): debug, and no #VE for pending pages,
# which Linux needs as its #VE handler takes none (arch/x86/coco/tdx: tdx_parse_tdinfo()).
DEBUG = 1 << 0
SEPT_VE_DISABLE = 1 << 28
# of MRCONFIGID, MROWNER and MROWNERCONFIG: a SHA-384
_IDENTITY_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Td:
    """A TD's measured configuration. The three identities are 48 bytes in base64, or nothing."""

    firmware: Path
    attributes: int = SEPT_VE_DISABLE
    mr_config_id: str = ""
    mr_owner: str = ""
    mr_owner_config: str = ""
    quote_socket: Path | None = None

    def __post_init__(self) -> None:
        """Raises ConfigError: neither libvirt's schema nor QEMU's parser knows the length."""
        for name in ("mr_config_id", "mr_owner", "mr_owner_config"):
            text = getattr(self, name)
            if text and not _is_identity(text):
                raise ConfigError(f"{name} {printable(text, 80)} is not 48 bytes in base64")


def _is_identity(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _IDENTITY_BYTES
    except ValueError:
        return False


def td_arguments(td: Td) -> list[str]:
    """QEMU's options that make a machine of KVM a TD, for QEMU 10.1 and newer."""
    facts: dict[str, object] = {
        "qom-type": "tdx-guest",
        "id": "td",
        "attributes": td.attributes & ~SEPT_VE_DISABLE,
        "sept-ve-disable": bool(td.attributes & SEPT_VE_DISABLE),
    }
    identities = {
        "mrconfigid": td.mr_config_id,
        "mrowner": td.mr_owner,
        "mrownerconfig": td.mr_owner_config,
    }
    facts |= {name: value for name, value in identities.items() if value}
    if td.quote_socket:
        facts["quote-generation-socket"] = {"type": "unix", "path": str(td.quote_socket)}
    return [
        *("-object", json.dumps(facts)),
        *("-machine", "kernel-irqchip=split,confidential-guest-support=td,hpet=off"),
        *("-bios", str(td.firmware)),
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a built lab host."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A lab host that can be started; nothing of it is written to after it was built."""

    # ext4 without a partition table, raw
    disk: Path
    # qcow2 upon the disk: as it was after the first boot
    overlay: Path
    # the machine at that moment, as QEMU migrates it
    state: Path
    # of the boot that was saved
    boot_id: str
    kernel: Path
    initrd: Path
    # of the client, for root
    key: Path
    # of the ssh server, in OpenSSH's one-line form
    host_key: str

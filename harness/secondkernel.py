# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest needs to start a second kernel in its place, by kexec: files of its image."""

from pathlib import Path

from harness.cpio import Entry
from harness.errors import BuildError
from harness.image import GuestRoot

# guest-images/initramfs/second-kernel loads it.
IMAGE = "/boot/kernel"
# The image in memory is handed on to the second kernel. Both are at the same addresses, so that
# the names of one do for the other.
CMDLINE = "retain_initrd nokaslr"
_KEXEC = "/usr/sbin/kexec"


def entries(kernel: Path, root: Path) -> list[Entry]:
    """The kernel's image, and kexec from a directory of unpacked packages. Raises BuildError."""
    packages = GuestRoot(root)
    kexec = packages.read(_KEXEC.lstrip("/"))
    try:
        image = kernel.read_bytes()
    except OSError as error:
        raise BuildError(f"cannot read the kernel {kernel}: {error.strerror}") from error
    return [
        Entry.file(IMAGE, image),
        Entry.file(_KEXEC, kexec, 0o755),
        *packages.libraries(kexec),
    ]

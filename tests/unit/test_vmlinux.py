# SPDX-License-Identifier: GPL-2.0-or-later
"""What is inside a kernel image."""

import bz2
import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard

from harness.testing.vmlinux import TEXT, bzimage, elf
from harness.vmlinux import ElfText, carries, kernel_text, vmlinux

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("how", COMPRESS)
def test_vmlinux_of_a_bzimage(how: str) -> None:
    inner = elf([(".text", b"\x90" * 64, True), (".data", b"x" * 64, False)])
    packed = COMPRESS[how](inner)
    assert vmlinux(bzimage(packed)) == inner
    assert vmlinux(bzimage(packed[: len(packed) // 2])) is None
    text = kernel_text(inner)
    assert text == ElfText(((TEXT, b"\x90" * 64),))


def test_an_image_carries_its_own_kernel_and_no_other() -> None:
    own = elf([(".text", b"\x90" * 64, True), (".rodata", b"one", False)])
    # of the same size, and with the same code
    other = elf([(".text", b"\x90" * 64, True), (".rodata", b"two", False)])
    image = bzimage(gzip.compress(own))
    assert carries(image, own) is True
    assert carries(image, other) is False
    assert carries(b"no image", own) is None


def test_images_that_cannot_be_read() -> None:
    inner = elf([(".text", b"\x90" * 64, True)])
    packed = gzip.compress(inner)
    assert vmlinux(inner) == inner
    assert vmlinux(bzimage(packed, version=0x0207)) is None
    assert vmlinux(bzimage(b"\x02\x21\x4c\x18 lz4")) is None
    assert vmlinux(bzimage(gzip.compress(b"not ELF"))) is None
    assert vmlinux(b"MZ") is None
    assert kernel_text(b"\x7fELF") is None
    assert kernel_text(elf([(".data", b"x", False)])) is None

# SPDX-License-Identifier: GPL-2.0-or-later
"""What is inside a kernel image: the vmlinux of a bzImage, its code, and the calls in that code."""

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zstandard
from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

# The setup header of the boot protocol (Documentation/arch/x86/boot.rst): offset of each field.
_SETUP_SECTS = 0x1F1
_MAGIC = 0x202
_VERSION = 0x206
_PAYLOAD = 0x248
_PAYLOAD_SINCE = 0x0208


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


# The payload ends with its length for the decompressor, so these stop at the end of the stream.
_FORMATS: dict[bytes, Callable[[], _Decompressor]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(wbits=31),
    b"\xfd7zXZ\0": lzma.LZMADecompressor,
    b"]\0\0": lzma.LZMADecompressor,
    b"\x28\xb5\x2f\xfd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    b"BZh": bz2.BZ2Decompressor,
}


def vmlinux(image: bytes) -> bytes | None:
    """The ELF file in a bzImage, or the image itself when it is one.

    None for anything else, for a compression that is not read here (lz4, lzo), and for a broken
    payload: symbols are a comfort, their lack is no reason to fail.
    """
    if image[:4] == b"\x7fELF":
        return image
    if len(image) < _PAYLOAD + 8 or image[_MAGIC : _MAGIC + 4] != b"HdrS":
        return None
    if struct.unpack_from("<H", image, _VERSION)[0] < _PAYLOAD_SINCE:
        return None
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    start = ((image[_SETUP_SECTS] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    for magic, decompressor in _FORMATS.items():
        if payload.startswith(magic):
            return _unpack(decompressor(), payload)
    return None


def _unpack(decompressor: _Decompressor, payload: bytes) -> bytes | None:
    try:
        data = decompressor.decompress(payload)
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError):
        return None
    return data if decompressor.eof and data[:4] == b"\x7fELF" else None


@dataclass(frozen=True, slots=True)
class Call:
    """A CALL instruction; `target` is its function's address where the bytes tell it."""

    target: int | None


@dataclass(frozen=True, slots=True)
class ElfText:
    """The executable sections of a vmlinux, as (link address, bytes)."""

    sections: tuple[tuple[int, bytes], ...]

    def at(self, address: int, size: int) -> bytes | None:
        """`size` bytes at a link address; None where they are not all code."""
        for start, code in self.sections:
            if start <= address and address + size <= start + len(code):
                return code[address - start : address - start + size]
        return None

    def call_before(self, address: int, is_thunk: Callable[[int], bool]) -> Call | None:
        """The CALL whose return address is `address`, None if there is none.

        `is_thunk` says whether a link address is a retpoline thunk. The running kernel patched
        some calls: a 6-byte indirect one became a 5-byte direct one (paravirt), and a 5-byte call
        of a thunk became a 2 or 3-byte indirect one. The bytes here are those before patching, so
        such calls are looked for at the places where they were.
        """
        code = self.at(address - 7, 10) or self.at(address - 7, 7)
        if code is None:
            return None
        if code[2] == 0xE8:
            target = address + int.from_bytes(code[3:7], "little", signed=True)
            return Call(None if is_thunk(target) else target)
        if _is_indirect(code) or code[2:4] == b"\xff\x15":
            return Call(None)
        for patched in (2, 3):
            at = 7 - patched
            if len(code) == 10 and code[at] == 0xE8:
                distance = int.from_bytes(code[at + 1 : at + 5], "little", signed=True)
                if is_thunk(address - patched + 5 + distance):
                    return Call(None)
        return None

    def jumps_from(self, start: int, end: int) -> frozenset[int]:
        """Where the bytes in [start, end) could jump with JMP rel32: tail calls among others."""
        code = self.at(start, end - start) or b""
        targets = set()
        at = code.find(0xE9)
        while 0 <= at <= len(code) - 5:
            distance = int.from_bytes(code[at + 1 : at + 5], "little", signed=True)
            targets.add(start + at + 5 + distance)
            at = code.find(0xE9, at + 1)
        return frozenset(targets)


def _is_indirect(code: bytes) -> bool:
    """Whether the last bytes of the seven are CALL r/m64 (FF /2) in one of its lengths."""
    for length in (2, 3, 4, 6, 7):
        opcode, modrm = code[7 - length], code[8 - length]
        if opcode == 0xFF and modrm >> 3 & 7 == 2 and _modrm_bytes(modrm) == length - 1:
            # With a SIB byte that names no base (mod 0), a 32-bit displacement follows.
            return True
        if opcode == 0xFF and modrm == 0x14 and length == 7 and code[2] & 7 == 5:
            return True
    return False


def _modrm_bytes(modrm: int) -> int:
    """Bytes of ModRM, SIB and displacement in 64-bit mode, a SIB without base left aside."""
    mod, rm = modrm >> 6, modrm & 7
    if mod == 3:
        return 1
    displacement = 4 if mod == 2 or (mod == 0 and rm == 5) else mod
    return 1 + (rm == 4) + displacement


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section lies in the file, and at which link address."""

    address: int
    offset: int
    size: int
    executable: bool


def sections(elf: bytes) -> tuple[Section, ...]:
    """The loaded sections of a vmlinux; empty when it cannot be read as ELF."""
    try:
        return tuple(
            Section(
                section["sh_addr"],
                section["sh_offset"],
                section["sh_size"],
                bool(section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR),
            )
            for section in ELFFile(io.BytesIO(elf)).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and section["sh_type"] == "SHT_PROGBITS"
        )
    except (ELFError, ValueError, KeyError, AttributeError, struct.error, OverflowError):
        return ()


def carries(image: bytes, elf: bytes) -> bool | None:
    """Whether what an image loads is what this vmlinux loads; None when the image is not read here
    (see `vmlinux`)."""
    inner = vmlinux(image)
    return None if inner is None else _loaded(inner) == _loaded(elf)


def _loaded(elf: bytes) -> list[bytes]:
    return [elf[s.offset : s.offset + s.size] for s in sections(elf)]


def kernel_text(elf: bytes) -> ElfText | None:
    """The code in a vmlinux (see `vmlinux`); None when there is none to be found."""
    code = tuple(
        (s.address, elf[s.offset : s.offset + s.size]) for s in sections(elf) if s.executable
    )
    return ElfText(code) if code else None

# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images made by hand: an ELF file with code and a symbol table, and a bzImage around it."""

import struct
from collections.abc import Callable, Sequence

TEXT = 0xFFFFFFFF81000000
# As in a real image, file offsets and addresses differ by one amount.
_FILE_BASE = 0x1000
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_ALLOC, _EXEC = 2, 4

Symbol = tuple[int, str, str]


def elf(sections: Sequence[tuple[str, bytes, bool]]) -> bytes:
    """A vmlinux whose sections (name, bytes, executable) follow each other from TEXT on."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in sections) + b".shstrtab\0"
    body, headers = b"", [bytes(_SHDR.size)]
    for name, data, executable in sections:
        at = len(body)
        flags = _ALLOC | (_EXEC if executable else 0)
        index = names.index(name.encode() + b"\0")
        headers.append(
            _SHDR.pack(index, 1, flags, TEXT + at, _FILE_BASE + at, len(data), 0, 0, 16, 0)
        )
        body += data + bytes(-len(data) % 16)
    strings = names.index(b".shstrtab\0")
    headers.append(_SHDR.pack(strings, 3, 0, 0, _FILE_BASE + len(body), len(names), 0, 0, 1, 0))
    body += names + bytes(-len(names) % 16)
    header = _EHDR.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9),
        *(2, 62, 1, TEXT, 0, _FILE_BASE + len(body), 0),
        *(_EHDR.size, 0, 0, _SHDR.size, len(headers), len(headers) - 1),
    )
    return header + bytes(_FILE_BASE - len(header)) + body + b"".join(headers)


def bzimage(payload: bytes, *, version: int = 0x020F, setup_sects: int = 4) -> bytes:
    """A bzImage that carries a compressed payload; a real one's length follows its stream."""
    payload += struct.pack("<I", 0)
    image = bytearray((setup_sects + 1) * 512 + 0x100)
    image[0x1F1] = setup_sects
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, 0x100, len(payload))
    return bytes(image) + payload


def kallsyms(
    symbols: Sequence[Symbol], *, layout: str = "base", at: int = 0, tokens: Sequence[bytes] = ()
) -> bytes:
    """The tables that a kernel carries of its symbols (address, type letter, name), sorted.

    `layout` is "base" (6.4 on), "percpu" (the same, with CONFIG_KALLSYMS_ABSOLUTE_PERCPU),
    "first" (up to 6.3) or "place" (7.3; `at` is the address where the tables will be).
    """
    table = [bytes([i]) if 32 < i < 127 else b"" for i in range(256)]
    for index, token in enumerate(tokens):
        table[128 + index] = token
    names, markers = b"", []
    for index, (_, kind, name) in enumerate(symbols):
        if index % 256 == 0:
            markers.append(len(names))
        names += _name((kind + name).encode(), tokens)
    blobs = [_pad(struct.pack("<I", len(symbols))), _pad(names)]
    blobs.append(_pad(struct.pack(f"<{len(markers)}I", *markers)))
    blobs.append(_pad(b"".join(token + b"\0" for token in table)))
    offsets = [sum(len(token) + 1 for token in table[:i]) for i in range(256)]
    blobs.append(struct.pack("<256H", *offsets))
    head = b"".join(blobs)
    pack = _PACKERS[layout]
    if layout == "first":
        return pack(symbols, at) + head
    return head + pack(symbols, at + len(head))


def _name(text: bytes, tokens: Sequence[bytes]) -> bytes:
    coded = text
    for index, token in enumerate(tokens):
        coded = coded.replace(token, bytes([128 + index]))
    if len(coded) < 128:
        return bytes([len(coded)]) + coded
    return bytes([len(coded) & 0x7F | 0x80, len(coded) >> 7]) + coded


def _pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def _with_base(symbols: Sequence[Symbol], _: int) -> bytes:
    offsets = [address - TEXT for address, _, _ in symbols]
    return _pad(struct.pack(f"<{len(offsets)}I", *offsets)) + struct.pack("<Q", TEXT)


def _percpu(symbols: Sequence[Symbol], _: int) -> bytes:
    offsets = [a if a < 1 << 31 else TEXT - 1 - a for a, _, _ in symbols]
    return _pad(struct.pack(f"<{len(offsets)}i", *offsets)) + struct.pack("<Q", TEXT)


def _from_place(symbols: Sequence[Symbol], at: int) -> bytes:
    offsets = [address - at - 4 * i for i, (address, _, _) in enumerate(symbols)]
    return _pad(struct.pack(f"<{len(offsets)}i", *offsets))


_PACKERS: dict[str, Callable[[Sequence[Symbol], int], bytes]] = {
    "base": _with_base,
    "first": _with_base,
    "percpu": _percpu,
    "place": _from_place,
}

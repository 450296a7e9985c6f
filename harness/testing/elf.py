# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest ELF files that say what a test needs: what they depend on, and nothing else."""

import struct
from collections.abc import Iterable, Mapping

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_DYN = struct.Struct("<qQ")

_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_ET_REL, _ET_DYN, _X86_64 = 1, 3, 62
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ = 1, 5, 10
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB = 1, 2, 3
_SYM = struct.Struct("<IBBHQQ")
_FUNCTION, _OBJECT = 2, 1


def program(needed: Iterable[str] = (), interpreter: str | None = None) -> bytes:
    """A program or library that needs these libraries, and this loader."""
    strings = b"\0"
    tags = b""
    for name in needed:
        tags += _DYN.pack(_DT_NEEDED, len(strings))
        strings += name.encode() + b"\0"
    interp = interpreter.encode() + b"\0" if interpreter else b""
    segments = 2 + bool(interp)
    at = _EHDR.size + segments * _PHDR.size
    strings_at = at + len(interp)
    dynamic_at = strings_at + len(strings)
    tags += _DYN.pack(_DT_STRTAB, strings_at) + _DYN.pack(_DT_STRSZ, len(strings))
    tags += _DYN.pack(0, 0)
    total = dynamic_at + len(tags)
    headers = _segment(_PT_LOAD, 0, total) + _segment(_PT_DYNAMIC, dynamic_at, len(tags))
    if interp:
        headers += _segment(_PT_INTERP, at, len(interp))
    return _header(_ET_DYN, segments=segments) + headers + interp + strings + tags


def kernel_module(
    depends: Iterable[str] = (), functions: Mapping[str, Mapping[str, int]] | None = None
) -> bytes:
    """A kernel module that depends on these, with functions at these offsets of its sections.

    In each section there is a datum called `datum` too, which is no function.
    """
    modinfo = b"license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=some\0"
    names, strings, symbols = b"\0", b"\0datum\0", _SYM.pack(0, 0, 0, 0, 0, 0)
    parts: list[tuple[str, int, bytes]] = [(".modinfo", _SHT_PROGBITS, modinfo)]
    for section, offsets in (functions or {}).items():
        parts.append((section, _SHT_PROGBITS, b""))
        symbols += _SYM.pack(1, _OBJECT, 0, len(parts), 0, 8)
        for name, offset in offsets.items():
            symbols += _SYM.pack(len(strings), _FUNCTION, 0, len(parts), offset, 8)
            strings += name.encode() + b"\0"
    link = len(parts) + 2
    parts += [(".symtab", _SHT_SYMTAB, symbols), (".strtab", _SHT_STRTAB, strings)]
    parts.append((".shstrtab", _SHT_STRTAB, b""))
    headers, content = _SHDR.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0), b""
    for name, kind, data in parts:
        if name == ".shstrtab":
            data = names + b".shstrtab\0"
        is_table = kind == _SHT_SYMTAB
        headers += _SHDR.pack(
            len(names),
            kind,
            0,
            0,
            _EHDR.size + len(content),
            len(data),
            link if is_table else 0,
            0,
            1,
            _SYM.size if is_table else 0,
        )
        names += name.encode() + b"\0"
        content += data
    header = _header(_ET_REL, sections_at=_EHDR.size + len(content), sections=len(parts) + 1)
    return header + content + headers


def _header(kind: int, *, segments: int = 0, sections_at: int = 0, sections: int = 0) -> bytes:
    return _EHDR.pack(
        _IDENT,
        kind,
        _X86_64,
        1,
        0,
        _EHDR.size if segments else 0,
        sections_at,
        0,
        _EHDR.size,
        _PHDR.size,
        segments,
        _SHDR.size,
        sections,
        max(0, sections - 1),
    )


def _segment(kind: int, offset: int, size: int) -> bytes:
    return _PHDR.pack(kind, 4, offset, offset, offset, size, size, 1)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames of a kernel log to file:line, out of a vmlinux with DWARF."""

import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.lineprogram import LineProgram, LineState
from elftools.elf.elffile import ELFFile

from harness.text import printable
from harness.verdict import Finding

_FRAME = re.compile(r"([A-Za-z_][\w.]*)\+0x([0-9a-f]{1,8})/0x([0-9a-f]{1,8})(?! *\[|\w)")
_SYMBOL = struct.Struct("<IBBHQQ")
_FUNCTION, _NOTYPE = 2, 0
_BROKEN = (ELFError, DWARFError, ValueError, KeyError, AttributeError, IndexError, struct.error)
_NAME_LENGTH = 200


class SourceLines:
    """Looks up frames in one image; `missing` says why it cannot, "" when it can."""

    def __init__(self, image: BinaryIO) -> None:
        """Reads the tables of symbols and addresses; what is broken is told by `missing`."""
        self.missing = ""
        self._starts: list[int] = []
        self._named: dict[str, list[int]] = {}
        try:
            self._elf = ELFFile(image)
            if not self._elf.has_dwarf_info(strict=True):
                self.missing = "the vmlinux has no debug information (CONFIG_DEBUG_INFO)"
                return
            self._dwarf = self._elf.get_dwarf_info(relocate_dwarf_sections=False)
            self._ranges = self._dwarf.get_aranges()
            if self._ranges is None:
                self.missing = "the vmlinux has no .debug_aranges to find an address by"
                return
            self._read_symbols()
        except _BROKEN as error:
            self.missing = f"the vmlinux cannot be read: {printable(str(error))}"

    def line_of(self, frame: str, *, returns: bool = True) -> str | None:
        """`file:line` of `function+0x1c/0x80`; None for a module's function or an unknown one.

        `returns`: the address is a return address, so the call is before it; the first frame, of
        the instruction itself, is none.
        """
        found = _FRAME.search(frame)
        if self.missing or not found:
            return None
        start = self._start(found[1], int(found[3], 16))
        if start is None:
            return None
        try:
            return self._line(start + int(found[2], 16) - (1 if returns else 0))
        except _BROKEN:
            return None

    def _read_symbols(self) -> None:
        table = self._elf.get_section_by_name(".symtab")
        if table is None:
            self.missing = "the vmlinux has no symbols"
            return
        names = self._elf.get_section(table["sh_link"]).data()
        starts = set()
        for name, info, _, section, address, _ in _SYMBOL.iter_unpack(table.data()):
            if info & 15 in (_FUNCTION, _NOTYPE) and section:
                starts.add(address)
                if info & 15 == _FUNCTION:
                    text = names[name : names.index(b"\0", name)].decode("ascii", "replace")
                    self._named.setdefault(text, []).append(address)
        self._starts = sorted(starts)

    def _start(self, name: str, size: int) -> int | None:
        """Where a function is: of several of one name the one with the kernel's idea of its size.

        That is the distance to the next symbol.
        """
        found = [
            start
            for start in self._named.get(name, ())
            if (after := bisect_right(self._starts, start)) < len(self._starts)
            and self._starts[after] - start == size
        ]
        return found[0] if len(found) == 1 else None

    def _line(self, address: int) -> str | None:
        offset = self._ranges.cu_offset_at_addr(address) if self._ranges else None
        if offset is None:
            return None
        unit = self._dwarf.get_CU_at(offset)
        program = self._dwarf.line_program_for_CU(unit)
        if program is None:
            return None
        state = _covering((entry.state for entry in program.get_entries() if entry.state), address)
        if state is None:
            return None
        attributes = unit.get_top_DIE().attributes
        directory = attributes["DW_AT_comp_dir"].value if "DW_AT_comp_dir" in attributes else b""
        return f"{_path(program, state.file, directory.decode(errors='replace'))}:{state.line}"


def add_sources(findings: Sequence[Finding], image: Path) -> tuple[Finding, ...]:
    """The findings, those of the kernel's log with `source`: file:line of their frames.

    `image` is the kernel's; its vmlinux lies where the build left it. Where no line can be known
    `no_source` says why.
    """
    wanted = [finding for finding in findings if finding.extra.get("trace")]
    if not wanted:
        return tuple(findings)
    try:
        with beside(image).open("rb") as file:
            lines = SourceLines(file)
            return tuple(_with_source(f, lines) if f in wanted else f for f in findings)
    except OSError:
        why = "there is no vmlinux beside the kernel's image"
        return tuple(_noted(f, {"no_source": why}) if f in wanted else f for f in findings)


def beside(image: Path) -> Path:
    """The vmlinux of arch/x86/boot/bzImage in a build tree, or the one in the image's directory."""
    image = image.absolute()
    tree = image.parents[3] if image.parts[-4:-1] == ("arch", "x86", "boot") else image.parent
    return tree / "vmlinux"


def _with_source(finding: Finding, lines: SourceLines) -> Finding:
    if lines.missing:
        return _noted(finding, {"no_source": lines.missing})
    trace = [str(frame) for frame in finding.extra["trace"]]
    # Only what was interrupted or trapped stands at its instruction, the rest at a return address.
    found = [lines.line_of(frame, returns=at > 0) or "?" for at, frame in enumerate(trace)]
    return _noted(finding, {"source": found})


def _noted(finding: Finding, more: dict[str, Any]) -> Finding:
    return replace(finding, extra={**finding.extra, **more})


def _covering(states: Iterable[LineState], address: int) -> LineState | None:
    """The row of a line table that holds an address."""
    for row, after in pairwise(states):
        if not row.end_sequence and row.address <= address < after.address:
            return row
    return None


def _path(program: LineProgram, number: int, directory: str) -> str:
    """A file's path below the directory of the build. Since DWARF 5 both tables begin with 0."""
    header = program.header
    first = 0 if header["version"] >= 5 else 1
    entry = header["file_entry"][number - first]
    folders = [folder.decode(errors="replace") for folder in header["include_directory"]]
    folder = "" if entry.dir_index < first else folders[entry.dir_index - first]
    path = PurePosixPath(directory, folder, entry.name.decode(errors="replace"))
    shown = path.relative_to(directory) if path.is_relative_to(directory) else path
    return printable(str(shown), _NAME_LENGTH)

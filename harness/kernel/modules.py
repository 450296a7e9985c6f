# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel modules: where they are, where their functions lie."""

import gzip
import io
import logging
import lzma
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import zstandard
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.errors import BuildError

log = logging.getLogger(__name__)

# Offset by function by section of code.
Offsets = dict[str, dict[str, int]]
_NAME = re.compile(r"[\w.$]{1,128}", re.ASCII)


@dataclass(frozen=True)
class ModuleTree:
    """The modules of a kernel, a directory lib/modules/<release>; None for a kernel without."""

    path: Path | None

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Path by module name; the names of files may have a dash where modules have none."""
        found = self.path.glob("kernel/**/*.ko*") if self.path else ()
        return {file.name.split(".ko", 1)[0].replace("-", "_"): file for file in sorted(found)}

    @cached_property
    def _contents(self) -> dict[str, bytes]:
        return {}

    def content(self, name: str) -> bytes:
        """A module, decompressed."""
        if name not in self._contents:
            path = self._files[name]
            try:
                self._contents[name] = decompress(path)
            except (lzma.LZMAError, EOFError, zlib.error, zstandard.ZstdError, OSError) as error:
                raise BuildError(f"cannot unpack the kernel module {path}: {error}") from error
        return self._contents[name]

    def load_order(self, names: Iterable[str]) -> list[str]:
        """The modules and all that they depend on, dependencies first; unknown ones left out."""
        order: list[str] = []
        for name in names:
            self._visit(name, order, ())
        return order

    def _visit(self, name: str, order: list[str], above: tuple[str, ...]) -> None:
        if name in order or name in above:
            return
        if name not in self._files:
            log.debug("module %s is built in or unknown to %s", name, self.path)
            return
        for dependency in module_depends(self.content(name)):
            self._visit(dependency, order, (*above, name))
        order.append(name)


def module_depends(module: bytes) -> list[str]:
    """Names of the modules that a module says it depends on."""
    section = ELFFile(io.BytesIO(module)).get_section_by_name(".modinfo")
    fields = section.data().split(b"\0") if section else []
    for field in fields:
        if field.startswith(b"depends="):
            names = field.removeprefix(b"depends=").decode().split(",")
            return [name.replace("-", "_") for name in names if name]
    return []


def function_offsets(module: bytes) -> Offsets:
    """Where the functions of a module are in its sections; code that is freed after loading not."""
    elf = ELFFile(io.BytesIO(module))
    table = elf.get_section_by_name(".symtab")
    offsets: Offsets = {}
    for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
        index = symbol["st_shndx"]
        if symbol["st_info"]["type"] != "STT_FUNC" or not isinstance(index, int):
            continue
        section = elf.get_section(index).name
        if "text" in section and ".init." not in section and _NAME.fullmatch(symbol.name):
            offsets.setdefault(section, {})[symbol.name] = symbol["st_value"]
    return offsets


def decompress(path: Path) -> bytes:
    """A kernel module as the kernel loads it, whatever the distribution packed it with."""
    content = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(content)
        case ".gz":
            return gzip.decompress(content)
        case ".zst":
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)) as reader:
                return reader.read()
    return content

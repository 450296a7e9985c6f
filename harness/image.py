# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the guest's initramfs from a recipe; the same inputs give the same file, made once."""

import gzip
import hashlib
import io
import logging
import lzma
import os
import stat
import tomllib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import zstandard
from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from harness.cpio import Entry, pack
from harness.errors import BuildError
from harness.kernel.base import Kernel

log = logging.getLogger(__name__)

RECIPE = Path(__file__).resolve().parents[1] / "guest-images" / "initramfs"

# Where the loader of Debian's amd64 libc looks, and where the libraries are put in the image.
_LIBRARY_DIRECTORY = "/lib/x86_64-linux-gnu"
_LIBRARY_PLACES = (
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib64",
    "lib64",
    "usr/lib",
    "lib",
)
_MODULE_DIRECTORY = "/lib/modules"
_MODULE_LIST = "/etc/modules"


def build_initramfs(
    guest_root: Path,
    kernel: Kernel,
    module: Path | None,
    *,
    cache_dir: Path,
    recipe: Path = RECIPE,
) -> Path:
    """The initramfs for this kernel, read-only, in `cache_dir`; built only when it is not there.

    `guest_root` is a directory with Debian packages unpacked, `module` the test module, loaded
    last. Raises BuildError when an input is missing or cannot be read.
    """
    try:
        entries = list(_recipe_entries(recipe, guest_root))
        entries += _module_entries(recipe, kernel, module)
    except (OSError, ELFError) as error:
        raise BuildError(f"cannot build the guest image for {kernel.release}: {error}") from error
    archive = pack(entries)
    return _store(archive, cache_dir)


def _store(archive: bytes, cache_dir: Path) -> Path:
    """Uncompressed: with gzip or zstd the guest boots no faster, and building takes longer."""
    digest = hashlib.sha256(archive).hexdigest()[:16]
    path = cache_dir / f"initramfs-{digest}.cpio"
    if path.is_file() and path.stat().st_size == len(archive):
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(archive)
        temporary.chmod(0o444)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BuildError(
            f"cannot write the guest image {path}: {error.strerror or error}",
            hint="free some space, or set another cache directory",
        ) from error
    return path


def _recipe_entries(recipe: Path, guest_root: Path) -> Iterator[Entry]:
    text = tomllib.loads((recipe / "image.toml").read_text())
    yield Entry.character_device("/dev/console", 5, 1)
    yield Entry.character_device("/dev/null", 1, 3)
    for path in text["directories"]:
        yield Entry.directory(path)
    for path, name in text["files"].items():
        source = recipe / name
        yield Entry.file(path, source.read_bytes(), _permissions(source))
    for path, target in text["links"].items():
        yield Entry.link(path, target)
    root = GuestRoot(guest_root)
    for path, name in text["programs"].items():
        program = root.read(name)
        yield Entry.file(path, program, 0o755)
        yield from root.libraries(program)


def _permissions(path: Path) -> int:
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


class GuestRoot:
    """Files of unpacked Debian packages, with or without the merged /usr."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, name: str) -> bytes:
        """The contents of a file, looked for with and without /usr; BuildError if absent."""
        found = self._find([name, name.removeprefix("usr/"), f"usr/{name.lstrip('/')}"])
        if found is None:
            raise BuildError(
                f"the guest root {self.root} has no {name}",
                hint="run `tdharness setup` to make it anew",
            )
        return found.read_bytes()

    def libraries(self, program: bytes) -> Iterator[Entry]:
        """The loader and all shared libraries that a program needs, directly or not."""
        wanted = _needed(program)
        seen: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            if name.startswith("/"):
                yield Entry.file(name, self.read(name.lstrip("/")), 0o755)
                continue
            library = self._library(name)
            yield Entry.file(f"{_LIBRARY_DIRECTORY}/{name}", library, 0o755)
            wanted += _needed(library)

    def _library(self, name: str) -> bytes:
        found = self._find([f"{place}/{name}" for place in _LIBRARY_PLACES])
        if found is None:
            raise BuildError(f"the guest root {self.root} has no library {name}")
        return found.read_bytes()

    def _find(self, names: Iterable[str]) -> Path | None:
        paths = (self._resolve(PurePosixPath(name)) for name in names)
        return next((path for path in paths if path and path.is_file()), None)

    def _resolve(self, name: PurePosixPath) -> Path | None:
        """Follows links as the guest would: an absolute target starts at the guest's root."""
        path = self.root / name
        for _ in range(8):
            if not path.is_symlink():
                return path
            target = path.readlink()
            inside = self.root / target.relative_to("/") if target.is_absolute() else None
            path = inside or path.parent / target
        return None


def _needed(program: bytes) -> list[str]:
    """Names of the loader (absolute) and of the libraries of an ELF file."""
    elf = ELFFile(io.BytesIO(program))
    names: list[str] = []
    for segment in elf.iter_segments():
        if isinstance(segment, InterpSegment):
            names.append(segment.get_interp_name())
        elif isinstance(segment, DynamicSegment):
            # pyelftools sets the attribute by the kind of tag.
            names += [str(vars(tag)["needed"]) for tag in segment.iter_tags("DT_NEEDED")]
    return names


def _module_entries(recipe: Path, kernel: Kernel, module: Path | None) -> list[Entry]:
    names = tomllib.loads((recipe / "image.toml").read_text())["modules"]
    tree = ModuleTree(kernel.modules)
    entries = []
    for name in tree.load_order(names):
        entries.append(Entry.file(f"{_MODULE_DIRECTORY}/{name}.ko", tree.content(name)))
    if module:
        entries.append(Entry.file(f"{_MODULE_DIRECTORY}/{module.name}", module.read_bytes()))
    listing = "".join(f"{entry.path}\n" for entry in entries)
    return [*entries, Entry.file(_MODULE_LIST, listing.encode())]


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

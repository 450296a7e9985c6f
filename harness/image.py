# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the guest's initramfs from a recipe; the same inputs give the same file, made once."""

import hashlib
import io
import json
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

from harness.cpio import Entry, pack
from harness.errors import BuildError
from harness.kernel.base import Kernel
from harness.kernel.modules import ModuleTree, Offsets, function_offsets

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
# Its file in the cache carries a release and a digest; the kernel knows it by this name.
_TEST_MODULE = f"{_MODULE_DIRECTORY}/tdharness.ko"
_MODULE_LIST = "/etc/modules"
# init looks for it
_SCRIPT = "/etc/script"


def build_initramfs(
    guest_root: Path,
    kernel: Kernel,
    module: Path | None,
    *,
    cache_dir: Path,
    recipe: Path = RECIPE,
    script: bytes | None = None,
    more: Iterable[Entry] = (),
) -> Path:
    """The initramfs for this kernel, read-only, in `cache_dir`; built only when it is not there.

    Uncompressed: with gzip or zstd the guest boots no faster, and building takes longer.

    `guest_root` is a directory with Debian packages unpacked, `module` the test module, loaded
    last. With a `script` (harness.workload.script) the guest runs that and powers off; `more` goes
    in as it is. Raises BuildError when an input is missing or cannot be read.
    """
    try:
        entries = [*_recipe_entries(recipe, guest_root), *more]
        modules = _module_entries(recipe, kernel, module)
    except (OSError, ELFError) as error:
        raise BuildError(f"cannot build the guest image for {kernel.release}: {error}") from error
    if script is not None:
        entries.append(Entry.file(_SCRIPT, script))
    archive = pack([*entries, *modules])
    path = cache_dir / f"initramfs-{hashlib.sha256(archive).hexdigest()[:16]}.cpio"
    try:
        if not (path.is_file() and path.stat().st_size == len(archive)):
            _write(path, archive)
        if not offsets_of(path).is_file():
            _write(offsets_of(path), json.dumps(_offsets(modules), sort_keys=True).encode())
    except OSError as error:
        raise BuildError(
            f"cannot write the guest image {path}: {error.strerror or error}",
            hint="free some space, or set another cache directory",
        ) from error
    return path


def offsets_of(initrd: Path) -> Path:
    """The file beside an image that says where functions are in its modules' sections.

    JSON: offset by function by section by module.
    """
    return initrd.with_suffix(".offsets.json")


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and read-only."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.chmod(0o444)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _offsets(modules: Iterable[Entry]) -> dict[str, Offsets]:
    files = [entry for entry in modules if entry.path.endswith(".ko")]
    return {PurePosixPath(entry.path).stem: function_offsets(entry.data) for entry in files}


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
        entries.append(Entry.file(_TEST_MODULE, module.read_bytes()))
    listing = "".join(f"{entry.path}\n" for entry in entries)
    return [*entries, Entry.file(_MODULE_LIST, listing.encode())]

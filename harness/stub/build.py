# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the stub plugin and the C tests of its parts, in the build root."""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness import proc
from harness.provision.buildroot import BuildRoot

SOURCES = Path(__file__).resolve().parent / "plugin"
BUILD_TIMEOUT_S = 120.0

_SOURCES_INSIDE = Path("/tdharness")
_OUTPUT_INSIDE = Path("/output")
_WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter")
_GLIB = ("-I/usr/include/glib-2.0", "-I/usr/lib/x86_64-linux-gnu/glib-2.0/include")
# Symbols of QEMU and glib are resolved when QEMU loads the plugin, so nothing is linked.
_PLUGIN = ("-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden")
# The plugin looks some of QEMU's symbols up by name: -rdynamic.
_TEST = ("-O1", "-g", "-pthread", "-rdynamic")
_LIBGLIB = "/usr/lib/x86_64-linux-gnu/libglib-2.0.so.0"


def build_plugin(buildroot: BuildRoot, *, cache_dir: Path, sources: Path = SOURCES) -> Path:
    """The plugin for these sources, in `cache_dir`; built only when it is not there.

    The compiler's words are kept beside it as .log. Raises BuildError, HostError.
    """
    path = cache_dir / f"tdstub-{digest(sources)}.so"
    if path.is_file():
        return path
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=cache_dir) as name:
        built = Path(name) / path.name
        inputs = [f"{_SOURCES_INSIDE}/{source.name}" for source in sorted(sources.glob("*.c"))]
        output = f"{_OUTPUT_INSIDE}/{path.name}"
        command = ["gcc", *_WARNINGS, *_PLUGIN, *inputs, "-o", output, *_GLIB]
        _compile(buildroot, command, sources, built.parent, path.with_suffix(".log"))
        built.replace(path)
    return path


def compile_c_program(
    buildroot: BuildRoot,
    sources: Sequence[Path],
    *,
    program: Path,
    log_path: Path,
    include: Path = SOURCES,
    sanitizers: str | None = "address,undefined",
) -> None:
    """Compile C sources into `program`, which runs in the build root: see c_program_command().

    The sources share one directory, or lie in `include`. Without sanitizers it is optimized, as the
    plugin is. Raises BuildError.
    """
    place = Path("/sources")
    homes = {source.parent: place for source in sources} | {include: _SOURCES_INSIDE}
    inputs = [f"{homes[source.parent]}/{source.name}" for source in sources]
    sanitize = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"] if sanitizers else ["-O2"]
    includes = [f"-I{_SOURCES_INSIDE}", f"-I{place}"]
    output = f"{_OUTPUT_INSIDE}/{program.name}"
    buildroot.run(
        ["gcc", *_WARNINGS, *_TEST, *sanitize, *includes, *inputs, "-o", output, *_GLIB, _LIBGLIB],
        binds={**homes, program.parent: _OUTPUT_INSIDE},
        cwd=Path("/tmp"),
        timeout_s=BUILD_TIMEOUT_S,
        log_path=log_path,
    )


def c_program_command(buildroot: BuildRoot, program: Path, *args: str) -> list[str]:
    """The command that runs what compile_c_program() made."""
    return buildroot.command(
        [f"{_OUTPUT_INSIDE}/{program.name}", *args],
        binds={program.parent: _OUTPUT_INSIDE},
        cwd=Path("/tmp"),
    )


def run_c_program(
    buildroot: BuildRoot, sources: Sequence[Path], *, log_path: Path, include: Path = SOURCES
) -> str:
    """Compile C sources with ASan and UBSan, run the program, return what it printed.

    The sources share one directory, or lie in `include`. Raises BuildError when either fails.
    """
    with tempfile.TemporaryDirectory(prefix="tdharness-c-") as name:
        program = Path(name) / "program"
        compile_c_program(buildroot, sources, program=program, log_path=log_path, include=include)
        argv = c_program_command(buildroot, program)
        return proc.run(argv, timeout_s=BUILD_TIMEOUT_S, log_path=log_path).stdout


def digest(sources: Path) -> str:
    """Names a build: the sources and the way they are compiled."""
    state = hashlib.sha256(" ".join((*_WARNINGS, *_PLUGIN)).encode())
    for source in sorted(sources.glob("*.[ch]")):
        content = source.read_bytes()
        state.update(f"\0{source.name} {len(content)}\0".encode() + content)
    return state.hexdigest()[:16]


def _compile(
    buildroot: BuildRoot,
    command: Sequence[str | os.PathLike[str]],
    sources: Path,
    output: Path,
    log_path: Path,
) -> None:
    buildroot.run(
        command,
        binds={sources: _SOURCES_INSIDE, output: _OUTPUT_INSIDE},
        cwd=_SOURCES_INSIDE,
        timeout_s=BUILD_TIMEOUT_S,
        log_path=log_path,
    )

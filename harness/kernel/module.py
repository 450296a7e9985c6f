# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the guest's test module against the headers of the kernel under test."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import BuildError, ConfigError
from harness.kernel.base import Kernel
from harness.provision.buildroot import BuildRoot
from harness.provision.kernels import headers_of

SOURCES = Path(__file__).resolve().parents[2] / "guest-images" / "module"
BUILD_TIMEOUT_S = 600.0

HEADERS_MARK = "tdharness-headers"
_OBJECT = "tdharness.ko"
# Where the sources are inside the build root; the name stands in the guest's warnings.
_INSIDE = Path("/tdharness")
# Debug information and BTF of a test module serve nobody and need tools of their own.
_VARIABLES = ("CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF_MODULES=")
# What of the headers decides whether a module fits.
_IDENTITY = (
    *("Module.symvers", "include/generated/autoconf.h", "include/generated/utsrelease.h"),
    # of a kernel that the harness built: names its headers, which a patch may change
    HEADERS_MARK,
)
_COMPLAINT = re.compile(r"error:|^ERROR:|fatal:|\*\*\* |not found", re.IGNORECASE)


def build_module(
    kernel: Kernel, buildroot: BuildRoot, *, cache_dir: Path, sources: Path = SOURCES
) -> Path:
    """The test module for this kernel, in `cache_dir`; built only when it is not there.

    The compiler's words are kept beside it as .log. Raises ConfigError when the kernel has no
    headers, BuildError with the first complaint when the build fails, HostError when it overruns.
    """
    headers, binds = _headers(kernel, buildroot)
    host_view = binds[0][0] if binds else buildroot.path / headers.relative_to("/")
    digest = _digest(kernel.release, sources, host_view)
    path = cache_dir / f"tdharness-{kernel.release}-{digest}.ko"
    if path.is_file():
        return path
    with _copy_of(sources, cache_dir) as build:
        log = path.with_suffix(".log")
        jobs = f"-j{os.cpu_count() or 1}"
        result = buildroot.run(
            ["make", "-C", str(headers), f"M={_INSIDE}", jobs, *_VARIABLES, "modules"],
            binds={build: _INSIDE, **dict(binds)},
            cwd=_INSIDE,
            timeout_s=BUILD_TIMEOUT_S,
            log_path=log,
            check=False,
        )
        if result.returncode or not (build / _OBJECT).is_file():
            raise BuildError(
                f"the test module did not build for {kernel.release}: "
                f"{first_complaint(result.stdout + result.stderr)}",
                hint="the kernel must be 6.7 or newer, with CONFIG_MODULES=y and CONFIG_PCI=y",
                log=log,
            )
        (build / _OBJECT).replace(path)
    return path


def _headers(kernel: Kernel, buildroot: BuildRoot) -> tuple[Path, list[tuple[Path, Path]]]:
    """KDIR as seen inside the build root, and what must be bound for that."""
    inside = headers_of(kernel.release)
    if (buildroot.path / inside.relative_to("/") / "Makefile").is_file():
        return inside, []
    if kernel.headers is None:
        raise ConfigError(
            f"there are no headers for the kernel {kernel.release} ({kernel.image})",
            hint="name arch/x86/boot/bzImage inside a build tree, or a stock kernel",
        )
    # Build trees name themselves by their absolute path, so it has to be the same inside.
    place = kernel.headers.resolve()
    if place.is_relative_to("/usr") or place.is_relative_to("/etc"):
        raise ConfigError(
            f"the headers of {kernel.release} are in {place}, where the build root has its own",
            hint="use a kernel build tree outside /usr",
        )
    if not (place / "Module.symvers").is_file():
        raise ConfigError(
            f"the build tree {place} does not say what the kernel exports: no Module.symvers",
            hint=f"make -C {place} modules",
        )
    return place, [(place, place)]


def _digest(release: str, sources: Path, headers: Path) -> str:
    digest = hashlib.sha256(f"1 {release} {' '.join(_VARIABLES)}".encode())
    for source in sorted(sources.iterdir()):
        if _is_source(source):
            content = source.read_bytes()
            digest.update(f"\0{source.name} {len(content)}\0".encode() + content)
    for name in _IDENTITY:
        path = headers / name
        digest.update(path.read_bytes() if path.is_file() else b"-")
    return digest.hexdigest()[:16]


def _is_source(path: Path) -> bool:
    return path.suffix in (".c", ".h") or path.name == "Kbuild"


@contextmanager
def _copy_of(sources: Path, cache_dir: Path) -> Iterator[Path]:
    """A directory to build in; the tree of the repository stays as it is."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=cache_dir) as name:
        for source in filter(_is_source, sources.iterdir()):
            shutil.copy(source, name)
        yield Path(name)


def first_complaint(output: str) -> str:
    """The line of a build's output that says what is wrong; the last one when none does."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = next((line for line in lines if _COMPLAINT.search(line)), None)
    return (found or (lines[-1] if lines else "no output"))[:300]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel is to the harness, and whether an image can be the kernel of a TD at all."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.provision import kernels

# The first release whose conversion path the stub's rules were written for (TDX-REFERENCE, 2.1).
OLDEST = (6, 7)

# Offsets of the x86 boot protocol (Documentation/arch/x86/boot.rst).
_MAGIC = slice(0x202, 0x206)
_VERSION_POINTER = 0x20E
_VERSION_BASE = 0x200

# Decompressor and EFI stub compare CPUID 0x21 with this, only with CONFIG_INTEL_TDX_GUEST=y; they
# are the parts of an image that are not compressed.
_TDX_MARK = b"IntelTDX"
# of a PE file, which a bzImage is at the same time
_EFI_MARK = b"MZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel image and what belongs to it; None where a part is not known."""

    release: str
    # bzImage
    image: Path
    system_map: Path | None = None
    # the directory lib/modules/<release>
    modules: Path | None = None
    # the directory on this host that its modules are built against (KDIR); None for a stock
    # kernel, whose headers are in its build root
    headers: Path | None = None

    @classmethod
    def of_stock(cls, stock: kernels.Kernel) -> "Kernel":
        """The kernel of a provisioned package."""
        return cls(
            release=stock.release,
            image=stock.image,
            system_map=stock.system_map,
            modules=stock.modules,
        )

    def to_json(self) -> dict[str, Any]:
        """The "kernel" of run.json."""
        return {
            "release": self.release,
            "image": str(self.image),
            "system_map": str(self.system_map) if self.system_map else None,
            "modules": str(self.modules) if self.modules else None,
        }


def release_of(image: bytes, name: Path) -> str:
    """The release of a bzImage, from its header; ConfigError when it is none."""
    if image[_MAGIC] != b"HdrS":
        raise ConfigError(
            f"{name} is not a bzImage: it has no Linux boot header",
            hint="name arch/x86/boot/bzImage of a build, or a distribution's vmlinuz",
        )
    (pointer,) = struct.unpack_from("<H", image, _VERSION_POINTER)
    text = image[pointer + _VERSION_BASE :][:256].split(b"\0", 1)[0].decode(errors="replace")
    release = text.split(" ", 1)[0]
    if not re.match(r"\d+\.\d+", release):
        raise ConfigError(f"{name} does not say its release in its boot header")
    return release


def inspect_kernel(
    image: Path,
    *,
    release: str | None = None,
    system_map: Path | None = None,
    modules: Path | None = None,
    headers: Path | None = None,
    td: bool = True,
) -> Kernel:
    """The kernel of an image; parts not given are looked for where builds and packages put them.

    Raises ConfigError when the file cannot be read or is no bzImage and, with `td`, when the kernel
    cannot run as a TD or is older than the conversion code that the rules are about.
    """
    try:
        content = image.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the kernel {image}: {error.strerror or error}") from error
    found = release_of(content, image)
    if td:
        _check_td(content, found, image)
    release = release or found
    return Kernel(
        release=release,
        image=image,
        system_map=system_map or _first_file(_map_places(image, release)),
        modules=modules or _first_directory(_module_places(image, release), "kernel"),
        headers=headers or _first_directory(_header_places(image, release), "include/generated"),
    )


def check_efi(image: Path) -> None:
    """Raises ConfigError for a kernel that a TD's firmware cannot start: it knows EFI programs."""
    with image.open("rb") as file:
        found = file.read(len(_EFI_MARK))
    if found != _EFI_MARK:
        raise ConfigError(
            f"{image} has no EFI stub, and the firmware of a TD on hardware starts nothing else",
            hint="build it with CONFIG_EFI_STUB=y",
        )


def _check_td(content: bytes, release: str, image: Path) -> None:
    number = re.match(r"(\d+)\.(\d+)", release)
    assert number is not None  # release_of() has made sure of it
    if (int(number[1]), int(number[2])) < OLDEST:
        raise ConfigError(
            f"{image} is Linux {release}: too old, a TD needs {OLDEST[0]}.{OLDEST[1]} or newer",
            hint="use a newer kernel, or --td-mode none for a plain VM",
        )
    if _TDX_MARK not in content:
        raise ConfigError(
            f"{image} (Linux {release}) was built without TDX guest support",
            hint="build it with CONFIG_INTEL_TDX_GUEST=y, or use --td-mode none for a plain VM",
        )


def _build_tree(image: Path) -> Path | None:
    """The top of the build tree that an image in arch/x86/boot belongs to."""
    parents = image.resolve().parents
    if len(parents) > 3 and parents[0].name == "boot" and parents[1].name in ("x86", "x86_64"):
        return parents[3] if parents[2].name == "arch" else None
    return None


def _map_places(image: Path, release: str) -> list[Path]:
    tree = _build_tree(image)
    places = [image.with_name(f"System.map-{release}"), image.with_name("System.map")]
    return [*places, tree / "System.map"] if tree else places


def _module_places(image: Path, release: str) -> list[Path]:
    """Beside the image (Debian since 7.x), below the root that /boot is in, or in a build tree."""
    root = image.resolve().parent.parent
    places = [
        image.resolve().parent,
        root / "lib/modules" / release,
        root / "usr/lib/modules" / release,
    ]
    tree = _build_tree(image)
    return [*places, tree / "lib/modules" / release] if tree else places


def _header_places(image: Path, release: str) -> list[Path]:
    tree = _build_tree(image)
    places = [place / "build" for place in _module_places(image, release)]
    return [tree, *places] if tree else places


def _first_file(places: list[Path]) -> Path | None:
    return next((place for place in places if place.is_file()), None)


def _first_directory(places: list[Path], holding: str) -> Path | None:
    return next((place for place in places if (place / holding).is_dir()), None)

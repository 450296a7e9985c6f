# SPDX-License-Identifier: GPL-2.0-or-later
"""What the virtual lab host is made of: guest-images/lab-host, read and hashed."""

import hashlib
import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BuildError

DIRECTORY = Path(__file__).resolve().parents[2] / "guest-images" / "lab-host"
_NOT_OF_THE_IMAGE = ".md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The packages of the image, and where its other files are."""

    directory: Path
    # the Debian release
    release: str
    disk_mib: int
    essential: tuple[str, ...]
    packages: tuple[str, ...]
    # of the release's backports, to be named with all of their family
    backports: tuple[str, ...]
    # of the kernel, loaded before the root file system is mounted
    early_modules: tuple[str, ...]
    # changes with any file of the directory, README aside
    digest: str

    @property
    def wanted(self) -> list[str]:
        """What apt is asked for."""
        newer = [f"{name}/{self.release}-backports" for name in self.backports]
        return [*self.essential, *self.packages, *newer]


def read(directory: Path = DIRECTORY) -> Definition:
    """The definition in a directory. Raises BuildError when it is none."""
    try:
        table = tomllib.loads((directory / "lab-host.toml").read_text())
        return Definition(
            directory=directory,
            release=table["release"],
            disk_mib=table["disk_mib"],
            essential=tuple(table["essential"]),
            packages=tuple(table["packages"]),
            backports=tuple(table["backports"]),
            early_modules=tuple(table["early_modules"]),
            digest=_digest(directory),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{directory} does not define a lab host: {error!r}") from error


def _digest(directory: Path) -> str:
    """Of names, contents and the executable bit of all files."""
    total = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.suffix != _NOT_OF_THE_IMAGE:
            content = path.read_bytes()
            runs = bool(path.stat().st_mode & stat.S_IXUSR)
            name = os.fspath(path.relative_to(directory))
            total.update(f"{name}\0{runs}\0{len(content)}\0".encode() + content)
    return total.hexdigest()[:16]

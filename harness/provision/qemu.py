# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU that can load the stub's plugin: the caller's, the machine's, or Debian's in the cache."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.errors import ConfigError, HostError
from harness.provision.apt import OpenPool
from harness.provision.cache import Deb, Entry, Store
from harness.provision.packages import Recipe, found, provide

PROGRAM = "qemu-system-x86_64"
# Plugin API 7, the first with all that the stub uses; QEMU takes no plugin of another version.
OLDEST = (11, 1)
PLUGIN_API = 7
_TRIAL_TIMEOUT_S = 20.0
_RELEASE = "trixie"
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True, slots=True)
class Qemu:
    """How to start a QEMU: put the options after `argv_prefix`, add `env` to the environment."""

    argv_prefix: tuple[str, ...]
    env: Mapping[str, str]
    version: str
    origin: str


def find_or_make(store: Store | None = None, *, refresh: bool = False) -> Qemu:
    """The machine's QEMU if the stub can use it, else the one in the cache, made when missing.

    Raises HostError.
    """
    return on_this_machine() or in_cache(store or Store(), refresh=refresh)


def find(store: Store) -> Qemu | None:
    """What find_or_make() would give if it is there already."""
    entry = found(_recipe(), store)
    return on_this_machine() or (_of_entry(entry) if entry else None)


def on_this_machine() -> Qemu | None:
    """The QEMU in $PATH; None when there is none that is new enough and has plugins."""
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    try:
        return from_path(Path(program))
    except (ConfigError, HostError):
        return None


def from_path(path: Path) -> Qemu:
    """A QEMU that the user named. Raises ConfigError when the stub cannot use it."""
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise ConfigError(f"no QEMU to run at {path}: no such program")
    return check(Qemu((os.fspath(path),), {}, "", os.fspath(path)))


def check(qemu: Qemu) -> Qemu:
    """Try the version and the plugin support; the same QEMU with its version filled in.

    Raises ConfigError.
    """
    words = _trial(qemu, ["--version"])
    version = parse_version(words)
    if version is None:
        raise ConfigError(f"{qemu.origin} is no QEMU: --version said {words[:200]!r}")
    if number(version) < OLDEST:
        raise ConfigError(
            f"{qemu.origin} is QEMU {version}: too old, the stub's plugin (API {PLUGIN_API}) needs"
            f" {OLDEST[0]}.{OLDEST[1]} or newer",
            hint="leave the option out: tdharness setup provides one",
        )
    words = _trial(qemu, ["-machine", "none", "-display", "none", "-plugin", "/nonexistent.so"])
    if not has_plugins(words):
        raise ConfigError(
            f"{qemu.origin} (QEMU {version}) was built without TCG plugins",
            hint="configure QEMU with --enable-plugins, or leave the option out",
        )
    return Qemu(qemu.argv_prefix, qemu.env, version, qemu.origin)


def parse_version(words: str) -> str | None:
    """The version in the output of --version, "11.1.3" for example."""
    match = re.search(r"QEMU emulator version (\d+\.\d+(?:\.\d+)?)", words)
    return match[1] if match else None


def number(version: str) -> tuple[int, int]:
    """The part of a version that decides about the plugin API."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def has_plugins(words: str) -> bool:
    """Whether QEMU, told to load a plugin that does not exist, tried to."""
    return "Could not load plugin" in words


def in_cache(store: Store, *, refresh: bool = False) -> Qemu:
    """Debian's QEMU in the cache, run by its own dynamic linker. Raises HostError."""
    return _of_entry(provide(_recipe(), store, refresh=refresh))


def _recipe() -> Recipe:
    return Recipe("qemu", _RELEASE, ["1"], _resolve)


def _resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
    debs = pool.closure(["qemu-system-x86"], backports=True)
    version = next(deb.version for deb in debs if deb.name == "qemu-system-x86")
    plain = re.sub(r"^\d+:|[+~-].*$", "", version)
    if number(plain) < OLDEST:
        raise HostError(
            f"{_RELEASE}-backports has QEMU {plain}; the stub needs {OLDEST[0]}.{OLDEST[1]}",
            hint=f"install a newer {PROGRAM} in $PATH",
        )
    return debs, {"version": plain}


def _of_entry(entry: Entry) -> Qemu:
    tree = entry.tree
    data = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")
    argv = [
        os.fspath(tree / "usr/lib64/ld-linux-x86-64.so.2"),
        "--library-path",
        os.fspath(tree / _LIBRARIES),
        os.fspath(tree / "usr/bin" / PROGRAM),
    ]
    for directory in data:
        argv += ["-L", os.fspath(tree / directory)]
    env = {"QEMU_MODULE_DIR": os.fspath(tree / _LIBRARIES / "qemu")}
    return Qemu(tuple(argv), env, entry.facts["version"], f"Debian package in {tree}")


def _trial(qemu: Qemu, options: list[str]) -> str:
    env = {**os.environ, **qemu.env}
    argv = [*qemu.argv_prefix, *options]
    result = proc.run(argv, timeout_s=_TRIAL_TIMEOUT_S, env=env, check=False)
    return result.stdout + result.stderr

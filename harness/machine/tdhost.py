# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine starts TDs with: whether its KVM can, and the firmware that it has for them.

Distributions build that firmware (TDVF) with Secure Boot and their keys in it. It then starts no
kernel of one's own, and Debian's, locked down, takes no module of ours; so the guest gets a copy
without the platform key. Seen with Debian's ovmf-inteltdx 2026.08, which starts a plain VM too.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import proc
from harness.errors import ConfigError, HostError
from harness.hosts.facts import FIRMWARE, TDX_PARAMETER
from harness.machine.tdx import Td
from harness.remote import Remote
from harness.rundir import put, writing
from harness.text import printable

_TIMEOUT_S = 30.0
_MOST_DESCRIPTOR_BYTES = 64 << 10
_MOST_FIRMWARE_BYTES = 64 << 20
_KEYS = {"enrolled-keys", "secure-boot"}
# QEMU's docs/interop/firmware.json: a TD's firmware is no flash, but memory.
_DEVICE = "memory"
_TOOL_HINT = "pip install -e '.[tdx]', or name a firmware without keys: --firmware FILE"


def td_of(remote: Remote, where: str, named: Path | None, builds: Path) -> Td:
    """A TD as the machine starts it; its firmware is a file here, below `builds`, or `named` as is.

    `where` is the machine in words: "here", "on tdx1".

    Raises HostError where the machine starts no TD, ConfigError for a firmware that is not there.
    """
    said = _ask(remote, TDX_PARAMETER).decode(errors="replace").strip()
    if said != "Y":
        raise HostError(
            f"no TD can be started {where}: KVM's parameter tdx is "
            f"{printable(said, 20) or 'missing'}",
            hint='for all that is missing: mode = "tdx" in hosts.toml, tdharness hosts check HOST',
        )
    if named:
        if not named.is_file():
            raise ConfigError(f"no firmware at {named}: no such file")
        return Td(firmware=named)
    return Td(firmware=_firmware(remote, builds))


def _firmware(remote: Remote, builds: Path) -> Path:
    descriptors = _ask(remote, FIRMWARE).decode(errors="replace").split()
    if not descriptors:
        raise HostError(
            "no firmware for TDs is there: none in /usr/share/qemu/firmware says intel-tdx",
            hint="install it (Debian: ovmf-inteltdx), or name one: --firmware FILE",
        )
    path, has_keys = described(_ask(remote, ("cat", descriptors[0])), descriptors[0])
    answer = remote.run(["cat", path], timeout_s=_TIMEOUT_S, max_bytes=_MOST_FIRMWARE_BYTES)
    if answer.exit_code or not answer.stdout or answer.truncated:
        raise HostError(f"the firmware {printable(path)} cannot be read there")
    return kept(answer.stdout, builds, has_keys=has_keys)


def described(text: bytes, name: str) -> tuple[str, bool]:
    """The path of a firmware out of its descriptor, and whether Secure Boot is on in it.

    Raises HostError.
    """
    try:
        facts: Any = json.loads(text)
        mapping = facts["mapping"]
        path, features = str(mapping["filename"]), set(map(str, facts["features"]))
        if mapping["device"] != _DEVICE or not path.startswith("/"):
            raise ValueError(f"device {mapping['device']}, {path}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HostError(
            f"{printable(name)} describes no firmware for TDs: {printable(str(error))}",
            hint="name one: --firmware FILE",
        ) from error
    return path, bool(features & _KEYS)


def kept(firmware: bytes, builds: Path, *, has_keys: bool) -> Path:
    """The firmware as a file, without a platform key. Raises HostError."""
    digest = hashlib.sha256(firmware).hexdigest()[:16]
    path = builds / f"tdvf-{digest}{'-no-keys' if has_keys else ''}.fd"
    if path.is_file():
        return path
    with writing(builds):
        builds.mkdir(parents=True, exist_ok=True)
    put(path, _without_platform_key(firmware) if has_keys else firmware)
    return path


def _without_platform_key(firmware: bytes) -> bytes:
    """Secure Boot is off where there is no PK (UEFI specification, 32.3)."""
    with tempfile.TemporaryDirectory(prefix="tdharness-tdvf-") as place:
        whole, to = Path(place, "whole.fd"), Path(place, "no-keys.fd")
        put(whole, firmware)
        words = ("-P", "-m", "virt.firmware.vars", "-i", whole, "-o", to, "-d", "PK")
        argv = (sys.executable, *words)
        result = proc.run(argv, timeout_s=_TIMEOUT_S, check=False, hint=_TOOL_HINT)
        if not result.returncode and to.is_file():
            return to.read_bytes()
    said = result.stderr.strip().splitlines()
    why = printable(said[-1], 200) if said else "no word"
    raise HostError(f"the keys of a TD's firmware cannot be taken out: {why}", hint=_TOOL_HINT)


def _ask(remote: Remote, argv: tuple[str, ...]) -> bytes:
    """What a command said; nothing where it failed."""
    answer = remote.run(argv, timeout_s=_TIMEOUT_S, max_bytes=_MOST_DESCRIPTOR_BYTES)
    return b"" if answer.exit_code else answer.stdout

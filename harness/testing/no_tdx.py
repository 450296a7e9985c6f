# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands for a machine with TDX: its answers, and a QEMU that starts a plain VM for a TD.

The guest's firmware, devices and kernel are real, and it never says that it is a TD.

    python3 -P -m harness.testing.no_tdx OPTION...
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.hosts.facts import FIRMWARE, TDX_PARAMETER
from harness.machine.tdx import Td, td_arguments
from harness.provision.qemu import Qemu
from harness.remote import MOST_BYTES, Answer
from harness.rundir import put

_INSTEAD = {("-accel", "kvm"): "tcg,thread=multi", ("-cpu", "host"): "max"}
_MACHINE = td_arguments(Td(firmware=Path("/")))[3]


class TdHost:
    """A Remote that says it starts TDs, with the firmware that lies below `root`."""

    def __init__(self, root: Path, parameter: str = "Y\n") -> None:
        self._root = root
        self._parameter = parameter

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:
        """As Remote.run(), for what harness.machine.tdhost asks."""
        if argv == TDX_PARAMETER:
            return _answer(self._parameter.encode(), max_bytes)
        if argv == FIRMWARE:
            files = sorted(self._root.glob("usr/share/qemu/firmware/*.json"))
            names = [f"/{file.relative_to(self._root)}\n" for file in files]
            return _answer("".join(names).encode(), max_bytes)
        program, name = argv
        assert program == "cat"
        file = self._root / Path(name).relative_to("/")
        return _answer(file.read_bytes() if file.is_file() else b"", max_bytes)


def _answer(output: bytes, most: int) -> Answer:
    return Answer(0 if output else 1, output[:most], b"", len(output) > most)


def plain(options: Sequence[str]) -> list[str]:
    """The options without TDX and KVM."""
    pairs = list(zip(["", *options], options, strict=False))
    told = [
        _INSTEAD.get(pair, pair[1])
        for pair, after in zip(pairs, [*pairs[1:], ("", "")], strict=True)
        if not any("tdx-guest" in value for name, value in (pair, after) if name == "-object")
    ]
    return [word.replace(_MACHINE, "hpet=off") for word in told]


def program(qemu: Qemu, path: Path) -> Path:
    """A script at `path` that is such a QEMU. Raises HostError."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in qemu.env.items()]
    own = " ".join([*settings, "exec", *map(shlex.quote, qemu.argv_prefix)])
    place = shlex.quote(str(Path(__file__).parents[2]))
    options = f"PYTHONPATH={place} {shlex.quote(sys.executable)} -P -m harness.testing.no_tdx"
    put(
        path,
        f'#!/bin/sh\noptions=$({options} "$@") && eval "{own} $options"\n'.encode(),
        mode=0o755,
    )
    return path


if __name__ == "__main__":
    print(shlex.join(plain(sys.argv[1:])))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel patches that say themselves which rules have to find them: kernel-patches/<base>/<group>.

The tags stand in the head of a `git format-patch` file: `X-Trips:` the rules that must find it, or
`none`; `X-Direction:` where, if only one direction of conversion is broken; `X-Needs:` a behaviour
of the VMM without which nothing shows; `X-Workload:` what must run, if the conversions do not do.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from harness.conversions import TO_PRIVATE, TO_SHARED
from harness.errors import ConfigError
from harness.text import printable

MOST_PATCH_BYTES = 1 << 20
_DIRECTIONS = (TO_SHARED, TO_PRIVATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One patch and what it foretells."""

    # None: the base as it is
    path: Path | None
    # "mutants" of "mutants/0001"
    group: str
    name: str
    title: str
    # the rules that have to find it, and no others; empty: nothing may be found
    trips: frozenset[str]
    direction: str | None = None
    # the name of a behaviour of harness.vmm
    vmm: str = ""
    workloads: tuple[str, ...] = ("conversion",)


def read_group(folder: Path) -> tuple[Mutant, ...]:
    """The patches that the folder's `series` lists, in its order.

    Raises ConfigError, naming the file, for what cannot be read or foretells nothing.
    """
    lines = _text(folder / "series").splitlines()
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise ConfigError(f"{folder / 'series'} lists no patch")
    return tuple(read_mutant(folder / name) for name in names)


def base_named_in(folder: Path) -> str:
    """The source that the patches of kernel-patches/<base> apply to. Raises ConfigError."""
    lines = [line for line in _text(folder / "BASE").splitlines() if not line.startswith("#")]
    words = lines[0].split() if lines else []
    if not words:
        raise ConfigError(f"{folder / 'BASE'} names no source")
    return words[0]


def read_mutant(path: Path) -> Mutant:
    """One patch. Raises ConfigError."""
    head = _text(path).partition("\n---\n")[0]
    tags = dict(re.findall(r"(?m)^(X-[A-Z][a-z]+): (.*\S)", head))
    if "X-Trips" not in tags:
        raise ConfigError(f"{path} has no line X-Trips: which rules find it, or none?")
    if tags.get("X-Direction", TO_SHARED) not in _DIRECTIONS:
        raise ConfigError(f"{path}: X-Direction is neither {' nor '.join(_DIRECTIONS)}")
    title = re.search(r"(?m)^Subject: (?:\[[^]\n]*\] )?(.*(?:\n[ \t].*)*)", head)
    return Mutant(
        path=path,
        group=path.parent.name,
        name=f"{path.parent.name}/{path.name[:4]}",
        title=printable(" ".join(title[1].split()) if title else path.stem, 200),
        trips=frozenset(tags["X-Trips"].split()) - {"none"},
        direction=tags.get("X-Direction"),
        vmm=tags.get("X-Needs", "").removeprefix("vmm="),
        workloads=tuple(tags.get("X-Workload", "conversion").split()),
    )


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_PATCH_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MOST_PATCH_BYTES:
        raise ConfigError(f"{path} has more than {MOST_PATCH_BYTES >> 10} KiB")
    return data.decode("utf-8", "replace")

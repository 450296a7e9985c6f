# SPDX-License-Identifier: GPL-2.0-or-later
"""What a night runs, from a TOML file; relative paths in it are relative to the file.

    name = "dma"                         # of the night, which is compared with those of its name
    budget_minutes = 240
    bases = ["linux-source-6.12"]        # as `tdharness build --base`
    configs = ["lean"]                   # as `tdharness build --config`
    vcpus = [1, 2, 4]
    memory_mib = 1024
    modes = ["stub"]                     # stub, none
    hosts = ["local"]
    workloads = ["conversion", "dma", "devices"]
    origin = "tdharness"                 # the lab's name in KCIDB
    keep_nights = 14                     # runs of older nights are removed, their pages are kept
    known = "known-issues.toml"          # of the bases, for all series; left out: none

    [[series]]
    source = "patches/dma-v3"            # as `tdharness series`
    name = "dma"                         # stays the same over versions; left out: the source's name
    known = "known-issues.toml"          # left out: known-issues.toml beside the series
    each = true                          # false: the base and the whole series only
    bases = ["linux-source-6.12"]        # left out: all of the night's

All but the series may be left out. A night without a series runs its bases.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.export.kcidb import check_origin
from harness.kernel.kconfig import LEAN
from harness.machine.base import check_size
from harness.text import printable
from harness.tomltable import Table, parse_table, read_table
from harness.workload import NORMAL

LOCAL = "local"
MODES = ("stub", "none")
WORKLOADS = (*NORMAL, "faults")
_HINT = "see the beginning of harness/nightly/config.py"
_MODE = "a TD on hardware needs a host of the lab"
_HOST = "a night runs on the machine that it is started on"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesEntry:
    """One series of the file."""

    # as the file says it; harness.nightly.sources finds it
    source: str
    # "" for the name of the series itself
    name: str = ""
    # "" for the file beside the series, if there is one
    known: str = ""
    each: bool = True
    bases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NightConfig:
    """The whole file."""

    name: str
    # the directory of the file
    home: Path
    budget_s: float
    bases: tuple[str, ...]
    configs: tuple[str, ...]
    vcpus: tuple[int, ...]
    memory_mib: int
    modes: tuple[str, ...]
    hosts: tuple[str, ...]
    workloads: tuple[str, ...]
    origin: str
    keep_nights: int
    # "" for none
    known: str
    series: tuple[SeriesEntry, ...]


def read_config(path: Path) -> NightConfig:
    """Raises ConfigError that names the file and what is wrong in it."""
    return _parsed(read_table(path, _HINT), path)


def parse_config(data: bytes, path: Path) -> NightConfig:
    """The night that the bytes of `path` describe. Raises ConfigError."""
    return _parsed(parse_table(data, path.name, _HINT), path)


def _parsed(table: Table, path: Path) -> NightConfig:
    name, bases = path.name, table.texts("bases", ("linux-source-6.12",))
    night = NightConfig(
        name=table.text("name", printable(path.stem, 60)),
        home=path.parent,
        budget_s=60.0 * table.number("budget_minutes", 8 * 60, most=7 * 24 * 60),
        bases=bases,
        configs=table.texts("configs", (LEAN,)),
        vcpus=table.numbers("vcpus", (2,)),
        memory_mib=table.number("memory_mib", 1024),
        modes=table.texts("modes", ("stub",), among=MODES, why=_MODE),
        hosts=table.texts("hosts", (LOCAL,), among=(LOCAL,), why=_HOST),
        workloads=table.texts("workloads", NORMAL, among=WORKLOADS),
        origin=table.text("origin", "tdharness"),
        keep_nights=table.number("keep_nights", 14),
        known=table.text("known", ""),
        series=tuple(_entry(entry, bases) for entry in table.tables("series")),
    )
    table.done()
    check_origin(night.origin)
    for vcpus in night.vcpus:
        check_size(vcpus, night.memory_mib)
    names = [entry.name or entry.source for entry in night.series]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{name}: two series are called {printable(twice[0], 60)}", hint=_HINT)
    return night


def _entry(table: Table, bases: tuple[str, ...]) -> SeriesEntry:
    entry = SeriesEntry(
        source=table.text("source"),
        name=table.text("name", ""),
        known=table.text("known", ""),
        each=table.flag("each", True),
        bases=table.texts("bases", bases),
    )
    table.done()
    return entry

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

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.export.kcidb import check_origin
from harness.kernel.kconfig import LEAN
from harness.machine.base import check_size
from harness.text import printable

MOST_BYTES = 1 << 20
MOST_VALUES = 1000
LOCAL = "local"
MODES = ("stub", "none")
WORKLOADS = ("conversion", "dma", "devices", "faults")
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
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint=_HINT) from error
    return parse_config(data, path)


def parse_config(data: bytes, path: Path) -> NightConfig:
    """The night that the bytes of `path` describe. Raises ConfigError."""
    name = path.name
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name} is larger than {MOST_BYTES >> 20} MiB", hint=_HINT)
    try:
        table = _Table(tomllib.loads(data.decode()), name)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is no TOML: {printable(str(error))}", hint=_HINT) from error
    bases = table.texts("bases", ("linux-source-6.12",))
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
        workloads=table.texts("workloads", WORKLOADS[:3], among=WORKLOADS),
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


def _entry(table: "_Table", bases: tuple[str, ...]) -> SeriesEntry:
    entry = SeriesEntry(
        source=table.text("source"),
        name=table.text("name", ""),
        known=table.text("known", ""),
        each=table.flag("each", True),
        bases=table.texts("bases", bases),
    )
    table.done()
    return entry


class _Table:
    """A table of the file; each word may be asked for once, and done() refuses what is left."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = dict(values)
        self._where = where

    def text(self, key: str, default: str | None = None) -> str:
        value = self._values.pop(key, default)
        if value is None:
            raise self._error(f"has no {key}")
        if not isinstance(value, str) or not (value or default == ""):
            raise self._error(f"{key} has to be a text")
        if not value.isprintable() or len(value) > 300:
            raise self._error(f"{key} is too long, or holds what cannot be printed")
        return value

    def texts(
        self, key: str, default: tuple[str, ...], *, among: Sequence[str] = (), why: str = ""
    ) -> tuple[str, ...]:
        values = self._list(key, default, lambda value: isinstance(value, str) and value)
        for value in values:
            if among and value not in among:
                said = f"{key} are {', '.join(among)}, not {printable(value, 60)!r}"
                raise self._error(f"{said}: {why}" if why else said)
            if not value.isprintable() or len(value) > 300:
                raise self._error(f"{key} holds what cannot be printed, or is too long")
        return tuple(values)

    def number(self, key: str, default: int, *, most: int = 1 << 20) -> int:
        value = self._values.pop(key, default)
        if not _is_number(value) or value > most:
            raise self._error(f"{key} has to be a whole number from 1 to {most}")
        return int(value)

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._list(key, default, _is_number))

    def flag(self, key: str, default: bool) -> bool:
        value = self._values.pop(key, default)
        if not isinstance(value, bool):
            raise self._error(f"{key} has to be true or false")
        return value

    def tables(self, key: str) -> "list[_Table]":
        values = self._values.pop(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self._error(f"{key} has to be tables: [[{key}]]")
        if len(values) > MOST_VALUES:
            raise self._error(f"{key} are more than {MOST_VALUES}")
        return [_Table(value, f"{self._where}: {key} {n}") for n, value in enumerate(values, 1)]

    def done(self) -> None:
        """Raise ConfigError for a word that nobody asked for."""
        for key in self._values:
            raise self._error(f"{printable(key, 40)} is no word of it")

    def _list(self, key: str, default: Sequence[Any], good: Callable[[Any], Any]) -> list[Any]:
        values = self._values.pop(key, list(default))
        if not isinstance(values, list) or not values or not all(map(good, values)):
            raise self._error(f"{key} has to be a list of at least one")
        if len(values) > MOST_VALUES:
            raise self._error(f"{key} are more than {MOST_VALUES}")
        # Twice the same cell is one.
        return list(dict.fromkeys(values))

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f"{self._where}: {what}", hint=_HINT)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

# SPDX-License-Identifier: GPL-2.0-or-later
"""Files in TOML that people write: each word is asked for by name, and none is left over."""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import ConfigError
from harness.text import printable

MOST_BYTES = 1 << 20
MOST_VALUES = 1000


def read_table(path: Path, hint: str) -> "Table":
    """The whole file. Raises ConfigError, as all methods of the table do, with `hint`."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    return parse_table(data, path.name, hint)


def parse_table(data: bytes, name: str, hint: str) -> "Table":
    """The same of the bytes of a file that messages call `name`."""
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name} is larger than {MOST_BYTES >> 20} MiB", hint=hint)
    try:
        return Table(tomllib.loads(data.decode()), name, hint)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is no TOML: {printable(str(error))}", hint=hint) from error


class Table:
    """A table of the file; each word may be asked for once, and done() refuses what is left."""

    def __init__(self, values: Mapping[str, Any], where: str, hint: str) -> None:
        self._values = dict(values)
        self._where = where
        self._hint = hint

    def text(self, key: str, default: str | None = None) -> str:
        """A text of at most 300 printable characters; with no default it has to be there."""
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
        """A list of texts, each once."""
        values = self._list(key, default, lambda value: isinstance(value, str) and value)
        for value in values:
            if among and value not in among:
                said = f"{key} are {', '.join(among)}, not {printable(value, 60)!r}"
                raise self._error(f"{said}: {why}" if why else said)
            if not value.isprintable() or len(value) > 300:
                raise self._error(f"{key} holds what cannot be printed, or is too long")
        return tuple(values)

    def choice(self, key: str, default: str, among: Sequence[str]) -> str:
        """One of a few texts."""
        value = self.text(key, default)
        if value not in among:
            raise self._error(f"{key} is {' or '.join(among)}, not {printable(value, 60)!r}")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """A command and its words, none when left out."""
        values = self._values.pop(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self._error(f"{key} has to be a list of words, the command first")
        if len(values) > MOST_VALUES or not all(v.isprintable() and len(v) <= 300 for v in values):
            raise self._error(f"{key} is too long, or holds what cannot be printed")
        return tuple(values)

    def number(self, key: str, default: int, *, most: int = 1 << 20) -> int:
        """A whole number from 1 on; what stands in for it may be 0."""
        if key not in self._values:
            return default
        value = self._values.pop(key)
        if not _is_number(value) or value > most:
            raise self._error(f"{key} has to be a whole number from 1 to {most}")
        return int(value)

    def numbers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of whole numbers from 1 on, each once."""
        return tuple(self._list(key, default, _is_number))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._values.pop(key, default)
        if not isinstance(value, bool):
            raise self._error(f"{key} has to be true or false")
        return value

    def tables(self, key: str) -> "list[Table]":
        """Tables in an array, [[key]]."""
        values = self._values.pop(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise self._error(f"{key} has to be tables: [[{key}]]")
        if len(values) > MOST_VALUES:
            raise self._error(f"{key} are more than {MOST_VALUES}")
        return [
            Table(value, f"{self._where}: {key} {n}", self._hint)
            for n, value in enumerate(values, 1)
        ]

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
        return ConfigError(f"{self._where}: {what}", hint=self._hint)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0

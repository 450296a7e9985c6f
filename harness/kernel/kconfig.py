# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel configurations: what is asked for, and what of it a kernel did not take."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.provision import kernels, source
from harness.provision.cache import Store

LEAN = "lean"
DISTRIBUTION = "distribution"
FRAGMENT = Path(__file__).resolve().parents[2] / "guest-images" / "kconfig" / "lean.config"
_SET = re.compile(r"CONFIG_(\w+)=(.*)")
_UNSET = re.compile(r"# CONFIG_(\w+) is not set")
_WHOLE = "Automatically generated file; DO NOT EDIT."
# Answers that the toolchain gives, not the user.
_TOLD = re.compile(r"(CC|LD|AS|GCC|CLANG|LLD|PAHOLE|RUSTC|TOOLS|HAVE|ARCH)_\w*(VERSION|HAS|IS)\w*")
# What a whole configuration of a distribution has that costs hours, keys or tools and that no
# test here looks at.
_TAKEN_OUT = """\
CONFIG_DEBUG_INFO_NONE=y
# CONFIG_DEBUG_INFO_BTF is not set
# CONFIG_MODULE_SIG is not set
# CONFIG_SECURITY_LOCKDOWN_LSM is not set
CONFIG_SYSTEM_TRUSTED_KEYS=""
CONFIG_SYSTEM_REVOCATION_KEYS=""
# CONFIG_GCC_PLUGINS is not set
"""
# Debug information belongs in no kernel here: vmlinux is kept for its symbols. The name of the
# kernel comes from its version alone, or each patch would build more than it changes.
_ALWAYS = "# CONFIG_LOCALVERSION_AUTO is not set\n"


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration: make `target` first ("" when `text` is whole), then put `text` on top.

    With `strict` it is an error when the kernel knows a symbol of `text` and does not take it.
    """

    name: str
    target: str
    text: str
    strict: bool

    @property
    def digest(self) -> str:
        """Identifies what is asked for."""
        parts = f"{self.target}\0{self.strict}\0{self.text}"
        return hashlib.sha256(parts.encode()).hexdigest()


def lean() -> Config:
    """The least of a kernel that runs as a TD: the fragment of the guest image on tinyconfig."""
    return Config(LEAN, "tinyconfig", FRAGMENT.read_text() + _ALWAYS, strict=True)


def from_file(path: Path, name: str | None = None) -> Config:
    """A whole .config, or a fragment that is put on top of the lean configuration.

    Raises ConfigError when it cannot be read or sets nothing.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    if not parse(text):
        raise ConfigError(
            f"the configuration {path} sets nothing",
            hint="lines are CONFIG_NAME=y or # CONFIG_NAME is not set",
        )
    if _WHOLE in text[:1000]:
        return Config(name or path.name, "", merged(text, _TAKEN_OUT + _ALWAYS), strict=False)
    base = lean()
    return Config(name or path.name, base.target, merged(base.text, text), strict=True)


def config_of(word: str, base: str, store: Store | None = None) -> Config:
    """The configuration that a word names: lean, distribution, or a file.

    `base` is the word for the base: a package's number says which of Debian's kernels is meant.
    Raises ConfigError, HostError.
    """
    if word == LEAN:
        return lean()
    if word != DISTRIBUTION:
        return from_file(Path(word))
    package = source.PACKAGE.fullmatch(base)
    number = package[1] if package else kernels.DEFAULT_SERIES
    series = number if number in kernels.SERIES else number.partition(".")[0]
    config = kernels.stock(series, store).config
    if config is None:
        raise ConfigError(f"Debian's package of Linux {series} has no configuration")
    return from_file(config, DISTRIBUTION)


def parse(text: str) -> dict[str, str]:
    """Value by symbol, "n" for one that is not set; the last line about a symbol counts."""
    values = {}
    for line in text.splitlines():
        if match := _SET.fullmatch(line.strip()):
            values[match[1]] = match[2]
        elif match := _UNSET.fullmatch(line.strip()):
            values[match[1]] = "n"
    return values


def merged(text: str, over: str) -> str:
    """`text` with the lines of `over` in place of its own about the same symbols."""
    replaced = parse(over)
    kept = [line for line in text.splitlines() if not parse(line).keys() & replaced.keys()]
    return "\n".join([*kept, over])


def missing(wanted: Mapping[str, str], got: Mapping[str, str]) -> list[str]:
    """The wanted symbols that have another value, sorted; what the toolchain decides left out."""
    return sorted(
        symbol
        for symbol, value in wanted.items()
        if got.get(symbol, "n") != value and not _TOLD.fullmatch(symbol)
    )


def known(symbols: Iterable[str], kconfigs: Iterable[str]) -> set[str]:
    """Which of the symbols the texts of Kconfig files define."""
    waiting, found = set(symbols), set()
    for text in kconfigs:
        found |= waiting & set(re.findall(r"(?m)^\s*(?:menu)?config\s+(\w+)\s*$", text))
    return found

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hosts there are, from a TOML file; relative paths in it are relative to the file.

    [[host]]
    name = "tdx1"
    address = "192.0.2.7"
    port = 22
    user = "lab"
    key = "~/.ssh/lab"                   # left out: the keys of the ssh agent
    known_hosts = "known_hosts"          # the pinned keys, in OpenSSH's form
    libvirt = "qemu+ssh://lab@192.0.2.7/system"
    mode = "tdx"                         # stub: guests run under the software module
    console = ["ipmitool", "-I", "lanplus", "-H", "bmc1", "-f", "bmc.pass", "sol", "activate"]
    power_on = ["./power", "tdx1", "on"]
    power_off = ["./power", "tdx1", "off"]
    power_cycle = ["./power", "tdx1", "cycle"]
    guests = 4                           # limits: at once, their memory in all, their KeyIDs
    memory_mib = 65536
    key_ids = 30
    patience = 60                        # left out: 1; a machine that is itself emulated is slow
    labgrid = "tdx1"                     # its place: acquired, and no lease of our own
    coordinator = "labgrid:20408"        # left out: $LG_COORDINATOR, or 127.0.0.1:20408

Name and address have to be there. `local` is this machine, and in no file. Commands are run as they
are, without a shell. What is secret stays in files of their own: a command line is there to be read
by every user of the machine, and in logs, so one with a password in it is refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError
from harness.text import printable, without_password
from harness.tomltable import Table, read_table

LOCAL = "local"
MODES = ("stub", "tdx")
_HINT = "see the beginning of harness/hosts/config.py"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
# Neither an option of a program nor a word with a meaning to one.
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
# Options that a password comes behind, of programs that reach consoles and power.
_PASSWORD_OPTIONS = {
    "ipmitool": ("-P",),
    "ipmiconsole": ("-p", "--password"),
    "ipmipower": ("-p", "--password"),
    "sshpass": ("-p",),
    "curl": ("-u", "--user"),
    "racadm": ("-p",),
}
_PASSWORD = re.compile(r"-{0,2}(pass|passwd|password|passphrase|secret|token)([=:].+|$)", re.I)
_MOST_PORT = (1 << 16) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine of a lab. An empty command or limit is one that is not there."""

    name: str
    address: str = ""
    port: int = 22
    user: str = "root"
    # None: the agent's keys
    key: Path | None = None
    known_hosts: Path = Path("known_hosts")
    libvirt: str = ""
    mode: str = "stub"
    console: tuple[str, ...] = ()
    power_on: tuple[str, ...] = ()
    power_off: tuple[str, ...] = ()
    power_cycle: tuple[str, ...] = ()
    guests: int = 0
    memory_mib: int = 0
    key_ids: int = 0
    patience: int = 1
    labgrid: str = ""
    coordinator: str = ""

    @property
    def local(self) -> bool:
        """Whether it is this machine."""
        return self.name == LOCAL


def read_hosts(path: Path) -> Mapping[str, Host]:
    """The hosts of a file by name, this machine among them.

    Raises ConfigError that names the file, the host and what is wrong.
    """
    table = read_table(path, _HINT)
    found = {LOCAL: Host(name=LOCAL)}
    for entry in table.tables("host"):
        host = _host(entry, path.parent)
        if host.name in found:
            raise ConfigError(f"{path.name}: two hosts are called {host.name}", hint=_HINT)
        found[host.name] = host
    table.done()
    return found


def _host(table: Table, home: Path) -> Host:
    name = _matching(_NAME, table.text("name"), "a name of lower-case letters, digits and -")
    key = table.text("key", "")
    host = Host(
        name=name,
        address=_matching(_ADDRESS, table.text("address"), "an address or the name of a machine"),
        port=table.number("port", 22, most=_MOST_PORT),
        user=_matching(_USER, table.text("user", "root"), "the name of a user"),
        key=_path(key, home) if key else None,
        known_hosts=_path(table.text("known_hosts", "known_hosts"), home),
        libvirt=table.text("libvirt", ""),
        mode=table.choice("mode", "stub", MODES),
        console=_command(table, name, "console"),
        power_on=_command(table, name, "power_on"),
        power_off=_command(table, name, "power_off"),
        power_cycle=_command(table, name, "power_cycle"),
        guests=table.number("guests", 0),
        memory_mib=table.number("memory_mib", 0),
        key_ids=table.number("key_ids", 0),
        patience=table.number("patience", 1),
        labgrid=_optional(table, "labgrid"),
        coordinator=_optional(table, "coordinator"),
    )
    table.done()
    return host


def _command(table: Table, host: str, key: str) -> tuple[str, ...]:
    """The words of a command. Raises ConfigError, which does not repeat them, for a password."""
    words = table.words(key)
    options = _PASSWORD_OPTIONS.get(Path(words[0]).name, ()) if words else ()
    for word in words[1:]:
        if word.startswith(options) or _PASSWORD.fullmatch(word) or without_password(word) != word:
            raise ConfigError(
                f"{key} of {host} has a password on its command line, for all users to read",
                hint="put it into a file that only you can read, and name that: ipmitool -f FILE",
            )
    return words


def _matching(pattern: re.Pattern[str], word: str, what: str) -> str:
    if not pattern.fullmatch(word):
        raise ConfigError(f"{printable(word, 60)!r} is not {what}", hint=_HINT)
    return word


def _optional(table: Table, key: str) -> str:
    word = table.text(key, "")
    return _matching(_ADDRESS, word, f"a name for {key}") if word else ""


def _path(word: str, home: Path) -> Path:
    return home / Path(word).expanduser()


def host_named(name: str, file: Path) -> Host:
    """A host of the file; `local` needs none. Raises ConfigError."""
    if name == LOCAL:
        return Host(name=LOCAL)
    hosts = read_hosts(file)
    if name not in hosts:
        raise ConfigError(
            f"{file} has no host {printable(name, 60)!r}", hint=f"it has {', '.join(hosts)}"
        )
    return hosts[name]

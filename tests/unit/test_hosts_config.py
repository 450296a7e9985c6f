# SPDX-License-Identifier: GPL-2.0-or-later
"""hosts.toml: every word is taken, and what is wrong is said in a sentence."""

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.hosts.config import Host, host_named, read_hosts

WHOLE = """
[[host]]
name = "tdx1"
address = "192.0.2.7"
port = 2222
user = "lab"
key = "keys/lab"
known_hosts = "pinned"
libvirt = "qemu+ssh://lab@192.0.2.7/system"
mode = "tdx"
console = ["sol", "tdx1", "tdx1"]
power_on = ["power", "on"]
power_off = ["power", "off"]
power_cycle = ["power", "cycle"]
guests = 4
memory_mib = 65536
key_ids = 30
[[host]]
name = "old"
address = "lab.example"
"""


def test_every_word_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    file.write_text(WHOLE)
    hosts = read_hosts(file)
    assert list(hosts) == ["local", "tdx1", "old"]
    assert hosts["tdx1"] == Host(
        name="tdx1", address="192.0.2.7", port=2222, user="lab", key=tmp_path / "keys/lab",
        known_hosts=tmp_path / "pinned", libvirt="qemu+ssh://lab@192.0.2.7/system", mode="tdx",
        console=("sol", "tdx1", "tdx1"), power_on=("power", "on"), power_off=("power", "off"),
        power_cycle=("power", "cycle"), guests=4, memory_mib=65536, key_ids=30,
    )  # fmt: skip
    old = hosts["old"]
    assert (old.port, old.user, old.mode, old.key) == (22, "root", "stub", None)
    assert old.known_hosts == tmp_path / "known_hosts"
    assert hosts["local"].local and not old.local


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[host]]\naddress = 'a'", "host 1: has no name"),
        ("[[host]]\nname = 'a'", "host 1: has no address"),
        ("[[host]]\nname = 'A B'\naddress = 'a'", "'A B' is not a name"),
        ("[[host]]\nname = 'a'\naddress = '-oProxyCommand=x'", "is not an address"),
        ("[[host]]\nname = 'a'\naddress = 'a'\nuser = '-l'", "'-l' is not the name of a user"),
        ("[[host]]\nname = 'a'\naddress = 'a'\nmode = 'snp'", "mode is stub or tdx, not 'snp'"),
        ("[[host]]\nname = 'a'\naddress = 'a'\nport = 70000", "port has to be a whole number"),
        ("[[host]]\nname = 'a'\naddress = 'a'\nguests = 0", "guests has to be a whole number"),
        ("[[host]]\nname = 'a'\naddress = 'a'\nconsole = 'sol'", "console has to be a list"),
        ("[[host]]\nname = 'a'\naddress = 'a'\npower = 'on'", "power is no word of it"),
        ("[[host]]\nname = 'local'\naddress = 'a'", "two hosts are called local"),
        ("color = 'red'", "color is no word of it"),
        ("[[host", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_hosts(file)
    assert words in error.value.message
    assert "\n" not in error.value.message


def test_a_host_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    assert host_named("local", file).local
    with pytest.raises(ConfigError, match="cannot read"):
        host_named("old", file)
    file.write_text(WHOLE)
    assert host_named("old", file).address == "lab.example"
    with pytest.raises(ConfigError, match="no host 'none'") as error:
        host_named("none", file)
    assert "local, tdx1, old" in str(error.value.hint)


@pytest.mark.parametrize(
    "command",
    [
        ["ipmitool", "-H", "bmc1", "-P", "hunter2", "sol", "activate"],
        ["/usr/bin/ipmitool", "-Phunter2", "sol", "activate"],
        ["sshpass", "-p", "hunter2", "ssh", "bmc1"],
        ["curl", "--user=ada:hunter2", "bmc1"],
        ["curl", "https://ada:hunter2@bmc1/power"],
        ["./power", "--password", "hunter2"],
        ["./power", "password=hunter2"],
    ],
)
def test_a_password_on_a_command_line_is_refused_and_not_repeated(
    tmp_path: Path, command: list[str]
) -> None:
    file = tmp_path / "hosts.toml"
    for key in ("console", "power_cycle"):
        file.write_text(f"[[host]]\nname = 'a'\naddress = 'a'\n{key} = {command}\n")
        with pytest.raises(ConfigError, match=f"{key} of a has a password") as error:
            read_hosts(file)
        assert "hunter2" not in str(error.value)


def test_a_password_in_a_file_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    command = ["ipmitool", "-I", "lanplus", "-p", "623", "-f", "bmc.pass", "sol", "activate"]
    file.write_text(f"[[host]]\nname = 'a'\naddress = 'a'\nconsole = {command}\n")
    assert read_hosts(file)["a"].console == tuple(command)

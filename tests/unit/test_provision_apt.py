# SPDX-License-Identifier: GPL-2.0-or-later
"""The apt root: which mirror, what apt's words mean, and that nothing unverified is used."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from harness.errors import HostError
from harness.provision import apt
from harness.provision.apt import Pool
from harness.provision.cache import Deb

# As apt-get indextargets prints them; the addresses are invented.
PLAIN = """\
http://mirror.example/debian/ bookworm main
http://mirror.example/debian/ bookworm-updates main
http://mirror.example/debian-security/ bookworm-security main
"""
OTHERS_FIRST = """\
https://packages.example/apt/ cloud-sdk-bookworm main
https://node.example/ nodistro main
http://mirror.example/debian-security/ trixie-security main
cdrom://Debian 12/ bookworm main
http://mirror.example/debian/ bookworm contrib
https://mirror.example/debian/ trixie main
"""
NONE = """\
http://mirror.example/debian-security/ bookworm-security main
https://packages.example/apt/ cloud-sdk-bookworm main
garbage
"""


@pytest.mark.parametrize(
    ("targets", "uri"),
    [
        (PLAIN, "http://mirror.example/debian/"),
        (OTHERS_FIRST, "https://mirror.example/debian/"),
        ("mirror+file:/etc/apt/mirrors.list stable main\n", "mirror+file:/etc/apt/mirrors.list"),
        ("file:/srv/debian/ sid main\n", "file:/srv/debian/"),
    ],
)
def test_mirror_is_the_machines_debian_archive(targets: str, uri: str) -> None:
    assert apt.choose_mirror(targets) == uri


@pytest.mark.parametrize("targets", ["", NONE])
def test_machine_without_a_debian_archive_is_told_how_to_name_one(targets: str) -> None:
    with pytest.raises(HostError, match="knows no Debian archive") as caught:
        apt.choose_mirror(targets)
    assert apt.MIRROR_VARIABLE in str(caught.value)


def test_missing_keys_name_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "_KEYRING_DIRECTORY", tmp_path)
    with pytest.raises(HostError, match="cannot be verified") as caught:
        apt.keyring()
    assert caught.value.hint == "apt-get install debian-archive-keyring"
    (tmp_path / "debian-archive-keyring.gpg").write_text("")
    assert apt.keyring() == tmp_path / "debian-archive-keyring.gpg"


SUM = "ab" * 32


def test_addresses_are_read_with_version_and_epoch() -> None:
    output = f"""\
Reading package lists...
'http://mirror.example/pool/b/busybox_1.deb' busybox_1%3a1.35-4+deb12u1_amd64.deb 928 SHA256:{SUM}
'http://mirror.example/pool/l/linux.deb' linux-headers-common_6.12~bpo12+1_all.deb 11 SHA256:{SUM}
"""
    busybox, headers = apt.parse_uris(output)
    assert busybox == Deb(
        "busybox", "1:1.35-4+deb12u1", "busybox_1%3a1.35-4+deb12u1_amd64.deb", 928, SUM
    )
    assert (headers.name, headers.version) == ("linux-headers-common", "6.12~bpo12+1")


@pytest.mark.parametrize(
    "line",
    [
        "'http://m/a.deb' a_1_amd64.deb 928 MD5Sum:d41d8cd98f00b204e9800998ecf8427e",
        "'http://m/a.deb' a_1_amd64.deb 928 ",
        f"'http://m/a.deb' ../../a_1_amd64.deb 928 SHA256:{SUM}",
        f"'http://m/a.deb' a.deb 928 SHA256:{SUM}",
        f"'http://m/a.deb' a_1_amd64.deb many SHA256:{SUM}",
    ],
)
def test_address_that_cannot_be_verified_is_refused(line: str) -> None:
    with pytest.raises(HostError, match="without file, size and SHA256"):
        apt.parse_uris(line)


def test_control_fields_of_the_first_paragraph() -> None:
    text = "Package: a\nDepends: b (>= 1),\n c\nDescription: x: y\n\nPackage: other\n"
    assert apt.parse_control(text) == {
        "Package": "a",
        "Depends": "b (>= 1),",
        "Description": "x: y",
    }


def test_dependencies_take_the_first_alternative() -> None:
    fields = {
        "Depends": "kmod, linux-image-6 (= 6.12-1) | linux-image-6-unsigned, perl:any, libc6(>=2)",
        "Pre-Depends": "linux-base (>= 4.12~)",
    }
    names = apt.dependencies(fields)
    assert names == ["linux-base", "kmod", "linux-image-6", "perl", "libc6"]
    assert apt.dependencies({"Package": "a"}) == []


def test_first_error_of_apt_is_its_cause() -> None:
    words = "W: one\nE: Failed to fetch x\nE: Some index files failed to download.\n"
    assert apt.first_error(words) == "Failed to fetch x"
    assert apt.first_error("chatter\nlast line\n") == "last line"
    assert apt.first_error("") == "no word from apt"


CONTENT = b"package"
DEB = Deb("tool", "1", "tool_1_amd64.deb", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def test_whole_package_file_is_used_and_a_wrong_one_removed(tmp_path: Path) -> None:
    path = tmp_path / DEB.file
    assert not apt.intact(DEB, tmp_path)
    path.write_bytes(CONTENT)
    assert apt.intact(DEB, tmp_path)
    path.write_bytes(b"packagE")
    assert not apt.intact(DEB, tmp_path)
    assert not path.exists()


def test_short_package_file_is_kept_for_apt_to_go_on_with(tmp_path: Path) -> None:
    (tmp_path / DEB.file).write_bytes(CONTENT[:3])
    assert not apt.intact(DEB, tmp_path)
    assert (tmp_path / DEB.file).exists()


# Stands for apt-get and apt-cache: notes its words, and does what the file "behaviour" says.
FAKE_APT = """\
#!/bin/sh
here=$(dirname "$0")
echo "$(basename "$0") $*" >>"$here/calls"
case "$*" in
# as apt does where no lists were fetched yet
*indextargets\\ --no-release-info*) echo "http://mirror.example/debian/ bookworm main" ;;
*indextargets*) ;;
*) . "$here/behaviour" ;;
esac
"""


class FakeApt:
    """Programs before the real ones in $PATH."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        for name in ("apt-get", "apt-cache"):
            (directory / name).write_text(FAKE_APT)
            (directory / name).chmod(0o755)
        self.behave(":")

    def behave(self, script: str) -> None:
        (self.directory / "behaviour").write_text(script + "\n")

    def calls(self, word: str) -> list[str]:
        path = self.directory / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if f" {word}" in line]


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApt:
    fake = FakeApt(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{fake.directory}:{os.environ['PATH']}")
    monkeypatch.delenv(apt.MIRROR_VARIABLE, raising=False)
    monkeypatch.setattr(apt, "keyring", lambda: Path("/keys.gpg"))
    return fake


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool("bookworm", tmp_path / "cache")


def test_lists_are_fetched_once_a_day(fake_apt: FakeApt, pool: Pool) -> None:
    for _ in range(2):
        with pool.opened():
            pass
    assert len(fake_apt.calls("update")) == 1
    old = time.time() - apt.LISTS_MAX_AGE_S - 60
    os.utime(pool.root / "updated", (old, old))
    with pool.opened():
        pass
    assert len(fake_apt.calls("update")) == 2
    with pool.opened(refresh=True):
        pass
    assert len(fake_apt.calls("update")) == 3


def test_root_names_the_machines_mirror_and_keys_and_nothing_of_the_system(
    fake_apt: FakeApt, pool: Pool
) -> None:
    with pool.opened():
        pass
    lines = (pool.root / "sources.list").read_text().splitlines()
    assert [line.split()[-3:] for line in lines] == [
        ["http://mirror.example/debian/", "bookworm", "main"],
        ["http://mirror.example/debian/", "bookworm-backports", "main"],
    ]
    assert all("signed-by=/keys.gpg" in line for line in lines)
    config = (pool.root / "apt.conf").read_text()
    for key in ("Dir::State ", "Dir::State::status", "Dir::Cache ", "Dir::Etc::SourceList"):
        assert f'{key.strip()} "{pool.root}' in config


def test_mirror_can_be_named(
    fake_apt: FakeApt, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://named.example/debian")
    with pool.opened():
        pass
    assert "http://named.example/debian bookworm main" in (pool.root / "sources.list").read_text()


def test_failed_update_says_apts_reason_and_is_tried_again(fake_apt: FakeApt, pool: Pool) -> None:
    fake_apt.behave("echo 'E: Could not resolve mirror.example' >&2; exit 100")
    reason = r"package lists: Could not resolve mirror\.example"
    with pytest.raises(HostError, match=reason) as caught, pool.opened():
        pass
    log = caught.value.log
    assert log is not None and "Could not resolve" in log.read_text()
    fake_apt.behave(":")
    with pool.opened():
        pass
    assert len(fake_apt.calls("update")) == 2


def test_packages_are_fetched_and_verified(fake_apt: FakeApt, pool: Pool, tmp_path: Path) -> None:
    with pool.opened() as opened:
        fake_apt.behave(f"printf package >{DEB.file}")
        opened.fetch([DEB], tmp_path, "tool")
        assert (tmp_path / DEB.file).read_bytes() == CONTENT
        assert fake_apt.calls("download")[0].endswith(" tool=1")
        opened.fetch([DEB], tmp_path, "tool")
        assert len(fake_apt.calls("download")) == 1


def test_package_changed_on_its_way_is_refused(
    fake_apt: FakeApt, pool: Pool, tmp_path: Path
) -> None:
    with pool.opened() as opened:
        fake_apt.behave(f"printf pAckage >{DEB.file}")
        with pytest.raises(HostError, match="not what the signed package list says"):
            opened.fetch([DEB], tmp_path, "tool")
    assert not (tmp_path / DEB.file).exists()


def test_failed_download_can_be_repeated(fake_apt: FakeApt, pool: Pool, tmp_path: Path) -> None:
    with pool.opened() as opened:
        fake_apt.behave("echo 'E: Failed to fetch: timed out'; exit 100")
        with pytest.raises(HostError, match="Failed to fetch: timed out") as caught:
            opened.fetch([DEB], tmp_path, "tool")
        assert "run the same command again" in str(caught.value)


def test_download_that_hangs_is_ended(
    fake_apt: FakeApt, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "_DOWNLOAD_TIMEOUT_S", 0.3)
    with pool.opened() as opened:
        fake_apt.behave("echo $$ >pid; exec sleep 60")
        with pytest.raises(HostError, match="download failed after 0 s"):
            opened.fetch([DEB], tmp_path, "tool")
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_unknown_package_is_an_error_that_names_it(fake_apt: FakeApt, pool: Pool) -> None:
    with pool.opened() as opened:
        fake_apt.behave("echo 'E: Unable to locate package nosuch' >&2; exit 100")
        with pytest.raises(HostError, match="find nosuch in Debian bookworm: Unable to locate"):
            opened.closure(["nosuch"])


def test_presence_of_a_package(fake_apt: FakeApt, pool: Pool) -> None:
    with pool.opened() as opened:
        fake_apt.behave("printf 'tool:\\n  Installed: (none)\\n  Candidate: 1\\n'")
        assert opened.has("tool")
        fake_apt.behave("printf 'tool:\\n  Installed: (none)\\n  Candidate: (none)\\n'")
        assert not opened.has("tool")
        fake_apt.behave(":")
        assert not opened.has("tool")

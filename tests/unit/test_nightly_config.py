# SPDX-License-Identifier: GPL-2.0-or-later
"""What a night runs, as a person writes it down."""

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.nightly.config import NightConfig, SeriesEntry, parse_config, read_config
from harness.nightly.sources import located
from harness.series.issues import issues_of

FULL = """
name = "dma"
budget_minutes = 90
bases = ["linux-source-6.12", "linux@v6.18"]
configs = ["lean", "debug.config"]
vcpus = [1, 2, 4]
memory_mib = 2048
modes = ["stub", "none"]
hosts = ["local"]
workloads = ["conversion", "dma"]
origin = "lab_1"
keep_nights = 3
known = "known.toml"

[[series]]
source = "dma.mbox"
name = "dma"
known = "issues.toml"
each = false
bases = ["linux-source-6.12"]

[[series]]
source = "patches"
"""


def parsed(text: str) -> NightConfig:
    return parse_config(text.encode(), Path("lab/nightly.toml"))


def test_every_word_is_taken() -> None:
    assert parsed(FULL) == NightConfig(
        name="dma",
        home=Path("lab"),
        budget_s=5400.0,
        bases=("linux-source-6.12", "linux@v6.18"),
        configs=("lean", "debug.config"),
        vcpus=(1, 2, 4),
        memory_mib=2048,
        modes=("stub", "none"),
        hosts=("local",),
        workloads=("conversion", "dma"),
        origin="lab_1",
        keep_nights=3,
        known="known.toml",
        series=(
            SeriesEntry(
                source="dma.mbox",
                name="dma",
                known="issues.toml",
                each=False,
                bases=("linux-source-6.12",),
            ),
            SeriesEntry(source="patches", bases=("linux-source-6.12", "linux@v6.18")),
        ),
    )


def test_all_may_be_left_out() -> None:
    night = parsed("")
    assert (night.name, night.vcpus, night.modes, night.series) == ("nightly", (2,), ("stub",), ())
    assert parsed("vcpus = [2, 2, 1]").vcpus == (2, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = 1", "name has to be a text"),
        ('name = ""', "name has to be a text"),
        ('name = "\\u001b[31m"', "name is too long, or holds what cannot be printed"),
        ('bases = ["\\u202e"]', "bases holds what cannot be printed"),
        ('origin = "Lab 1"', "is no KCIDB origin"),
        ("budget_minutes = 0", "budget_minutes has to be a whole number from 1 to 10080"),
        ("budget_minutes = true", "budget_minutes has to be"),
        ("budget_minutes = 20000", "budget_minutes has to be"),
        ("vcpus = 2", "vcpus has to be a list of at least one"),
        ("vcpus = []", "vcpus has to be a list"),
        ("vcpus = [1, 99]", "99 vCPUs: from 1 to"),
        ("memory_mib = 3", "3 MiB of memory"),
        ('modes = ["tdx"]', "modes are stub, none, not 'tdx': a TD on hardware needs a host"),
        ('hosts = ["spr1"]', "hosts are local, not 'spr1': a night runs on the machine"),
        ('workloads = ["all"]', "workloads are conversion, dma, devices, faults, not 'all'"),
        ("vcpu = [2]", "vcpu is no word of it"),
        ("series = 1", "series has to be tables"),
        ("[[series]]", "series 1: has no source"),
        ('[[series]]\nsource = "a"\nsoruce = "b"', "series 1: soruce is no word of it"),
        ('[[series]]\nsource = "a"\neach = 1', "each has to be true or false"),
        ('[[series]]\nsource = "a"\n[[series]]\nsource = "a"', "two series are called a"),
        ("name = ", "is no TOML"),
        ("a = " + "[" * 5000, "is no TOML"),
        ("x" * (1 << 20) + "x", "is larger than 1 MiB"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    assert words in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nightly\.toml"):
        read_config(tmp_path / "nightly.toml")


def test_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "linux").mkdir()
    assert located("linux", tmp_path) == f"{tmp_path}/linux"
    assert located("linux@v6.12..topic", tmp_path) == f"{tmp_path}/linux@v6.12..topic"
    assert located("v6.12..topic", tmp_path) == f"{tmp_path}@v6.12..topic"
    assert located("linux-source-6.12", tmp_path) == "linux-source-6.12"
    assert located("a@example.org", tmp_path) == "a@example.org"
    assert located("nul\0", tmp_path) == "nul\0"


ISSUE = """
[[issue]]
rule = "guest-cache-flush"
place = "f"
link = "https://example.org/1"
expires = 2999-01-01
"""


def test_known_issues_stand_beside_the_series(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    (tree / "patches").mkdir(parents=True)
    (tree / "v2.mbox").touch()
    for source in (str(tree), str(tree / "v2.mbox"), f"{tree}@a..b"):
        assert issues_of(source) == ()
    (tree / "known-issues.toml").write_text(ISSUE)
    for source in (str(tree), str(tree / "v2.mbox"), f"{tree}@a..b"):
        assert [issue.place for issue in issues_of(source)] == ["f"]
    assert issues_of(str(tree / "patches")) == ()
    assert len(issues_of(str(tree / "patches"), tree / "known-issues.toml")) == 1
    with pytest.raises(ConfigError, match="cannot read the known issues"):
        issues_of(str(tree), tree / "nowhere.toml")

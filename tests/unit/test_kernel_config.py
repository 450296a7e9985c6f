# SPDX-License-Identifier: GPL-2.0-or-later
"""Configurations as text, and what the output of a build says."""

from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.kernel import kconfig
from harness.kernel.buildlog import failing_line, new_warnings, warnings


def test_the_last_line_about_a_symbol_counts() -> None:
    text = 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\n# CONFIG_A is not set\n# words\n'
    assert kconfig.parse(text) == {"A": "n", "B": "n", "C": '"x y"'}


def test_what_is_put_on_top_replaces() -> None:
    text = kconfig.merged("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_AB=y\n", "CONFIG_B=y\n")
    assert text == "CONFIG_A=y\nCONFIG_AB=y\nCONFIG_B=y\n"


def test_what_was_wanted_and_not_taken() -> None:
    wanted = {"A": "y", "B": "n", "C": "m", "D": "y", "CC_VERSION_TEXT": "x"}
    got = {"A": "y", "C": "y", "E": "y"}
    assert kconfig.missing(wanted, got) == ["C", "D"]


def test_symbols_that_kconfig_files_define() -> None:
    texts = ["config A\n\tbool\n", "menuconfig B\n", "# config C\n\tdepends on D\n", "  config E\n"]
    assert kconfig.known(["A", "B", "C", "D", "E"], texts) == {"A", "B", "E"}


def test_lean_is_the_fragment_on_tinyconfig() -> None:
    lean = kconfig.lean()
    assert (lean.target, lean.strict) == ("tinyconfig", True)
    assert kconfig.parse(lean.text)["INTEL_TDX_GUEST"] == "y"


def test_a_fragment_goes_on_top_of_lean(tmp_path: Path) -> None:
    path = tmp_path / "mine.config"
    path.write_text("CONFIG_NVME=y\nCONFIG_SMP=n\n")
    config = kconfig.from_file(path)
    assert config.strict
    assert config.digest != kconfig.lean().digest
    values = kconfig.parse(config.text)
    assert (values["NVME"], values["SMP"], values["PCI"]) == ("y", "n", "y")


def test_a_whole_configuration_stands_alone_without_what_costs_hours(tmp_path: Path) -> None:
    path = tmp_path / ".config"
    head = "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.12.95 Kernel\n#\n"
    path.write_text(f"{head}CONFIG_PCI=y\nCONFIG_DEBUG_INFO_BTF=y\n")
    config = kconfig.from_file(path)
    assert (config.target, config.strict) == ("", False)
    values = kconfig.parse(config.text)
    assert (values["PCI"], values["DEBUG_INFO_BTF"], "SMP" in values) == ("y", "n", False)


@pytest.mark.parametrize(
    "content, words",
    [(None, "cannot read"), (b"words\n", "sets nothing"), (b"\xff", "cannot read")],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        kconfig.config_of(str(path), "linux-source-6.12")


LOG = """\
make: Entering directory '/kernel/src'
  CC      mm/a.o
/kernel/src/mm/a.c: In function 'f':
/kernel/src/mm/a.c:12:5: warning: unused variable 'x' [-Wunused-variable]
/kernel/src/mm/b.c:7:1: warning: no return [-Wreturn-type]
/kernel/src/mm/a.c:40:5: warning: unused variable 'x' [-Wunused-variable]
vmlinux.o: warning: objtool: f+0x12: unreachable instruction
WARNING: modpost: missing MODULE_DESCRIPTION() in x.o
"""


def test_warnings_without_their_lines() -> None:
    assert warnings(LOG) == [
        "mm/a.c: unused variable 'x' [-Wunused-variable]",
        "mm/b.c: no return [-Wreturn-type]",
        "vmlinux.o: warning: objtool: f+...: unreachable instruction",
        "WARNING: modpost: missing MODULE_DESCRIPTION() in x.o",
    ]


def test_warnings_are_bounded_and_harmless() -> None:
    said = "".join(f"a.c:{n}:1: warning: w{n} \x1b[2J{'x' * 400}\n" for n in range(2000))
    found = warnings(said)
    assert len(found) == 1000
    assert max(map(len, found)) <= 300
    assert "\x1b" not in "".join(found)


def test_a_warning_that_moved_is_not_new() -> None:
    before = warnings("a.c:1:1: warning: old\n")
    now = warnings("a.c:9:1: warning: old\na.c:2:1: warning: fresh\n")
    assert new_warnings(now, before) == ["a.c: fresh"]


@pytest.mark.parametrize(
    "output, line",
    [
        (
            "make[2]: *** [x] Error 1\na.c:3:9: error: 'X' undeclared\n",
            "a.c:3:9: error: 'X' undeclared",
        ),
        ("a.h:1:10: fatal error: x.h: No such file\n", "a.h:1:10: fatal error: x.h: No such file"),
        (
            "x.o: in function `f':\na.c:(.text+0x1): undefined reference to `g'\n*** [v]\n",
            "a.c:(.text+0x1): undefined reference to `g'",
        ),
        ('ERROR: modpost: "f" [x.ko] undefined!\n*** x\n', 'ERROR: modpost: "f" [x.ko] undefined!'),
        ("scripts/x.sh: 1: bc: not found\nlast\n", "scripts/x.sh: 1: bc: not found"),
        ("/kernel/src/a.c:3:9: error: x\n", "a.c:3:9: error: x"),
        ("one\nlast\n", "last"),
        ("", "no output"),
    ],
)
def test_the_line_that_says_why(output: str, line: str) -> None:
    assert failing_line(output) == line

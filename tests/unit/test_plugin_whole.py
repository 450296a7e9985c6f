# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole stub plugin on a fake machine, under ASan and UBSan: see tests/unit/plugin/whole.h."""

import re
from collections import defaultdict
from pathlib import Path

import pytest

from harness import proc
from harness.provision.buildroot import BuildRoot
from harness.stub.build import SOURCES, c_program_command, compile_c_program

TESTS = Path(__file__).parent / "plugin"
RUN_TIMEOUT_S = 60.0
NAMES = [
    name
    for path in sorted(TESTS.glob("whole_*.c"))
    for name in re.findall(r"^TEST\((\w+)\)$", path.read_text(), re.M)
]


@pytest.fixture(scope="module")
def program(buildroot: BuildRoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, the fake machine and all tests, in one program."""
    place = tmp_path_factory.mktemp("whole")
    sources = [*TESTS.glob("fake_*.c"), *TESTS.glob("guest*.c"), *TESTS.glob("whole*.c")]
    sources += SOURCES.glob("*.c")
    compile_c_program(
        buildroot, sorted(sources), program=place / "whole", log_path=place / "compile.log"
    )
    return place / "whole"


@pytest.fixture(scope="module")
def said(buildroot: BuildRoot, program: Path) -> dict[str, list[str]]:
    """What each test said, run in one go; the last line of each is its result."""
    argv = c_program_command(buildroot, program)
    result = proc.run(argv, timeout_s=RUN_TIMEOUT_S, log_path=program.with_suffix(".log"))
    lines = defaultdict(list)
    for line in result.stdout.splitlines():
        name, _, words = line.partition(": ")
        lines[name].append(words)
    return lines


@pytest.mark.parametrize("name", NAMES)
def test_whole(name: str, said: dict[str, list[str]]) -> None:
    assert said[name][-1] == "ok", "\n".join(said[name])


def test_every_test_is_run(said: dict[str, list[str]]) -> None:
    assert len(NAMES) > 10
    assert set(said) == set(NAMES)

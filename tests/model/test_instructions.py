# SPDX-License-Identifier: GPL-2.0-or-later
"""The real plugin on the real QEMU, against harness/testing/instructions.py; no Linux."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BuildError
from harness.provision import kernels, qemu
from harness.provision.cache import cache_dir
from harness.stub.build import build_plugin
from harness.testing import tiny
from harness.testing.instructions import CASES

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("instructions")]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """What each case told, all of them run by one guest."""
    place = tmp_path_factory.mktemp("tiny")
    root = kernels.stock().headers_buildroot
    assert root is not None
    firmware = tiny.build(root, CASES, place)
    plugin = build_plugin(root, cache_dir=cache_dir() / "builds")
    stream = tiny.run(qemu.find_or_make(), plugin, firmware)
    assert stream.complete
    return tiny.by_case(stream.events)


def test_the_table_is_long_and_names_its_sources() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.source for case in CASES)


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: CASES[n].name.replace(" ", "-"))
def test_case(number: int, facts: dict[int, list[str]]) -> None:
    case = CASES[number]
    assert facts[number] == list(case.expected), case.source


def test_a_wrong_expectation_is_found(facts: dict[int, list[str]]) -> None:
    wrong = [replace(case, expected=(*case.expected, "stale")) for case in CASES]
    assert set(tiny.check(wrong, facts)) == {case.name for case in CASES}
    assert not tiny.check(CASES, facts)


def test_a_case_that_faults_is_no_success(tmp_path: Path) -> None:
    root = kernels.stock().headers_buildroot
    assert root is not None
    cases = [tiny.Case("ud2", "SDM 2 UD", "ud2", ())]
    plugin = build_plugin(root, cache_dir=cache_dir() / "builds")
    with pytest.raises(BuildError, match="the guest ended with 0"):
        tiny.run(qemu.find_or_make(), plugin, tiny.build(root, cases, tmp_path))

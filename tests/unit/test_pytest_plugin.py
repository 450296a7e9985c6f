# SPDX-License-Identifier: GPL-2.0-or-later
"""Suites that boot guests, as pytest runs them; the guests are fake."""

import json
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import shell, suite
from harness.plan import Plan
from harness.prepare import Request
from harness.testing.fake_qemu import LAST_WORDS, host_key
from harness.testing.guests import fake_plan

pytest_plugins = ["pytester"]

# Each would be imported anew for each suite, which takes a second.
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
HEAD = """
import pytest
from harness.errors import MachineError
from harness.workload import Step

CONVERT, FAULT = "tdh convert size=4K", "tdh fault name=no-flush"
"""
Suite = Callable[..., pytest.RunResult]


@pytest.fixture(scope="module", autouse=True)
def lasting_imports(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Import what has C parts: pytester forgets what is imported inside, and these load once."""
    shell.make_key(tmp_path_factory.mktemp("key") / "key")
    shell.parse_host_key(host_key())


@pytest.fixture
def suite_of(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Suite]:  # fmt: skip
    """Runs a suite with fake guests; nothing of them may be left behind."""
    place = tmp_path_factory.mktemp("p")
    monkeypatch.setattr(tempfile, "tempdir", str(place))

    def run(body: str, *words: str, faults: str = "") -> pytest.RunResult:
        def planned(request: Request, *_: object, scenario: str) -> Plan:
            plan = fake_plan(
                pytester.path / "fake", faults, scenario=scenario, td_mode=request.td_mode,
                trace=bool(request.trace),
            )  # fmt: skip
            return replace(plan, spec=replace(plan.spec, smp=request.smp), boot_timeout_s=5.0)

        monkeypatch.setattr(suite, "prepare", planned)
        pytester.makepyfile(HEAD + body)
        return pytester.runpytest_inprocess(*WITHOUT, *words)

    yield run
    assert list(place.glob("tdharness-*")) == []


def run_directories(pytester: pytest.Pytester) -> list[Path]:
    return sorted((pytester.path / "runs").iterdir())


SLICES = """
def test_clean(guest):
    assert guest.sh(CONVERT).rc == 0

def test_finding(guest):
    guest.sh(FAULT)

def test_failed_step(guest):
    guest.step(Step(name="must-fail", command=CONVERT, must_fail=True))

def test_clean_again(guest):
    guest.sh(CONVERT)

def test_warning(guest):
    guest.sh(CONVERT + "; fake warn")

@pytest.mark.plants("guest-cache-flush")
def test_caught(guest):
    guest.sh(FAULT)

@pytest.mark.plants("guest-cache-flush")
def test_not_caught(guest):
    guest.sh(CONVERT)

@pytest.mark.plants("guest-tlb-flush")
def test_caught_by_another_rule(guest):
    guest.sh(FAULT)

def test_empty(guest):
    guest.sh("true")

@pytest.mark.plants()
def test_need_not_convert(guest):
    guest.sh("true")

@pytest.mark.plants()
def test_need_not_convert_but_does_it_wrong(guest):
    guest.sh(FAULT)

def test_own_assertion(guest):
    guest.sh(FAULT)
    assert "mine" == "yours"

def test_without_a_guest():
    pass
"""


def test_each_test_is_judged_by_its_own_slice(suite_of: Suite, pytester: pytest.Pytester) -> None:
    result = suite_of(
        SLICES,
        "--junitxml=junit.xml",
        "-rA",
    )
    ended = {
        case.get("name"): "".join(child.text or "" for child in case.iter("failure"))
        for case in ElementTree.parse(pytester.path / "junit.xml").getroot().iter("testcase")
    }
    passed = {
        "test_clean", "test_clean_again", "test_caught", "test_need_not_convert",
        "test_without_a_guest",
    }  # fmt: skip
    assert {name for name, message in ended.items() if not message} == passed
    result.assert_outcomes(passed=5, failed=8)
    assert "guest-cache-flush (fail)" in ended["test_finding"]
    assert "workload (fail)" in ended["test_failed_step"]
    assert "kernel-log (fail)" in ended["test_warning"]
    not_caught = "the planted fault was not caught by guest-cache-flush"
    assert ended["test_not_caught"].splitlines()[0].endswith(not_caught)
    assert "guest-cache-flush (fail)" in ended["test_caught_by_another_rule"]
    assert "EMPTY: no memory was converted" in ended["test_empty"]
    assert "guest-cache-flush (fail)" in ended["test_need_not_convert_but_does_it_wrong"]
    assert "mine" in ended["test_own_assertion"]
    # One boot for all, left judged and with its report.
    (run,) = run_directories(pytester)
    assert f"run: {run.relative_to(pytester.path)}" in ended["test_finding"]
    assert json.loads((run / "verdict.json").read_text())["outcome"] == "FAIL"
    assert (run / "report.html").is_file()


@pytest.mark.parametrize(
    ("fault", "words"),
    [("lose", "signal 9 (Killed)"), ("panic", "the guest ended"), ("reboot", "the guest ended")],
)
def test_a_broken_guest_gets_the_next_test_a_fresh_one(
    fault: str, words: str, suite_of: Suite, pytester: pytest.Pytester
) -> None:
    result = suite_of(
        f"""
def test_break(guest):
    guest.sh("fake {fault}")

def test_next(guest):
    assert guest.sh(CONVERT).rc == 0
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines([f"*test_break: *{words}*"])
    outcomes = [
        json.loads((run / "verdict.json").read_text())["outcome"]
        for run in run_directories(pytester)
    ]
    assert sorted(outcomes) == ["ERROR" if fault == "lose" else "FAIL", "PASS"]


def test_a_guest_that_a_failed_test_lost_is_replaced(
    suite_of: Suite, pytester: pytest.Pytester
) -> None:
    result = suite_of(
        """
def test_lose(guest):
    with pytest.raises(MachineError):
        guest.sh("fake lose")
    assert "mine" == "yours"

def test_next(guest):
    guest.sh(CONVERT)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    assert len(run_directories(pytester)) == 2


def test_a_guest_that_hangs_is_replaced(suite_of: Suite, pytester: pytest.Pytester) -> None:
    result = suite_of(
        """
def test_hang(guest):
    guest.sh("fake hang", timeout_s=0.3)

def test_next(guest):
    guest.sh(CONVERT)
"""
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_hang: *no answer from the guest's agent within *"])
    assert len(run_directories(pytester)) == 2


def test_a_guest_that_cannot_start_is_tried_once(
    suite_of: Suite, pytester: pytest.Pytester
) -> None:
    result = suite_of(
        """
def test_one(guest):
    guest.sh(CONVERT)

def test_two(guest):
    guest.sh(CONVERT)
""",
        faults="start=die",
    )
    result.assert_outcomes(errors=2)
    said = [line for line in result.outlines if LAST_WORDS in line and line.startswith("E  ")]
    assert len(said) == 2
    assert len(run_directories(pytester)) == 1


MODES = """
@pytest.mark.needs_td
def test_conversion(guest):
    guest.sh(CONVERT)

@pytest.mark.needs_stub
def test_the_stub(guest):
    guest.sh(CONVERT)

@pytest.mark.min_cpus(4)
@pytest.mark.plants()
def test_many_cpus(guest):
    guest.sh("true")

@pytest.mark.plants()
def test_anything(guest):
    guest.sh("true")
"""


def test_a_plain_vm_skips_conversions_with_the_reason(suite_of: Suite) -> None:
    result = suite_of(MODES, "--td-mode=none", "--smp=4", "-rs")
    result.assert_outcomes(passed=2, skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*mode none is a plain VM: it converts no memory*"])
    result.stdout.fnmatch_lines(["SKIPPED*mode none has no stub*"])


def test_on_hardware_what_only_the_stub_sees_is_left_out(suite_of: Suite) -> None:
    result = suite_of(MODES, "--td-mode=tdx", "--smp=4", "-rs")
    result.stdout.fnmatch_lines(["SKIPPED*mode tdx has no stub, and nobody else sees this"])
    assert result.parseoutcomes()["skipped"] == 1


def test_a_guest_that_cannot_be_traced_judges_nothing_and_boots_once(
    suite_of: Suite, pytester: pytest.Pytester
) -> None:
    result = suite_of(MODES, "--guest-trace", "--smp=4")
    result.assert_outcomes(errors=4)
    result.stdout.fnmatch_lines(["*no conversion: the guest's module put no probe*"])
    assert len(list((pytester.path / "runs").iterdir())) == 1


def test_too_few_cpus_skip_with_the_reason(suite_of: Suite) -> None:
    result = suite_of(MODES, "-rs")
    result.assert_outcomes(passed=3, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*needs 4 vCPUs, the guest has 2: use --smp 4"])


def test_a_skip_is_a_failure_where_the_stub_is_required(suite_of: Suite) -> None:
    result = suite_of(MODES, "--td-mode=none", "--smp=4", "--tdharness-require=stub")
    result.assert_outcomes(passed=2, errors=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*must not be skipped: mode none is a plain VM*"])


def test_options_of_the_guest_are_in_the_help(pytester: pytest.Pytester) -> None:
    output = pytester.runpytest_inprocess(*WITHOUT, "--help").stdout.str()
    for option in ("--td-mode", "--kernel", "--smp", "--memory", "--runs", "--tdharness-require"):
        assert option in output


def test_one_worker_gets_all_tests_that_share_the_guest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_a(guest): ...\ndef test_b(guest): ...\ndef test_c(): ...")
    items, _ = pytester.inline_genitems(*WITHOUT)
    groups = [item.get_closest_marker("xdist_group") for item in items]
    assert [group.args[0] if group else None for group in groups] == ["guest", "guest", None]


def test_the_guest_stands_still_between_its_tests(
    pytester: pytest.Pytester, suite_of: Suite
) -> None:
    result = suite_of("def test_a(guest):\n    assert guest.sh(CONVERT).rc == 0\n")
    result.assert_outcomes(passed=1)
    (run,) = run_directories(pytester)
    said = [json.loads(line)["event"] for line in (run / "qmp.jsonl").read_text().splitlines()]
    assert said == ["STOP", "SHUTDOWN"]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole stub plugin on a fake machine, under ASan and UBSan: see tests/unit/plugin/whole.h."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import proc
from harness.events import decode
from harness.provision.buildroot import BuildRoot
from harness.stub.build import SOURCES, c_program_command, compile_c_program
from harness.testing import reference
from harness.testing.reference import PAGES, VCPUS, Fact, Reference, Step, facts_of, shrink

# One worker builds the program and runs all that needs it.
pytestmark = pytest.mark.xdist_group("plugin_whole")

TESTS = Path(__file__).parent / "plugin"
RUN_TIMEOUT_S = 60.0
NAMES = [
    name
    for path in sorted(TESTS.glob("whole_*.c"))
    for name in re.findall(r"^TEST\((\w+)\)$", path.read_text(), re.M)
]


def all_sources() -> list[Path]:
    sources = [path for path in TESTS.glob("*.c") if not path.name.startswith("test_")]
    sources += SOURCES.glob("*.c")
    return sorted(sources)


@pytest.fixture(scope="module")
def program(buildroot: BuildRoot, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin, the fake machine and all tests, in one program."""
    place = tmp_path_factory.mktemp("whole")
    compile_c_program(
        buildroot, all_sources(), program=place / "whole", log_path=place / "compile.log"
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


def test_one_worker_has_them_all(request: pytest.FixtureRequest) -> None:
    if getattr(request.config.option, "loadgroup", False):
        assert request.node.nodeid.endswith("@plugin_whole")


def test_every_test_is_run(said: dict[str, list[str]]) -> None:
    assert len(NAMES) > 10
    assert set(said) == set(NAMES)


# As tests/unit/plugin/whole_random.c maps them.
FIRST_GPA = 4 << 20
BASES = (0xFF11000000000000 + FIRST_GPA, 0xFF11000000000000 + (256 << 30) + FIRST_GPA)
Plugin = Callable[[Sequence[Step]], list[Fact]]


@pytest.fixture(scope="module")
def plugin(buildroot: BuildRoot, program: Path) -> Iterator[Plugin]:
    """Runs a sequence on the plugin, in a child of one lasting process."""
    steps_in, steps_out = os.pipe()
    answers_in, answers_out = os.pipe()
    argv = c_program_command(buildroot, program, str(steps_in))
    with os.fdopen(steps_out, "w") as steps, os.fdopen(answers_in) as answers:
        with os.fdopen(answers_out, "wb") as stdout:
            child = proc.spawn(argv, stdout=stdout, pass_fds=[steps_in])
        os.close(steps_in)

        def run(sequence: Sequence[Step]) -> list[Fact]:
            print(
                *(" ".join(map(str, step)) for step in sequence), sep="; ", file=steps, flush=True
            )
            answer = answers.readline().rstrip("\n")
            # What the sanitizers say comes on the same way.
            assert re.fullmatch("[0-9a-f]+", answer), answer + answers.readline()
            stream = decode(bytes.fromhex(answer))
            assert stream.complete
            return list(facts_of(stream.events, first_gpa=FIRST_GPA, bases=BASES))

        try:
            yield run
        finally:
            proc.kill_group(child)


def numbers(*ranges: int) -> st.SearchStrategy[tuple[int, ...]]:
    """A number below each of these."""
    return st.tuples(*(st.integers(0, top - 1) for top in ranges))


def steps(letter: str, *ranges: int) -> st.SearchStrategy[Step]:
    return numbers(VCPUS, *ranges).map(lambda n: (letter, *n))


# Few places, so that steps meet: the ends of pages and lines, and the lines that those lie in.
ACCESSES = st.tuples(
    st.sampled_from("SL"),
    st.integers(0, VCPUS - 1),
    st.integers(0, 1),
    st.integers(0, PAGES - 2),
    st.sampled_from([0, 8, 60, 64, 127, 4032, 4088, 4089, 4095]),
    st.sampled_from([1, 2, 4, 8, 16, 64]),
)
FLUSHES = st.tuples(
    st.sampled_from("FW"),
    st.integers(0, VCPUS - 1),
    st.integers(0, 1),
    st.integers(0, PAGES - 1),
    st.sampled_from([0, 1, 63]),
)
CONVERSIONS = st.tuples(
    st.just("M"), st.integers(0, VCPUS - 1), st.integers(0, 1), st.integers(1, PAGES - 1),
    st.integers(0, 1),
)  # fmt: skip
STEPS: st.SearchStrategy[Step] = st.one_of(
    ACCESSES,
    ACCESSES,
    FLUSHES,
    steps("B"),
    steps("P", 2, PAGES, 2),
    steps("P", 2, PAGES, 2),
    steps("N", 2, PAGES),
    steps("I", 2, PAGES),
    st.one_of(steps("C"), steps("G"), steps("H"), steps("R")),
    CONVERSIONS,
    steps("A", PAGES).map(lambda step: (*step, 0)),
    steps("A").map(lambda step: (*step, 0, 1)),
)
SEQUENCES = st.lists(STEPS, min_size=10, max_size=60)


def test_random_sequences(plugin: Plugin) -> None:
    told: set[str | int] = set()

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(SEQUENCES)
    def check(sequence: list[Step]) -> None:
        facts = Reference().run(sequence)
        assert plugin(sequence) == facts
        told.update(fact[0] for fact in facts)

    check()
    # The comparison says nothing about what never happens.
    assert told == {
        "convert", "dirty", "stale", "pte_change", "wrong_alias", "unaccepted", "accept",
        "cache_all",
    }  # fmt: skip


def test_a_reference_that_forgets_is_found_out(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence: list[Step] = [("P", 0, 0, 0, 1), ("C", 1), ("M", 1, 0, 1, 1)]
    assert plugin(sequence) == Reference().run(sequence)
    monkeypatch.setitem(reference.STEPS, "C", "flush_global")
    assert plugin(sequence) != Reference().run(sequence)


def run_fast(
    command: list[str], first: int, sequences: int, length: int, left_out: str = "-"
) -> str:
    """What the plugin and the naive model in C say of so many steps."""
    argv = [*command, "fast", str(first), str(sequences), str(length), left_out]
    return proc.run(argv, timeout_s=FAST_TIMEOUT_S, check=False).stdout


def made_steps(command: list[str], number: int, length: int) -> list[Step]:
    """The steps of one of those sequences; each letter takes as many numbers as it needs."""
    printed = proc.run(
        [*command, "steps", str(number), str(length)], timeout_s=RUN_TIMEOUT_S
    ).stdout
    words = [step.split() for step in printed.split(";") if step.strip()]
    return [(letter, *map(int, rest[: 1 + TAKES.get(letter, 0)])) for letter, *rest in words]


# Numbers behind the vCPU.
TAKES = {"S": 4, "L": 4, "F": 3, "W": 3, "P": 3, "N": 2, "I": 2, "M": 3, "A": 2}
SEQUENCE_STEPS, CI_SEQUENCES = 20_000, 50
FAST_TIMEOUT_S = 3600.0
# More than CI's steps, for a night: the plugin is compiled as it is used, without sanitizers.
STEPS_VARIABLE = "TDHARNESS_RANDOM_STEPS"


def explain(plugin: Plugin, command: list[str], words: str) -> str:
    """The difference that whole_fast.c found, as a sequence that a person can read."""
    found = re.search(r"sequence (\d+) differs at step (\d+)", words)
    if not found:
        return words
    sequence = made_steps(command, int(found[1]), int(found[2]) + 1)

    def differs(shorter: list[Step]) -> bool:
        return plugin(shorter) != Reference().run(shorter)

    if not differs(sequence):
        return words + "the plain model in Python agrees with the plugin: the one in C is wrong"
    shortest = shrink(sequence, differs)
    return f"{words}{shortest}\n{plugin(shortest)}\nexpected {Reference().run(shortest)}"


def test_many_random_steps(buildroot: BuildRoot, program: Path, plugin: Plugin) -> None:
    command = c_program_command(buildroot, program)
    words = run_fast(command, 0, CI_SEQUENCES, SEQUENCE_STEPS)
    assert words == f"{CI_SEQUENCES * SEQUENCE_STEPS} steps agree\n", explain(
        plugin, command, words
    )


def test_the_two_references_agree(buildroot: BuildRoot, program: Path, plugin: Plugin) -> None:
    sequence = made_steps(c_program_command(buildroot, program), 0, 2000)
    assert {step[0] for step in sequence} == set(reference.STEPS)
    facts = Reference().run(sequence)
    assert len(facts) > 500
    assert plugin(sequence) == facts


@pytest.mark.parametrize("letter", sorted(reference.STEPS))
def test_a_step_that_the_naive_model_does_not_see(
    letter: str, buildroot: BuildRoot, program: Path
) -> None:
    words = run_fast(c_program_command(buildroot, program), 0, 1, SEQUENCE_STEPS, letter)
    assert re.fullmatch(r"sequence 0 differs at step \d+\n", words)


def test_a_difference_is_shrunk() -> None:
    sequence: list[Step] = [("L", 0, 0, n, 0, 8) for n in range(50)]
    assert shrink(sequence, lambda some: sequence[7] in some and sequence[31] in some) == [
        sequence[7],
        sequence[31],
    ]


@pytest.mark.timeout(FAST_TIMEOUT_S)
@pytest.mark.skipif(STEPS_VARIABLE not in os.environ, reason=f"{STEPS_VARIABLE} gives their number")
def test_a_night_of_random_steps(
    buildroot: BuildRoot, program: Path, plugin: Plugin, tmp_path: Path
) -> None:
    compile_c_program(
        buildroot,
        all_sources(),
        program=tmp_path / "fast",
        log_path=tmp_path / "log",
        sanitizers=None,
    )
    count = int(os.environ[STEPS_VARIABLE])
    command = c_program_command(buildroot, tmp_path / "fast")
    words = run_fast(command, 1000, max(1, count // (10 * SEQUENCE_STEPS)), 10 * SEQUENCE_STEPS)
    assert words.endswith("steps agree\n"), explain(
        plugin, c_program_command(buildroot, program), words
    )

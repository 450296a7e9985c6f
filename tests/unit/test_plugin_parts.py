# SPDX-License-Identifier: GPL-2.0-or-later
"""The pure parts of the stub plugin, each compiled with its C test under ASan and UBSan."""

from pathlib import Path

import pytest

from harness.errors import BuildError
from harness.provision.buildroot import BuildRoot
from harness.stub.build import SOURCES, build_plugin, digest, run_c_program

TESTS = Path(__file__).parent / "plugin"


@pytest.mark.parametrize(
    "part", ["access", "fault", "insn", "page", "pending", "pgtable", "stream", "vmm"]
)
def test_part(part: str, buildroot: BuildRoot, tmp_path: Path) -> None:
    sources = [TESTS / f"test_{part}.c", SOURCES / f"{part}.c"]
    run_c_program(buildroot, sources, log_path=tmp_path / "log")


def test_every_c_test_is_run() -> None:
    marks = getattr(test_part, "pytestmark")  # noqa: B009 - a test function's own attribute
    assert {f"test_{part}.c" for part in marks[0].args[1]} == {
        path.name for path in TESTS.glob("test_*.c")
    }


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("CHECK_EQ(1 + 1, 3);", "not 0x3"),
        ("char *p = malloc(argc); p[argc] = 1; CHECK_EQ(*p, 2);", "heap-buffer-overflow"),
        ("int i = __INT_MAX__; i += argc; CHECK_EQ(i, 0);", "signed integer overflow"),
    ],
)
def test_a_fault_in_c_is_seen(fault: str, word: str, buildroot: BuildRoot, tmp_path: Path) -> None:
    (tmp_path / "check.h").write_text((TESTS / "check.h").read_text())
    source = tmp_path / "fault.c"
    source.write_text(
        '#include "check.h"\n'
        f"int main(int argc, char **argv) {{ (void)argc; {fault} return !argv; }}\n"
    )
    log = tmp_path / "log"
    with pytest.raises(BuildError):
        run_c_program(buildroot, [source], log_path=log)
    assert word in log.read_text()


def test_the_plugin_is_built_once(buildroot: BuildRoot, tmp_path: Path) -> None:
    first = build_plugin(buildroot, cache_dir=tmp_path)
    stamp = first.stat().st_mtime_ns
    assert build_plugin(buildroot, cache_dir=tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".so"] == [first.name]


def test_another_source_is_another_build(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int a;\n")
    before = digest(tmp_path)
    (tmp_path / "a.c").write_text("int b;\n")
    assert digest(tmp_path) != before


def test_a_plugin_that_does_not_compile_names_the_log(buildroot: BuildRoot, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "bad.c").write_text("int main(void) { return undeclared; }\n")
    with pytest.raises(BuildError) as caught:
        build_plugin(buildroot, cache_dir=tmp_path / "cache", sources=sources)
    assert caught.value.log is not None
    assert "undeclared" in caught.value.log.read_text()
    assert not list((tmp_path / "cache").glob("*.so"))

# SPDX-License-Identifier: GPL-2.0-or-later
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.kernellog import scan
from harness.provision.buildroot import BuildRoot
from harness.sourcelines import SourceLines, add_sources, beside
from harness.verdict import Finding, Severity

MAIN = """int other(int x);
static int twin(int x)
{
	return other(x) + 1;
}
int caller(int x)
{
	x = other(x);
	return twin(x) + 1;
}
void _start(void) { caller(3); for (;;); }
"""
OTHER = """static int twin(int x)
{
	x += 3;
	x *= 2;
	return x;
}
int other(int x)
{
	return twin(x) * 5;
}
"""


@pytest.fixture(scope="module")
def build(buildroot: BuildRoot, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Compiles the two files with more options, in a tree with a directory."""
    place = tmp_path_factory.mktemp("sources")
    (place / "mm").mkdir()
    (place / "mm" / "main.c").write_text(MAIN)
    (place / "other.c").write_text(OTHER)

    def compile_with(options: str) -> bytes:
        argv = ["gcc", *options.split(), "-nostdlib", "-static", "-o", "x", "mm/main.c", "other.c"]
        inside = Path("/sources")
        buildroot.run(argv, binds={place: inside}, cwd=inside)
        return (place / "x").read_bytes()

    return compile_with


def calls(image: bytes, name: str) -> list[str]:
    """Frames of every CALL in a function, as the kernel prints them: behind the instruction."""
    elf = ELFFile(io.BytesIO(image))
    table, text = (elf.get_section_by_name(section) for section in (".symtab", ".text"))
    assert isinstance(table, SymbolTableSection)
    assert text is not None
    symbols = [s for s in table.iter_symbols() if s["st_value"]]
    starts = sorted({s["st_value"] for s in symbols})
    found = []
    for symbol in symbols:
        start = symbol["st_value"]
        if symbol.name != name or start == starts[-1]:
            continue
        size = starts[starts.index(start) + 1] - start
        code = text.data()[start - text["sh_addr"] :][:size]
        for at in range(len(code) - 5):
            if code[at] == 0xE8 and code[at + 3 : at + 5] in (b"\0\0", b"\xff\xff"):
                found.append(f"{name}+{at + 5:#x}/{size:#x}")
    return found


@pytest.mark.parametrize("options", ["-O0 -g", "-O0 -gdwarf-4"])
def test_calls_have_their_lines(options: str, build: Callable[[str], bytes]) -> None:
    image = build(options)
    lines = SourceLines(io.BytesIO(image))
    assert not lines.missing
    found = [lines.line_of(frame) for frame in calls(image, "caller")]
    assert found == ["mm/main.c:8", "mm/main.c:9"]
    assert [lines.line_of(frame) for frame in calls(image, "other")] == ["other.c:9"]
    # Two functions of one name are told apart by their size.
    assert [lines.line_of(frame) for frame in calls(image, "twin")] == ["mm/main.c:4"]


def test_the_first_frame_is_the_instruction_itself(build: Callable[[str], bytes]) -> None:
    image = build("-O0 -g")
    lines = SourceLines(io.BytesIO(image))
    first, _ = calls(image, "caller")
    begin = f"caller+0x0/{first.rpartition('/')[2]}"
    assert lines.line_of(f"RIP: 0010:{begin}", returns=False) == "mm/main.c:7"
    assert lines.line_of(begin) != "mm/main.c:7"


def test_what_cannot_be_known_is_none(build: Callable[[str], bytes]) -> None:
    image = build("-O0 -g")
    lines = SourceLines(io.BytesIO(image))
    (frame,) = calls(image, "other")
    for unknown in (f"{frame} [tdharness]", "nowhere+0x1/0x2", "other+0x1/0x7777", "no frame", ""):
        assert lines.line_of(unknown) is None


def test_why_there_are_no_lines(build: Callable[[str], bytes]) -> None:
    assert "no debug information" in SourceLines(io.BytesIO(build("-O0"))).missing
    assert "cannot be read" in SourceLines(io.BytesIO(b"\x7fELF nonsense")).missing
    whole = build("-O0 -g")
    for length in range(0, len(whole), 997):
        lines = SourceLines(io.BytesIO(whole[:length]))
        assert lines.line_of("caller+0x5/0x20") is None


def test_findings_get_their_lines(build: Callable[[str], bytes], tmp_path: Path) -> None:
    whole = build("-O0 -g")
    first, second = calls(whole, "caller")
    (other,) = calls(whole, "other")
    log = (
        f"[    1.000000] WARNING: CPU: 0 PID: 1 at mm/main.c:7 {other}\n[    1.000001]  {second}\n"
    )
    (warning,) = scan(log.encode())
    image = tmp_path / "arch" / "x86" / "boot" / "bzImage"
    rest = Finding(rule="workload", severity=Severity.FAIL, summary="x")
    without, same = add_sources([warning, rest], image)
    assert "no vmlinux beside" in without.extra["no_source"]
    assert same == rest
    (tmp_path / "vmlinux").write_bytes(build("-O0"))
    assert "no debug information" in add_sources([warning], image)[0].extra["no_source"]
    (tmp_path / "vmlinux").write_bytes(whole)
    (found,) = add_sources([warning], image)
    assert found.extra["source"] == ["other.c:9", "mm/main.c:9"]
    assert beside(tmp_path / "bzImage") == tmp_path / "vmlinux"
    assert first != second

# SPDX-License-Identifier: GPL-2.0-or-later
"""The event schema, which C and Python each write down: compiled here and compared."""

import re
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

from harness import events
from harness.provision.buildroot import BuildRoot
from harness.stub.build import SOURCES, run_c_program

HEADER = SOURCES / "events.h"
ENUMS: dict[str, tuple[str, type[IntEnum] | type[IntFlag]]] = {
    "EventKind": ("EV_", events.Kind),
    "EventFlag": ("EF_", events.Flag),
    "EventCounter": ("CNT_", events.Counter),
    "PageState": ("PAGE_", events.PageState),
    "VmmBehaviour": ("VMM_", events.VmmBehaviour),
    "PoisonAction": ("POISON_", events.PoisonAction),
}
FIELDS = {
    "EventHeader": ["magic", "version", "record_size", "vcpus", "gpaw", "ram_below_4g",
                    "ram_above_4g", "reserved"],
    "EventRecord": ["seq", "kind", "vcpu", "flags", "pc", "arg"],
}  # fmt: skip
WIDTHS = {"s": 1, "x": 1, "H": 2, "I": 4, "Q": 8}


def constants(header: str, enum: str) -> list[str]:
    """Names of an enum in the header's text, so that a new one cannot be missed."""
    found = re.search(rf"typedef enum {enum} {{(.*?)}} {enum};", header, re.S)
    assert found, f"no enum {enum} in the header"
    body = re.sub(r"/\*.*?\*/", "", found.group(1), flags=re.S)
    return re.findall(r"^\s*(\w+)", ",".join(body.split(",")).replace(",", "\n"), re.M)


def program(header: str) -> str:
    """A C program that prints the schema as `name value` lines."""
    lines = ['printf("version %d\\n", EVENT_VERSION);', 'printf("magic %s\\n", EVENT_MAGIC);']
    for struct, fields in FIELDS.items():
        lines.append(f'printf("{struct} %zu\\n", sizeof({struct}));')
        lines += [
            f'printf("{struct}.{field} %zu %zu\\n", offsetof({struct}, {field}), '
            f"sizeof((({struct} *)0)->{field}));"
            for field in fields
        ]
    for enum in ENUMS:
        lines += [
            f'printf("{name} %lld\\n", (long long){name});' for name in constants(header, enum)
        ]
    body = "\n    ".join(lines)
    return (
        "#include <stddef.h>\n#include <stdio.h>\n#include \"events.h\"\n"
        f"int main(void)\n{{\n    {body}\n    return 0;\n}}\n"
    )  # fmt: skip


def offsets(layout: str, fields: list[str]) -> list[tuple[int, int]]:
    """Offset and size of each field of a struct layout; fields of one kind may be counted."""
    found, at = [], 0
    for count, kind in re.findall(r"(\d*)([a-zA-Z])", layout):
        # In the record five arguments are one array, in the header each letter is a field.
        each = 1 if count and kind in "sxQ" else int(count or 1)
        size = WIDTHS[kind] * (int(count or 1) if each == 1 else 1)
        for _ in range(each):
            found.append((at, size))
            at += size
    assert len(found) == len(fields)
    return found


def in_python() -> dict[str, str]:
    """The same lines as the C program prints, from harness.events."""
    said = {"version": str(events.VERSION), "magic": events.MAGIC.decode()}
    for (struct, fields), layout in zip(
        FIELDS.items(), (events.HEADER, events.RECORD), strict=True
    ):
        said[struct] = str(layout.size)
        for field, (at, size) in zip(fields, offsets(layout.format, fields), strict=True):
            said[f"{struct}.{field}"] = f"{at} {size}"
    for prefix, enum in ENUMS.values():
        said |= {f"{prefix}{member.name}": str(member.value) for member in enum}
    return said


def in_c(header: Path, buildroot: BuildRoot, work: Path) -> dict[str, str]:
    """What a compiler makes of the header."""
    source = work / "schema.c"
    source.write_text(program(header.read_text()))
    out = run_c_program(buildroot, [source], log_path=work / "log", include=header.parent)
    return dict(line.split(" ", 1) for line in out.splitlines())


def test_schema_is_the_same_in_c_and_python(buildroot: BuildRoot, tmp_path: Path) -> None:
    said = in_c(HEADER, buildroot, tmp_path)
    assert len(said) > 40
    assert said == in_python()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("EV_STALE = 6", "EV_STALE = 66"),
        ("EF_GLOBAL = 1 << 7", "EF_GLOBAL = 1 << 7, EF_NEW = 1 << 8"),
        ("CNT_HLT = 5", "CNT_HALT = 5"),
        ("uint16_t vcpu;", "uint32_t vcpu;"),
        ("#define EVENT_VERSION 1", "#define EVENT_VERSION 2"),
        ("uint64_t arg[5];", "uint64_t arg[6];"),
    ],
)
def test_a_difference_is_found(old: str, new: str, buildroot: BuildRoot, tmp_path: Path) -> None:
    text = HEADER.read_text()
    assert old in text
    include, work = tmp_path / "include", tmp_path / "work"
    include.mkdir()
    work.mkdir()
    changed = include / "events.h"
    changed.write_text(text.replace(old, new))
    assert in_c(changed, buildroot, work) != in_python()

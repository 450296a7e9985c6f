# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch touches, and what is refused of it; held to git's own reading."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError
from harness.git import git
from harness.series.diff import touched

HUNK = b"@@ -1 +1 @@\n-a\n+b\n"


def change(old: bytes = b"a/x.c", new: bytes = b"b/x.c", hunk: bytes = HUNK) -> bytes:
    return b"--- " + old + b"\n+++ " + new + b"\n" + hunk


def head(*lines: bytes, names: bytes = b"a/x.c b/x.c") -> bytes:
    return b"diff --git " + names + b"\n" + b"".join(line + b"\n" for line in lines)


MODE = b"new file mode 100644"
GOOD = {
    "plain": (change(), ("x.c",)),
    "with git's head": (head(b"index 1..2 100644") + change(), ("x.c",)),
    "two files": (change() + change(b"a/d/y.c", b"b/d/y.c"), ("d/y.c", "x.c")),
    "a new file": (head(MODE) + change(b"/dev/null", hunk=b"@@ -0,0 +1 @@\n+b\n"), ("x.c",)),
    "a deletion": (
        head(b"deleted file mode 100644") + change(new=b"/dev/null", hunk=b"@@ -1 +0,0 @@\n-b\n"),
        ("x.c",),
    ),
    "an empty file": (head(MODE, b"index 0..e69de29"), ("x.c",)),
    "a mode": (head(b"old mode 100644", b"new mode 100755"), ("x.c",)),
    "a move": (
        head(b"similarity index 100%", b"rename from x.c", b"rename to y.c", names=b"a/x.c b/y.c"),
        ("x.c", "y.c"),
    ),
    "a quoted name": (change(b'"a/\\303\\244.c"', b'"b/\\303\\244.c"'), ("ä.c",)),
    "a name with a blank": (change(b"a/x y.c\t", b"b/x y.c\t"), ("x y.c",)),
    "a removed line like a head": (
        change(hunk=b"@@ -1,2 +1,2 @@\n--- a/../y\n-++ z\n+++ b/../y\n+c\n"),
        ("x.c",),
    ),
    "no newline at the end": (
        change(hunk=HUNK + b"\\ No newline at end of file\n"),
        ("x.c",),
    ),
    "an empty line of context": (change(hunk=b"@@ -1,2 +1,2 @@\n-a\n+b\n\n"), ("x.c",)),
    "a diffstat before it": (b"---\n x.c | 2 +-\n--- no name\n" + change(), ("x.c",)),
}
BAD = {
    "parent": (change(b"a/../x.c", b"b/../x.c"), "leads out of the tree"),
    "parent below": (change(new=b"b/d/../../x.c"), "leads out of the tree"),
    "absolute": (change(b"a//etc/x", b"b//etc/x"), "leads out of the tree"),
    "quoted parent": (change(new=b'"b/\\056\\056/x.c"'), "leads out of the tree"),
    "moved to the parent": (head(b"rename from x.c", b"rename to ../x.c"), "leads out of the tree"),
    "empty file elsewhere": (head(MODE, names=b"a/../x b/../x"), "leads out of the tree"),
    ".git": (change(b"/dev/null", b"b/.git/hooks/post-checkout"), "belongs to git"),
    ".GIT": (change(new=b"b/d/.GIT/config"), "belongs to git"),
    "its short name": (change(new=b"b/GIT~1/config"), "belongs to git"),
    ".gitmodules": (change(b"/dev/null", b"b/.gitmodules"), "belongs to git"),
    "link": (head(b"new file mode 120000") + change(b"/dev/null"), "a symbolic link"),
    "made a link": (head(b"old mode 100644", b"new mode 120000"), "a symbolic link"),
    "changed link": (head(b"index 1..2 120000") + change(), "a symbolic link"),
    "submodule": (head(b"new file mode 160000") + change(b"/dev/null"), "a submodule"),
    "set-uid": (head(b"new file mode 104755") + change(b"/dev/null"), "mode 104755"),
    "binary": (head(b"index 1..2 100644", b"GIT binary patch", b"literal 1"), "a binary file"),
    "binary, without": (head(b"Binary files a/x.c and b/x.c differ"), "a binary file"),
    "NUL": (change() + b"\0", "NUL bytes"),
    "no change": (b"---\n only words\n", "changes no file"),
    "cut short": (change(hunk=b"@@ -1,3 +1,3 @@\n a\n-b\n"), "is cut short"),
    "a head in a hunk": (
        change(hunk=b"@@ -1,9 +1,9 @@\n a\ndiff --git a/y b/y\n"),
        "do not add up",
    ),
    "too many new lines": (change(hunk=b"@@ -1,2 +1,1 @@\n+a\n+b\n-c\n-d\n"), "do not add up"),
    "hunk of no file": (HUNK, "has no file"),
    "damaged hunk": (change(hunk=b"@@ -x +1 @@\n"), "is damaged"),
    "without a/": (change(b"x.c", b"x.c"), "no leading a/"),
    "no UTF-8": (change(new=b"b/\xff.c"), "no UTF-8"),
    "escape": (change(new=b'"b/\\033[2J.c"'), "none that a kernel has"),
    "too long": (change(new=b"b/" + b"x" * 2000), "none that a kernel has"),
    "names that differ": (head(MODE, names=b"a/x.c b/y.c"), "cut short"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_patch_touches(name: str, tmp_path: Path) -> None:
    patch, files = GOOD[name]
    assert touched(patch) == files
    (tmp_path / "patch").write_bytes(patch)
    seen = git(tmp_path, "apply", "--numstat", "-z", "patch").stdout.split("\0")
    assert {entry.split("\t")[2] for entry in seen if entry} <= set(files)


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    patch, why = BAD[name]
    with pytest.raises(ConfigError, match=why) as raised:
        touched(patch)
    assert "\n" not in raised.value.message and raised.value.message.isprintable()


def test_many_files_are_refused() -> None:
    many = b"".join(change(b"a/%d" % n, b"b/%d" % n) for n in range(10_001))
    with pytest.raises(ConfigError, match="10001 files"):
        touched(many)


LINES = st.sampled_from(
    [b"diff --git a/x b/x", b"--- a/x", b"+++ b/x", b"@@ -1,2 +1,2 @@", b"@@ -1 +1,2 @@", b"-a",
     b"+a", b" a", b"", b"\\ No newline", b"new mode 100755", b"rename to ../y", b"--- a/../y",
     b"+++ b/../y", b"---", b"rename from x", b"words"]
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(st.one_of(LINES, st.binary(max_size=12)), max_size=14))
def test_anything_is_read_or_refused(lines: list[bytes]) -> None:
    try:
        files = touched(b"\n".join(lines))
    except ConfigError:
        return
    assert files and not any(".." in file.split("/") for file in files)

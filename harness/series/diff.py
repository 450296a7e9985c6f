# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch touches, and the refusal of what no kernel patch has to touch.

Reads as git does, but strictly: a line that git would take for the head of a file cannot hide in a
hunk, because a hunk has to be whole. git refuses paths outside the tree as well, later.
"""

import re

from harness.errors import ConfigError
from harness.text import printable

MOST_FILES = 10_000
_MOST_PATH = 1024
_MODES = {b"100644", b"100755"}
_KINDS = {b"120000": "a symbolic link", b"160000": "a submodule"}
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_MODE = re.compile(
    rb"(?:old mode|new mode|new file mode|deleted file mode|index [0-9a-f]+\.\.[0-9a-f]+) (\d+)"
)
_MOVED = re.compile(rb"(?:rename|copy) (?:from|to) (.+)")
_BINARY = re.compile(rb"GIT binary patch$|Binary files .* differ$")
_ESCAPE = re.compile(rb'\\([0-3][0-7]{2}|[abfnrtv"\\])')
_LETTERS = dict(zip(b'abfnrtv"\\', b'\a\b\f\n\r\t\v"\\', strict=True))
_DOT_GIT = re.compile(r"\.git|git~\d+", re.IGNORECASE)


def touched(patch: bytes) -> tuple[str, ...]:
    """The paths that a patch creates, changes, moves or deletes, sorted.

    `patch` is decoded, as from `git mailinfo`. Raises ConfigError, one sentence without the
    patch's name, for paths outside the tree or in .git, binary changes, links, submodules, and
    what is no whole diff.
    """
    if b"\0" in patch:
        raise ConfigError("it holds NUL bytes, so it is no text")
    reader = _Reader(patch.split(b"\n"))
    reader.read()
    if not reader.paths:
        raise ConfigError("it changes no file")
    if len(reader.paths) > MOST_FILES:
        raise ConfigError(f"it changes {len(reader.paths)} files, more than {MOST_FILES}")
    return tuple(sorted(reader.paths))


class _Reader:
    def __init__(self, lines: list[bytes]) -> None:
        self.lines = lines
        self.at = 0
        self.paths: set[str] = set()

    def read(self) -> None:
        while self.at < len(self.lines):
            line = self.lines[self.at]
            self.at += 1
            if line.startswith(b"diff --git "):
                self._heads(line[len(b"diff --git ") :])
            elif line.startswith(b"--- ") and self._next().startswith(b"+++ "):
                self._names(line, self._next())
                self.at += 1
            elif line.startswith(b"@@ -"):
                self._hunk(line)

    def _next(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def _heads(self, names: bytes) -> None:
        """The lines between `diff --git` and the first hunk, which git understands there only."""
        found = len(self.paths)
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith((b"diff --git ", b"@@ -", b"--- ")):
                break
            self.at += 1
            if match := _MODE.match(line):
                _check_mode(match[1])
            elif match := _MOVED.fullmatch(line):
                self.paths.add(_checked(_unquoted(match[1])))
            elif _BINARY.match(line):
                raise ConfigError("it changes a binary file")
        if not self._next().startswith(b"--- ") and len(self.paths) == found:
            # an empty file, or a mode alone: nothing else names the file
            half = (len(names) - 1) // 2
            first, second = names[:half], names[half + 1 :]
            if _below(first) != _below(second):
                raise ConfigError("the head of a file is cut short")
            self.paths.add(_checked(_below(first)))

    def _names(self, old: bytes, new: bytes) -> None:
        for name in (old[4:], new[4:]):
            word = name if name.startswith(b'"') else name.split(b"\t")[0]
            if word != b"/dev/null":
                self.paths.add(_checked(_below(word)))

    def _hunk(self, head: bytes) -> None:
        counts = _HUNK.match(head)
        if not counts or not self.paths:
            raise ConfigError(f"the hunk {_shown(head)} is damaged or has no file")
        old, new = (1 if count is None else int(count[:12]) for count in counts.groups())
        while old or new:
            if self.at >= len(self.lines) - 1:
                raise ConfigError(f"the hunk {_shown(head)} is cut short")
            kind = self.lines[self.at][:1]
            self.at += 1
            if kind not in (b"", b" ", b"+", b"-", b"\\"):
                raise ConfigError(f"the hunk {_shown(head)} is damaged: its lines do not add up")
            old -= kind in (b"", b" ", b"-")
            new -= kind in (b"", b" ", b"+")
            if old < 0 or new < 0:
                raise ConfigError(f"the hunk {_shown(head)} is damaged: its lines do not add up")


def _check_mode(mode: bytes) -> None:
    if mode not in _MODES:
        what = _KINDS.get(mode, f"a file of mode {mode[:12].decode()}")
        raise ConfigError(f"it makes or changes {what}")


def _unquoted(name: bytes) -> bytes:
    """A name as git prints it: in double quotes when it has odd bytes."""
    if not (len(name) > 1 and name.startswith(b'"') and name.endswith(b'"')):
        return name

    def plain(match: re.Match[bytes]) -> bytes:
        word = match[1]
        return bytes([_LETTERS[word[0]] if len(word) == 1 else int(word, 8)])

    return _ESCAPE.sub(plain, name[1:-1])


def _below(name: bytes) -> bytes:
    """A name without its first directory, as `-p1` has it."""
    _, slash, rest = _unquoted(name).partition(b"/")
    if not slash:
        raise ConfigError(f"the name {_shown(name)} has no leading a/ or b/")
    return rest


def _checked(name: bytes) -> str:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"the path {_shown(name)} is no UTF-8") from None
    parts = text.split("/")
    if ".." in parts or text.startswith("/"):
        raise ConfigError(f"the path {_shown(name)} leads out of the tree")
    if any(_DOT_GIT.fullmatch(part) for part in parts) or parts[-1] == ".gitmodules":
        raise ConfigError(f"the path {_shown(name)} belongs to git")
    if len(name) > _MOST_PATH or not text.isprintable() or {"", "."} & set(parts):
        raise ConfigError(f"the path {_shown(name)} is none that a kernel has")
    return text


def _shown(name: bytes) -> str:
    return printable(name.decode(errors="replace"), 100)

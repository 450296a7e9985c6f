# SPDX-License-Identifier: GPL-2.0-or-later
"""What others named never acts on a terminal, whichever error or progress repeats it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cli
from harness.errors import BuildError
from harness.progress import Progress
from harness.text import harmless

# A window's title, colour, another line over this one, a C1 CSI, text from right to left, DEL.
HOSTILE = "a\x1b]0;owned\x07\x1b[31m\rb\x9b2J\u202ec\x7f\ud800"


def acts(text: str) -> list[str]:
    return [c for c in text if not (c.isprintable() or c in "\n\t")]


def test_harmless_keeps_lines_and_nothing_that_acts() -> None:
    assert acts(HOSTILE)
    assert harmless("one\n\ttwo \u00e9") == "one\n\ttwo \u00e9"
    assert harmless(HOSTILE).startswith("a\\x1b]0;owned\\x07\\x1b[31m\\x0db\\x9b2J\\u202ec")
    assert not acts(harmless(HOSTILE))


def says(progress: Progress) -> None:
    progress.say(HOSTILE)


def complains(progress: Progress) -> None:
    progress.complain(BuildError(HOSTILE, hint=HOSTILE, log=Path(HOSTILE)))


def complains_of_another(progress: Progress) -> None:
    progress.complain(OSError(HOSTILE))


@pytest.mark.parametrize("act", [says, complains, complains_of_another])
def test_progress(act: Callable[[Progress], None], capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        act(progress)
    said = capsys.readouterr().err
    assert "owned" in said
    assert not acts(said)


def test_the_commands_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = HOSTILE.replace("\ud800", "")
    assert cli.main(["run", "--kernel", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert "owned" in said
    assert not acts(said)


def test_an_error_of_the_system(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> int:
        raise PermissionError(13, "Permission denied", HOSTILE)

    monkeypatch.setattr(cli, "_commands", lambda: {"history": refuse})
    assert cli.main(["history"]) == 3
    said = capsys.readouterr().err
    assert "owned" in said
    assert "Permission denied" in said
    assert not acts(said)

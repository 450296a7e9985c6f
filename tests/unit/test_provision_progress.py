# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress: a bar on a terminal, one line elsewhere."""

import os
import pty
import subprocess
import sys

import pytest

from harness.provision.progress import shown

WORK = """
from harness.progress import Progress
from harness.provision.progress import shown
with Progress() as progress:
    progress.say("looking [at] it")
    with shown("fetching [/x] things", 40) as done:
        done(40)
    progress.say("afterwards")
"""


def test_one_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with shown("fetching things", 40) as done:
        done(20)
        done(40)
    assert capsys.readouterr() == ("", "fetching things\n")


def test_a_bar_on_a_terminal_while_no_other_line_moves() -> None:
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    env.pop("NO_COLOR", None)
    worker = subprocess.Popen([sys.executable, "-c", WORK], stderr=child, env=env)
    os.close(child)
    text = ""
    while True:
        try:
            data = os.read(parent, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not data:
            break
        text += data.decode(errors="replace")
    os.close(parent)
    assert worker.wait(20) == 0
    assert "40/40" in text
    start, end = text.index("fetching [/x] things"), text.rindex("40/40")
    assert "looking" not in text[start:end]
    assert "afterwards" in text[end:]

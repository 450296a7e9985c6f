# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress on stderr: a bar on a terminal, one line per piece of work elsewhere."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn

from harness.progress import paused


@contextlib.contextmanager
def shown(what: str, total: int, *, in_bytes: bool = False) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told how much of `total` is done."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(what, file=sys.stderr, flush=True)
        yield lambda done: None
        return
    column = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), column)
    with paused(), Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a night leaves to be looked at: its page, its exports, and the index over all nights."""

import os
from collections.abc import Sequence
from pathlib import Path

from harness.export.render import render
from harness.history.records import Night, merged
from harness.report import night as night_page
from harness.report import nights as index_page
from harness.rundir import put, writing

# Leads to the newest night.
LATEST = "latest"
EXPORTS = {"mail": "mail.txt", "junit": "junit.xml", "ktap": "ktap.txt", "kcidb": "kcidb.json"}


def publish(
    place: Path,
    night: Night,
    earlier: Sequence[Night],
    nights: Sequence[Night],
    notes: Sequence[str],
    origin: str,
) -> None:
    """Write the page of a night, which is compared with `earlier` ones, and its exports.

    `nights` are those of the index. The newest come first. Raises HostError.
    """
    folder = place / f"{night.number:04}"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for form, name in EXPORTS.items():
        put(folder / name, render(form, night, merged(earlier), origin=origin))
    page = night_page.render(night, earlier, notes, folder, tuple(EXPORTS.values()))
    put(folder / "index.html", page.encode("utf-8", "backslashreplace"))
    link = place / f".latest.{os.getpid()}"
    with writing(link):
        link.symlink_to(folder.name)
        link.replace(place / LATEST)
    put(place / "index.html", index_page.render(nights).encode("utf-8", "backslashreplace"))

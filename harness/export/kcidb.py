# SPDX-License-Identifier: GPL-2.0-or-later
"""A night as KCIDB reports: I/O schema version 5.3, pinned and held by a test.

A series on a base is a checkout per patch, a kernel config of it a build, and a guest's run a test.
Cells that did not run are left out: which commit they were to test is not known.
Every report is made anew from the night: sent twice, it stays the same report.
"""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from harness.errors import ConfigError
from harness.export.words import failed, guest_word, sighting_lines, why
from harness.history.records import Cell, CellState, Night
from harness.text import printable
from harness.verdict import Outcome

VERSION = (5, 3)
# kcidb allows 16384 characters for an excerpt.
_EXCERPT = 16000
_ORIGIN = re.compile(r"[a-z0-9_]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{64}")
_PATH = "tdharness.conversion"


def check_origin(origin: str) -> None:
    """Raises ConfigError for what cannot be the name that KCIDB gave to a lab."""
    if not _ORIGIN.fullmatch(origin):
        raise ConfigError(
            f"{printable(origin, 40)!r} is no KCIDB origin",
            hint="use the name that you were given: small letters, digits and _",
        )


def kcidb(night: Night, origin: str) -> dict[str, Any]:
    """The report. `origin` is the name that KCIDB gave to the lab.

    Raises ConfigError for a name that cannot be one.
    """
    check_origin(origin)
    checkouts: dict[str, dict[str, Any]] = {}
    builds: dict[str, dict[str, Any]] = {}
    tests: list[dict[str, Any]] = []
    ran = (cell for cell in night.cells if cell.state is CellState.DONE)
    for cell in sorted(ran, key=lambda cell: cell.key):
        checkout = _checkout(cell, origin)
        build = _build(cell, origin, checkout["id"])
        checkouts.setdefault(checkout["id"], checkout)
        builds.setdefault(build["id"], build)
        tests.append(_test(night, cell, origin, build["id"]))
    return {
        "version": {"major": VERSION[0], "minor": VERSION[1]},
        "checkouts": list(checkouts.values()),
        "builds": list(builds.values()),
        "tests": tests,
    }


def _id(origin: str, *words: object) -> str:
    digest = hashlib.sha256(
        "\0".join(map(str, words)).encode(errors="backslashreplace")
    ).hexdigest()
    return f"{origin}:{digest[:32]}"


def _checkout(cell: Cell, origin: str) -> dict[str, Any]:
    key = cell.key
    words = (key.base, key.series, key.patch_number, key.patch, cell.commit, cell.patchset)
    name = printable(f"{key.series}, patch {key.patch_number}, on {key.base}", 300)
    checkout: dict[str, Any] = {
        "id": _id(origin, "checkout", *words),
        "origin": origin,
        "comment": name,
        "valid": True,
    }
    if _COMMIT.fullmatch(cell.commit):
        checkout["git_commit_hash"] = cell.commit
        # An empty hash says that there are no patches; none says that it is not known.
        if not key.patch_number:
            checkout["patchset_hash"] = ""
        elif _HASH.fullmatch(cell.patchset):
            checkout["patchset_hash"] = cell.patchset
    return checkout


def _build(cell: Cell, origin: str, checkout: str) -> dict[str, Any]:
    return {
        "id": _id(origin, "build", checkout, cell.key.config),
        "origin": origin,
        "checkout_id": checkout,
        "architecture": "x86_64",
        "config_name": printable(cell.key.config),
        **({"status": "PASS"} if cell.looked else {}),
    }


def _test(night: Night, cell: Cell, origin: str, build: str) -> dict[str, Any]:
    key = cell.key
    test: dict[str, Any] = {
        "id": _id(origin, "test", night.number, night.started_s, build, *key.guest),
        "origin": origin,
        "build_id": build,
        "path": _PATH,
        "status": _status(cell),
        "environment": {"comment": guest_word(key)},
        "misc": {"findings": [dict(_finding(cell, index)) for index in range(len(cell.sightings))]},
    }
    if why(cell):
        test["comment"] = why(cell)
    text = "\n".join(line for seen in cell.sightings for line in sighting_lines(seen))
    if text:
        test["log_excerpt"] = text[:_EXCERPT]
    if cell.started_s:
        test["start_time"] = datetime.fromtimestamp(cell.started_s, UTC).isoformat()
    if cell.ended_s > cell.started_s > 0:
        test["duration"] = round(cell.ended_s - cell.started_s, 3)
    return test


def _finding(cell: Cell, index: int) -> Iterator[tuple[str, Any]]:
    sighting = cell.sightings[index]
    for name in ("identity", "rule", "kind", "title", "place", "known"):
        yield name, printable(getattr(sighting, name))
    yield from (("count", sighting.count), ("seen", sighting.seen), ("looked", sighting.looked))


def _status(cell: Cell) -> str:
    if cell.outcome is Outcome.FAIL:
        return "FAIL" if failed(cell) else "DONE"
    if cell.outcome in (Outcome.PASS, Outcome.SKIP):
        return cell.outcome.value
    return "ERROR"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Small nights for the tests of the history and its exports."""

from harness.history.records import Cell, CellKey, CellState, Night, Sighting
from harness.verdict import Outcome, Severity

PATCHES = ("", "x86/mm: rename a helper", "x86/mm: skip the first cpa_flush()", "x86/mm: tidy up")
START_S = 1_795_380_000.0


def key(patch: int = 0, *, vcpus: int = 2, base: str = "linux-source-6.12") -> CellKey:
    return CellKey(
        base=base,
        series="dma-conversion-v3",
        patch_number=patch,
        patch=PATCHES[patch],
        config="lean",
        vcpus=vcpus,
        mode="stub",
        host="local",
    )


def sighting(place: str = "dma_direct_alloc", *, seen: int = 1, known: str = "") -> Sighting:
    return Sighting(
        identity=f"{hash_of(place):016x}",
        rule="guest-cache-flush",
        kind="",
        title=f"guest-cache-flush in {place}",
        place=place,
        severity=Severity.FAIL,
        summary=f"64 of 64 lines were still dirty when {place} made the page shared",
        count=3,
        seen=seen,
        looked=2,
        run="runs/a",
        known=known,
    )


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode().ljust(8, b"\0")[:8], "big")


def cell(
    patch: int = 0,
    *sightings: Sighting,
    outcome: Outcome | None = None,
    vcpus: int = 2,
    base: str = "linux-source-6.12",
    reason: str = "",
) -> Cell:
    return Cell(
        key=key(patch, vcpus=vcpus, base=base),
        state=CellState.DONE,
        outcome=outcome or (Outcome.FAIL if sightings else Outcome.PASS),
        reason=reason,
        started_s=START_S + patch,
        ended_s=START_S + patch + 41.5,
        run=f"runs/{patch}",
        commit="0123456789abcdef0123456789abcdef01234567",
        patchset="" if not patch else f"{patch:064x}",
        sightings=sightings,
    )


def night(*cells: Cell, number: int = 1) -> Night:
    return Night(
        number=number,
        name="nightly",
        started_s=START_S + 86400 * number,
        ended_s=START_S + 86400 * number + 3600,
        cells=cells,
    )

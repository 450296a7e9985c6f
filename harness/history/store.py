# SPDX-License-Identifier: GPL-2.0-or-later
"""The history on disk: SQLite, written so that a crash loses the cell in flight at most.

A cell's end, with all that was found in it, is one transaction. The write-ahead log is synced at
each commit, so a power cut loses no more than SIGKILL does.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from harness.errors import EvidenceError, HostError
from harness.history.records import Cell, CellKey, CellState, Night, Sighting, merged
from harness.history.schema import STEPS
from harness.text import printable
from harness.verdict import Outcome, Severity

_BUSY_S = 30.0
_KEY = tuple(field.name for field in fields(CellKey))
_KEY_IS = " AND ".join(f"{name} = ?" for name in _KEY)


class History:
    """One history file; a context manager. Raises HostError, EvidenceError for a broken file."""

    def __init__(self, path: Path, *, steps: Sequence[Sequence[str]] = STEPS) -> None:
        """Open or make the file, and bring it to the newest version, all or nothing.

        Raises EvidenceError when a newer tdharness wrote it.
        """
        self.path = path
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Transactions are said in so many words: BEGIN is the store's own.
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
            self._db.row_factory = sqlite3.Row
        try:
            with self._telling():
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute("PRAGMA foreign_keys = ON")
                self._migrate(steps)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> "History":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    def start_night(self, name: str, now_s: float) -> int:
        """A new night's number."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO nights (name, started_s) VALUES (?, ?)", (name, now_s)
            )
            return int(cursor.lastrowid or 0)

    def end_night(self, night: int, now_s: float) -> None:
        """Nothing more of it is to come."""
        with self._transaction():
            self._db.execute("UPDATE nights SET ended_s = ? WHERE number = ?", (now_s, night))

    def unfinished_night(self, name: str) -> int | None:
        """The newest night of this name, when it has not ended: the one to resume."""
        with self._telling():
            row = self._db.execute(
                "SELECT number, ended_s FROM nights WHERE name = ? ORDER BY number DESC LIMIT 1",
                (name,),
            ).fetchone()
        return int(row["number"]) if row and not row["ended_s"] else None

    def plan(self, night: int, keys: Iterable[CellKey]) -> None:
        """Add cells; those that the night has already stay as they are."""
        columns, marks = ", ".join(_KEY), ", ".join("?" * len(_KEY))
        with self._transaction():
            self._db.executemany(
                f"INSERT INTO cells (night, {columns}) VALUES (?, {marks}) ON CONFLICT DO NOTHING",
                [(night, *astuple(key)) for key in keys],
            )

    def resume(self, night: int) -> tuple[CellKey, ...]:
        """The cells that are still to run, in the order planned.

        Only for the one process that runs the night: a cell in flight when the last one died is
        planned again.
        """
        with self._transaction():
            self._db.execute(
                "UPDATE cells SET state = 'planned', started_s = 0"
                " WHERE night = ? AND state = 'running'",
                (night,),
            )
            rows = self._db.execute(
                "SELECT * FROM cells WHERE night = ? AND state = 'planned' ORDER BY id", (night,)
            ).fetchall()
        return tuple(_key(row) for row in rows)

    def begin(self, night: int, key: CellKey, now_s: float) -> None:
        """The cell runs from now on."""
        with self._transaction():
            cursor = self._db.execute(
                f"UPDATE cells SET state = 'running', started_s = ? WHERE night = ? AND {_KEY_IS}"
                " AND state != 'done'",
                (now_s, night, *astuple(key)),
            )
            self._one(cursor, key)

    def finish(self, night: int, cell: Cell) -> None:
        """Keep how the cell ended, and what was found in it."""
        if cell.outcome is None:
            raise ValueError("a cell ends with an outcome")
        times = (cell.started_s, cell.ended_s, cell.build_s)
        warnings = "\n".join(printable(words) for words in cell.warnings)
        result = (cell.outcome.value, cell.reason, *times, warnings, cell.run, cell.again)
        with self._transaction():
            cursor = self._db.execute(
                "UPDATE cells SET state = 'done', outcome = ?, reason = ?, started_s = ?,"
                " ended_s = ?, build_s = ?, warnings = ?, run = ?, again = ?, revision = ?,"
                f" patchset = ? WHERE night = ? AND {_KEY_IS} AND state != 'done' RETURNING id",
                (*result, cell.commit, cell.patchset, night, *astuple(cell.key)),
            )
            row = cursor.fetchone()
            if row is None:
                raise EvidenceError(f"{self.path} has no cell to finish for {cell.key}")
            for sighting in cell.sightings:
                self._see(night, int(row["id"]), sighting)

    def nights(self, most: int = 30) -> tuple[Night, ...]:
        """The newest nights with their cells, the newest first."""
        with self._transaction("DEFERRED"):
            rows = self._db.execute(
                "SELECT * FROM nights ORDER BY number DESC LIMIT ?", (most,)
            ).fetchall()
            return tuple(self._night(row) for row in rows)

    def night(self, number: int) -> Night:
        """One night with its cells. Raises EvidenceError when there is none of this number."""
        with self._transaction("DEFERRED"):
            row = self._db.execute("SELECT * FROM nights WHERE number = ?", (number,)).fetchone()
            if row is None:
                raise EvidenceError(f"{self.path} has no night {number}")
            return self._night(row)

    def before(self, night: Night) -> Night | None:
        """The nights of the same name before this one, as one: what it is compared with."""
        return merged(self.earlier(night))

    def earlier(self, night: Night, most: int = 14) -> tuple[Night, ...]:
        """The nights of the same name before this one, the newest first."""
        with self._transaction("DEFERRED"):
            rows = self._db.execute(
                "SELECT * FROM nights WHERE name = ? AND number < ? ORDER BY number DESC LIMIT ?",
                (night.name, night.number, most),
            ).fetchall()
            return tuple(self._night(row) for row in rows)

    def numbers(self, name: str) -> tuple[int, ...]:
        """The numbers of all nights of a name, the newest first."""
        with self._telling():
            rows = self._db.execute(
                "SELECT number FROM nights WHERE name = ? ORDER BY number DESC", (name,)
            ).fetchall()
        return tuple(int(row["number"]) for row in rows)

    def _night(self, row: sqlite3.Row) -> Night:
        found: dict[int, list[Sighting]] = {}
        for seen in self._db.execute(
            "SELECT sightings.*, identity, rule, kind, title, place, severity FROM sightings"
            " JOIN findings ON findings.id = finding JOIN cells ON cells.id = cell"
            " WHERE night = ? ORDER BY cell, finding",
            (row["number"],),
        ):
            found.setdefault(seen["cell"], []).append(_sighting(seen))
        cells = self._db.execute(
            "SELECT * FROM cells WHERE night = ? ORDER BY id", (row["number"],)
        ).fetchall()
        return Night(
            number=row["number"],
            name=row["name"],
            started_s=row["started_s"],
            ended_s=row["ended_s"],
            cells=tuple(_cell(cell, found.get(cell["id"], [])) for cell in cells),
        )

    def _see(self, night: int, cell: int, sighting: Sighting) -> None:
        (finding,) = self._db.execute(
            "INSERT INTO findings (identity, rule, kind, title, place, severity, first_night,"
            " last_night) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET"
            " last_night = max(last_night, excluded.last_night), severity = excluded.severity"
            " RETURNING id",
            (
                sighting.identity,
                sighting.rule,
                sighting.kind,
                sighting.title,
                sighting.place,
                sighting.severity.value,
                night,
                night,
            ),
        ).fetchone()
        # One bug may have been found at several pages: they are one sighting.
        self._db.execute(
            "INSERT INTO sightings (cell, finding, summary, count, seen, looked, run, known,"
            " known_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (cell, finding) DO UPDATE SET count = count + excluded.count",
            (
                cell,
                finding,
                sighting.summary,
                sighting.count,
                sighting.seen,
                sighting.looked,
                sighting.run,
                sighting.known,
                sighting.known_until,
            ),
        )

    def _one(self, cursor: sqlite3.Cursor, key: CellKey) -> None:
        if cursor.rowcount != 1:
            raise EvidenceError(f"{self.path} has no cell to begin for {key}")

    def _migrate(self, steps: Sequence[Sequence[str]]) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == len(steps):
            return
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > len(steps):
                raise EvidenceError(
                    f"{self.path} is a history of version {version}, and this tdharness knows"
                    f" {len(steps)} at most",
                    hint="use the newer tdharness that wrote it",
                )
            for step in steps[version:]:
                for statement in step:
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {len(steps)}")

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        with self._telling():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            broken = not isinstance(error, sqlite3.OperationalError)
            kind = EvidenceError if broken else HostError
            raise kind(
                f"the history {self.path} cannot be used: {error}",
                hint="is another nightly running, is the disk full, is the file a history?",
            ) from error
        except OSError as error:
            raise HostError(f"the history {self.path} cannot be made: {error.strerror}") from error


def _key(row: sqlite3.Row) -> CellKey:
    return CellKey(**{name: row[name] for name in _KEY})


def _cell(row: sqlite3.Row, sightings: Sequence[Sighting]) -> Cell:
    return Cell(
        key=_key(row),
        state=CellState(row["state"]),
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        reason=row["reason"],
        started_s=row["started_s"],
        ended_s=row["ended_s"],
        build_s=row["build_s"],
        warnings=tuple(row["warnings"].splitlines()),
        run=row["run"],
        again=row["again"],
        commit=row["revision"],
        patchset=row["patchset"],
        sightings=tuple(sightings),
    )


def _sighting(row: sqlite3.Row) -> Sighting:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Sighting)}
    return Sighting(**{**values, "severity": Severity(row["severity"])})

# SPDX-License-Identifier: GPL-2.0-or-later
"""rasdaemon's SQLite database, out of copies of its files.

Tables are those of rasdaemon's db/ras-record.c; columns that a version lacks are left out. A copy
is read, never the daemon's own file: its locks hold up nobody then, and a transaction that was
half done is rolled back by the journal that was copied with it.
"""

import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import EvidenceError
from harness.hostmce.record import MceRecord, Source, valid_address, valid_misc
from harness.hostmce.status import unsigned
from harness.text import printable

DATABASES = ("/var/lib/rasdaemon/ras-mc_event.db", "/var/log/rasdaemon/ras-mc_event.db")
# A database, a rollback journal, a write-ahead log; most of them are absent.
SUFFIXES = ("", "-journal", "-wal")
MOST_RECORDS = 10_000
_MOST_NOTES = 100
_U32 = (1 << 32) - 1
_WIDE = ("status", "addr", "misc", "ip", "tsc", "walltime", "ppin")


@dataclass(slots=True)
class RasdaemonTold:
    """What the tables hold beyond the ids asked for."""

    records: list[MceRecord] = field(default_factory=list)
    # rows of memory_failure_event and mc_event, in words
    notes: list[str] = field(default_factory=list)
    left_out: int = 0
    # the highest id of each table
    last: dict[str, int] = field(default_factory=dict)


def read_database(
    files: Mapping[str, bytes], after: Mapping[str, int], boot_id: str = ""
) -> RasdaemonTold:
    """What the database says; `files` by suffix. Rows up to the ids in `after` are passed over.

    Raises EvidenceError for what is no such database, or was copied in the middle of a write.
    """
    with tempfile.TemporaryDirectory(prefix="tdharness-ras-") as directory:
        path = Path(directory) / "ras.db"
        for suffix, data in files.items():
            path.with_name(path.name + suffix).write_bytes(data)
        try:
            with closing(sqlite3.connect(path)) as database:
                database.row_factory = sqlite3.Row
                # Bytes of a host: text in them may be in any encoding.
                database.text_factory = lambda raw: raw.decode("utf-8", "replace")
                return _read(database, after, boot_id)
        except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
            raise EvidenceError(f"rasdaemon's database cannot be read: {error}") from error


def _read(database: sqlite3.Connection, after: Mapping[str, int], boot_id: str) -> RasdaemonTold:
    told = RasdaemonTold()
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    for table in ("mce_record", "memory_failure_event", "mc_event"):
        if table not in tables:
            continue
        # The name is one of the three above.
        top = database.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0]
        told.last[table] = int(top)
        since = after.get(table, 0)
        # A database that was made anew counts from 1 again.
        since = since if since <= told.last[table] else 0
        rows = database.execute(f"SELECT * FROM {table} WHERE id > ? ORDER BY id", (since,))
        for row in rows:
            if table == "mce_record":
                _add_record(told, row, boot_id)
            elif len(told.notes) < _MOST_NOTES:
                told.notes.append(_note(table, row))
            else:
                told.left_out += 1
    return told


def _add_record(told: RasdaemonTold, row: sqlite3.Row, boot_id: str) -> None:
    if len(told.records) == MOST_RECORDS:
        told.left_out += 1
        return
    names = set(row.keys())

    def number(name: str) -> int | None:
        if name not in names or row[name] is None:
            return None
        value = int(row[name])
        return unsigned(value) if name in _WIDE else value & _U32

    status = number("status") or 0
    told.records.append(
        MceRecord(
            bank=number("bank") or 0,
            status=status,
            mcgstatus=number("mcgstatus") or 0,
            mcgcap=number("mcgcap"),
            cpu=number("cpu"),
            addr=valid_address(status, number("addr")),
            misc=valid_misc(status, number("misc")),
            ip=number("ip") or None,
            tsc=number("tsc"),
            time_s=number("walltime"),
            ppin=number("ppin") or None,
            cpuid=number("cpuid"),
            socket=number("socketid"),
            apicid=number("apicid"),
            microcode=number("microcode"),
            boot_id=boot_id,
            sources=(Source.RASDAEMON,),
        )
    )


def _note(table: str, row: sqlite3.Row) -> str:
    shown = ("pfn", "page_type", "action_result", "err_count", "err_type", "err_msg", "label")
    words = [f"{name} {row[name]}" for name in shown if name in row.keys()]  # noqa: SIM118
    return printable(f"{table}: {', '.join(words)}")

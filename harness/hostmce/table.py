# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine checks as a table for a terminal. All text in it was made safe where it was read."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.hostmce.record import MceRecord
from harness.hostmce.status import Grade, flag_names
from harness.hostmce.told import HostTold

_STYLES = {
    Grade.CORRECTED: "green",
    Grade.UCNA: "yellow",
    Grade.SRAO: "yellow",
    Grade.SRAR: "bold red",
    Grade.FATAL: "bold white on red",
}
# Other records stand in the JSON form.
MOST_SHOWN = 50


def render(told: HostTold) -> RenderableType:
    """A row for each kind of record, and below it what is not in a register."""
    merged = told.merged
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("CPU", "bank"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("meaning", overflow="fold")
    table.add_column("address", overflow="fold")
    for record in merged.records[:MOST_SHOWN]:
        table.add_row(*_cells(record, told.phys_bits))
        table.add_row("", "", "", Padding(Group(*_more(record)), (0, 0, 1, 0)), "")
    return Group(table, *(Text(line, style="dim") for line in _below(told)))


def _cells(record: MceRecord, phys_bits: int) -> Iterator[Text]:
    yield Text("?" if record.cpu is None else str(record.cpu))
    yield Text(str(record.bank))
    times = f" \u00d7{record.count:,}" if record.count > 1 else ""
    yield Text(record.grade.value + times, style=_STYLES.get(record.grade, ""))
    yield Text(", ".join(record.meaning))
    yield Text(_address(record, phys_bits))


def _address(record: MceRecord, phys_bits: int) -> str:
    place = record.address(phys_bits)
    if place is None:
        return "none"
    key_id, address = place
    words = [f"KeyID {key_id}"] if key_id else []
    words += [f"{1 << record.granularity} bytes"] if record.granularity else []
    return f"{address:#x}" + (f" ({', '.join(words)})" if words else "")


def _more(record: MceRecord) -> Iterator[Text]:
    yield Text(record.grade.meaning, style="dim")
    flags = flag_names(record.status, record.mcgstatus)
    yield Text(f"status {record.status:#018x}: {flags}", style="dim")
    if record.symbol:
        yield Text(f"in {record.symbol}", style="dim")
    for said in record.said:
        yield Text(f"the kernel: {said}")
    if record.of_tdx():
        yield Text("of a TD: its private memory was read, or checked, and was not as written")
    if len(record.sources) > 1:
        yield Text(f"told by {', '.join(record.sources)}", style="dim")


def _below(told: HostTold) -> Iterator[str]:
    merged = told.merged
    more = len(merged.records) - MOST_SHOWN + merged.left_out
    if more > 0 or merged.overflowed or merged.total > sum(r.count for r in merged.records):
        grades = ", ".join(f"{count:,} {name}" for name, count in merged.by_grade.items())
        least = "at least " if merged.overflowed else ""
        yield f"{least}{merged.total:,} machine checks ({grades}); {max(more, 0):,} kinds not shown"
    if merged.overflowed:
        yield f"{merged.overflowed:,} records say that their bank had lost others (overflow)"
    yield from (f"sources disagree: {one}" for one in merged.disagreements)
    yield from told.notes[:MOST_SHOWN]
    yield from (f"not read: {gap}" for gap in told.gaps)

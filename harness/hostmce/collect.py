# SPDX-License-Identifier: GPL-2.0-or-later
"""Everything that a host tells of the time around a test, from all its sources, in one piece.

`before` notes where each source stands, `after` reads what came since. A source that is absent or
broken is a sentence in `gaps`, and no reason to fail; a host that went down is found out, and told
with its console's last words.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from harness.errors import HarnessError
from harness.hostmce import ask, edac, journal, qmp
from harness.hostmce.console import HostConsole, last_words, read_console
from harness.hostmce.journal import Place
from harness.hostmce.kernel import KernelTold
from harness.hostmce.merge import Merged, merge
from harness.hostmce.record import PHYS_BITS, MceRecord, Source
from harness.hostmce.told import HostState, HostTold
from harness.hostmce.watch import Down, Pulse, Watch, ask_boot_id
from harness.hostmce.watch import ask as ask_once
from harness.remote import Remote
from harness.rundir import RunDir

# rasdaemon writes a moment after the kernel's event.
_SETTLE_S = 2.0
_QEMU_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a host's sources stood."""

    boot_id: str
    place: Place
    counters: dict[str, int]
    # ids of rasdaemon's rows; None where there was no database to be read
    rows: dict[str, int] | None
    tracing: bool
    console_bytes: int
    phys_bits: int = PHYS_BITS
    skew_s: float = 0.0


@dataclass(slots=True)
class _Told:
    """What the sources told, while they are read one by one."""

    records: dict[Source, list[MceRecord]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    # records that a source has left out
    lost: dict[Source, int] = field(default_factory=dict)
    panic: str = ""
    # guest-physical, of which QEMU says that their memory failed
    guest_addresses: list[int] = field(default_factory=list)
    # the kernel wrote "Machine check events logged"
    logged: int = 0

    def kernel(self, told: KernelTold, source: Source) -> None:
        self.records[source] = told.records
        # The console repeats the log.
        self.notes += [note for note in told.note_lines() if note not in self.notes]
        self.lost[source] = told.left_out
        self.panic = self.panic or told.panic
        self.logged = max(self.logged, told.logged)


class Collector:
    """Collects from one host; `console` is its serial console, where a lab keeps one."""

    def __init__(
        self,
        remote: Remote,
        console: HostConsole | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remote = remote
        self._console = console
        self._sleep = sleep
        self._clock = clock

    def before(self) -> Snapshot:
        """Note where all sources stand. Raises HarnessError when the host does not answer."""
        remote, boot_id = self._remote, ask_boot_id(self._remote)
        rows, _ = ask.read_rasdaemon(remote, {}, boot_id)
        return Snapshot(
            boot_id=boot_id,
            tracing=ask.begin_trace(remote),
            place=journal.here(remote),
            counters=ask.edac_counters(remote),
            rows=rows.last if rows else None,
            console_bytes=self._console.size() if self._console else 0,
            phys_bits=ask.phys_bits(remote),
            skew_s=ask.skew_s(remote),
        )

    def after(
        self, before: Snapshot, down: Down | None = None, run: RunDir | None = None
    ) -> HostTold:
        """What the host told since, and the QEMU of `run`; `down` is what a watch found out.

        Never raises for what the host does.
        """
        down = down or self._ask_patiently(before.boot_id)
        told = _Told()
        if down is None or down.state is HostState.REBOOTED:
            self._read_all(told, before, alive=down is None)
        else:
            told.gaps.append("all sources of the host but its console: it did not answer")
        words = self._read_console(told, before, down)
        if run:
            _read_qemu(run, told)
        merged = merge(told.records, panicked=bool(told.panic or down), lost=told.lost)
        return HostTold(
            merged=_with_unseen(merged, told),
            state=down.state if down else HostState.ALIVE,
            down=_how(down, told.panic),
            last_words=words,
            panic=told.panic,
            notes=tuple(told.notes),
            gaps=tuple(told.gaps),
            heard=tuple(source.value for source in told.records),
            boot_id=before.boot_id,
            skew_s=round(before.skew_s, 1),
            phys_bits=before.phys_bits,
            guest_addresses=tuple(told.guest_addresses),
        )

    @contextlib.contextmanager
    def around(self, run: RunDir, on_down: Callable[[Down], None]) -> Iterator[Snapshot]:
        """Collect around what happens inside, into the run's host.json, whatever it raises.

        `on_down` is called from a thread, so that the test can be ended at once.
        """
        before = self.before()
        watch = Watch(self._remote, before.boot_id, on_down, clock=self._clock)
        try:
            yield before
        finally:
            told = self.after(before, watch.close(), run)
            run.write_json(run.host_json, told.to_json())

    def _ask_patiently(self, boot_id: str) -> Down | None:
        """Whether the host is there; a short silence is none."""
        pulse = Pulse(boot_id, self._clock())
        while not pulse.answers:
            if down := ask_once(self._remote, pulse, self._clock):
                return down
            self._sleep(1.0)
        return None

    def _read_all(self, told: _Told, before: Snapshot, *, alive: bool) -> None:
        """All that can be asked; each source by itself, so that one fault costs one of them."""
        # Trace buffer and counters went with the boot that had them.
        asked = [self._read_trace, self._read_edac] if alive else []
        # rasdaemon is the slowest of them to know.
        sources = [self._read_kernel, *asked, self._read_rasdaemon]
        for read in sources:
            try:
                read(told, before)
            except HarnessError as error:
                told.gaps.append(f"{read.__name__.removeprefix('_read_')}: {error.message}")

    def _read_kernel(self, told: _Told, before: Snapshot) -> None:
        kernel, gap = journal.read(self._remote, before.place, before.boot_id)
        if kernel:
            told.kernel(kernel, Source.KERNEL_LOG)
        told.gaps += [gap] if gap else []

    def _read_trace(self, told: _Told, before: Snapshot) -> None:
        if not before.tracing:
            told.gaps.append("trace event: no buffer could be made, which takes root and tracefs")
            return
        records, lost, gap = ask.read_trace_of(self._remote, before.boot_id)
        ask.end_trace(self._remote)
        if records is not None:
            told.records[Source.TRACE] = records
        told.lost[Source.TRACE] = lost
        told.gaps += [gap] if gap else []

    def _read_rasdaemon(self, told: _Told, before: Snapshot) -> None:
        if any(told.records.values()) or told.logged:
            self._sleep(_SETTLE_S)
        stored, gap = ask.read_rasdaemon(self._remote, before.rows or {}, before.boot_id)
        if stored is None:
            told.gaps.append(gap)
            return
        if before.rows is None:
            told.notes.append("rasdaemon's database came up during the test, or was locked before")
        told.records[Source.RASDAEMON] = stored.records
        told.notes += stored.notes
        told.lost[Source.RASDAEMON] = stored.left_out

    def _read_edac(self, told: _Told, before: Snapshot) -> None:
        moved = edac.counted(before.counters, ask.edac_counters(self._remote))
        told.notes += [f"EDAC {name} went up by {by}" for name, by in sorted(moved.items())]

    def _read_console(self, told: _Told, before: Snapshot, down: Down | None) -> tuple[str, ...]:
        text = self._console.tail(before.console_bytes) if self._console else b""
        if text:
            told.kernel(read_console(text, before.boot_id), Source.CONSOLE)
        elif down:
            told.gaps.append("the host's console: none is kept, or it stayed silent")
        return last_words(text) if down else ()


def _how(down: Down | None, panic: str) -> str:
    if down is None:
        return ""
    return down.how + (f" after a kernel panic: {panic}" if panic else "")


def _with_unseen(merged: Merged, told: _Told) -> Merged:
    """A kernel that says that events were logged, and none is to be found, contradicts the rest."""
    if not told.logged or merged.total:
        return merged
    said = "the kernel says that machine check events were logged, and no source has one"
    return Merged(disagreements=(*merged.disagreements, said))


def _read_qemu(run: RunDir, told: _Told) -> None:
    """What QEMU itself said of memory errors: its events, and its log."""
    for path in (run.qmp_log, run.qemu_log):
        try:
            with path.open("rb") as file:
                text = file.read(_QEMU_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            told.gaps.append(f"{path.name}: {error.strerror}")
            continue
        notes, addresses = (
            (qmp.read_events(text.splitlines()), []) if path == run.qmp_log else qmp.read_log(text)
        )
        told.notes += [f"QEMU: {note}" for note in notes]
        told.guest_addresses += addresses

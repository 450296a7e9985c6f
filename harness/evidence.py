# SPDX-License-Identifier: GPL-2.0-or-later
"""What a saved run holds, read for the judge: what is missing or broken is said, never raised."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness import guesttrace, vmm
from harness.errors import ConfigError, EvidenceError
from harness.events import Event, Kind, Stream, decode
from harness.faults import Injection
from harness.faults import parse as parse_injections
from harness.hostmce import told as host_told
from harness.hostmce.told import HostTold
from harness.rundir import RunDir
from harness.steps import Step, parse_steps
from harness.symbols import Symbols, parse_guest_symbols, read_kernel, slide_of
from harness.text import printable

Asked = TypeVar("Asked")
_MOST_FILE_BYTES = 512 << 20
_MOST_JSON_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a verdict is made from."""

    # MachineSpec.td_mode; "tdx" too where a stub's run is judged as one on hardware
    td_mode: str
    # what the stub recorded, or on hardware what the guest traced; None without a readable one
    stream: Stream | None = None
    # what the guest traced of itself; None where it did not
    trace: guesttrace.Trace | None = None
    log: bytes = b""
    # what the host told of itself; None where nobody asked it
    host: HostTold | None = None
    steps: tuple[Step, ...] = ()
    symbols: Symbols = dataclasses.field(default_factory=Symbols)
    # what the session saw the guest fail at: one sentence each, of its own words
    guest_failures: tuple[str, ...] = ()
    # what the stub was told to ignore, by the numbers of the FAULT events, from 1
    injections: tuple[Injection, ...] = ()
    # ways in which the VMM was asked to misbehave
    misbehaviours: tuple[vmm.Misbehaviour, ...] = ()
    # one sentence for each piece of evidence that should be there and is not, or is broken
    broken: tuple[str, ...] = ()
    # the harness or the host failed, and `broken` says how: a cut stream, or a step without an
    # end, is no more than what follows from it
    harness_failed: bool = False

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, as many as there are."""
        return self.stream.events if self.stream else ()


def load(run: RunDir, *, by_trace: bool = False) -> Evidence:
    """Read a run's evidence; what is missing or broken becomes a sentence in `broken`.

    `by_trace` leaves the stub's record aside: what is left is what hardware would leave.
    """
    broken: list[str] = []
    facts = read_object(run.run_json, broken)
    td_mode = "tdx" if by_trace else str(facts.get("td_mode", "stub"))
    trace = _read_trace(run, broken) if facts.get("trace") else None
    stream = _read_stream(run, broken) if td_mode == "stub" else trace.stream if trace else None
    log = _read(run.console_log, broken) or b""
    steps = _read_steps(run, broken)
    errors = _sentences(facts.get("harness_errors"))
    failures = _sentences(facts.get("guest_failures"))
    injections = _parsed(parse_injections, facts, "fault", broken)
    misbehaviours = _parsed(vmm.parse, facts, "vmm", broken)
    broken = [*errors, *broken]
    if facts.get("planned_stop") is False and not failures and not errors:
        broken.append("the machine stopped before the harness told it to")
    return Evidence(
        td_mode=td_mode,
        stream=stream,
        trace=trace,
        log=log,
        host=_read_host(run, broken),
        steps=steps,
        symbols=symbols_of(run, facts, stream) if stream else Symbols(),
        guest_failures=failures,
        injections=injections,
        misbehaviours=misbehaviours,
        broken=tuple(broken),
        harness_failed=bool(errors),
    )


def _read(path: Path, broken: list[str], most: int = _MOST_FILE_BYTES) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        # ValueError: run.json may name a path that no file system knows.
        why = error.strerror if isinstance(error, OSError) else "its name is no path"
        broken.append(f"the run's {path.name} cannot be read: {why}")
        return None
    if len(data) > most:
        broken.append(f"the run's {path.name} is larger than {most >> 20} MiB: its end is not read")
        data = data[:most]
    return data


def read_object(path: Path, broken: list[str]) -> dict[str, Any]:
    """A file's JSON object; {} where there is none, and `broken` says why."""
    data = _read(path, broken, _MOST_JSON_BYTES)
    if data is None:
        return {}
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        broken.append(f"the run's {path.name} holds no JSON object")
        return {}
    return parsed


def _sentences(value: object) -> tuple[str, ...]:
    """A list of sentences out of run.json, made safe to show."""
    return tuple(printable(str(item), 400) for item in value) if isinstance(value, list) else ()


def _parsed(
    parse: Callable[[str], tuple[Asked, ...]], facts: Mapping[str, Any], key: str, broken: list[str]
) -> tuple[Asked, ...]:
    """What run.json says that the stub was asked to do wrong."""
    try:
        return parse(str(facts.get(key) or ""))
    except ConfigError as error:
        broken.append(f"the run's {key} cannot be read: {error.message}")
        return ()


def _read_stream(run: RunDir, broken: list[str]) -> Stream | None:
    data = _read(run.events, broken)
    if data is None:
        return None
    try:
        return decode(data)
    except EvidenceError as error:
        broken.append(error.message)
        return None


def _read_trace(run: RunDir, broken: list[str]) -> guesttrace.Trace | None:
    """The guest's trace; None where it is not to be judged, and `broken` says why."""
    if not run.trace.exists():
        # The guest did not come so far.
        return None
    data = _read(run.trace, broken) or b""
    try:
        trace = guesttrace.read(data.decode("utf-8", "replace"))
    except EvidenceError as error:
        broken.append(error.message)
        return None
    if trace.unfit:
        broken.append(trace.unfit)
    return None if trace.blind else trace


def _read_host(run: RunDir, broken: list[str]) -> HostTold | None:
    """What was collected from a host, or else what the stub's host logged."""
    if not run.host_json.exists():
        log = _read(run.host_log, broken) if run.host_log.exists() else None
        return host_told.of_stub(log or b"")
    try:
        return host_told.read(read_object(run.host_json, broken))
    except EvidenceError as error:
        broken.append(error.message)
        return None


def _read_steps(run: RunDir, broken: list[str]) -> tuple[Step, ...]:
    if not run.steps.exists():
        # A run that ended before its first step has none.
        return ()
    data = _read(run.steps, broken) or b""
    try:
        return parse_steps(data.decode("utf-8", "replace").splitlines())
    except EvidenceError as error:
        broken.append(error.message)
        return ()


def symbols_of(
    run: RunDir, facts: Mapping[str, Any] | None = None, stream: Stream | None = None
) -> Symbols:
    """The symbols of a run, which may still be going on; `facts` saves reading run.json.

    `stream` helps where the guest did not live to tell its addresses. Symbols are a comfort:
    whatever cannot be read leaves bare addresses.
    """
    files = (read_object(run.run_json, []) if facts is None else facts).get("kernel")
    if not isinstance(files, Mapping):
        return Symbols()
    system_map = _comfort(files.get("system_map"))
    kernel = read_kernel(_comfort(files.get("image")), (system_map or b"").decode("latin-1"))
    try:
        guest = parse_guest_symbols(json.loads(_comfort(run.symbols_json) or b"null"))
    except (ValueError, RecursionError):
        guest = parse_guest_symbols(None)
    calls = (Kind.TDCALL, Kind.VMCALL, Kind.CONVERT, Kind.ACCEPT)
    pcs = {event.pc for event in stream.events if event.kind in calls} if stream else set[int]()
    return Symbols(kernel=kernel, slide=slide_of(kernel, guest, pcs), modules=guest.modules)


def _comfort(path: object) -> bytes | None:
    return _read(Path(path), []) if isinstance(path, str | Path) and str(path) else None

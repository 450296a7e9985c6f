# SPDX-License-Identifier: GPL-2.0-or-later
"""Ways in which the stub's VMM misbehaves, by name, and what a correct guest makes of each.

What a behaviour does is in the plugin (harness/stub/plugin/vmm.h); this is the catalogue, and what
picks the conversion: `NAME[:index=2,to=shared,min=64K,max=2M,boot=on]`. Without `boot=on` the VMM
behaves until the guest has set its first mark, so that the boot itself is left alone.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from harness.errors import ConfigError
from harness.events import Event, Kind, PoisonAction, VmmBehaviour

MOST = 32
# Marks of the steps that try one behaviour each; a session counts its own from 1.
FIRST_MARK = 0x7100_0000
# All that leave the guest alive, each in a step of its own.
EVERY = "every"
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_KEYS = (
    "which conversion: NAME:to=shared|private,index=N (the N-th that the rest picks; default: "
    "each),\nmin=SIZE,max=SIZE,boot=on (before the first step, too); how: times=N, done=PAGES, "
    "ms=N, after=N\n(plugin/vmm.h); sizes as 4096, 64K, 2M; several: NAME+NAME"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """A named way to misbehave."""

    name: str
    # what the plugin is told, without a selector
    option: str
    # the number in the events
    number: VmmBehaviour
    # one sentence: what the VMM does
    what: str
    # one sentence: what a correct guest does
    guest: str
    # the conversion fails for the guest, so that a command which makes one fails, too
    fails: bool = False
    # found when it is tried with `command`
    rules: tuple[str, ...] = ()
    # a command of the guest's module that it can be tried with
    command: str = "tdh convert size=64K"
    # what comes of it when poison is read; the guest is not there afterwards
    on: PoisonAction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """A behaviour to be shown. `keys`: words for the plugin; `mark`: of its step, if it has one."""

    behaviour: Behaviour
    keys: tuple[str, ...] = ()
    mark: int | None = None


_GIVES_UP = "gives the pages up for good: it neither frees them nor touches them again"


def _retry(name: str, option: str, what: str, size: str) -> Behaviour:
    return Behaviour(
        name=name,
        option=option,
        number=VmmBehaviour.RETRY,
        what=f"MapGPA answers RETRY {what}, with what comes before converted",
        guest="asks again from just there to the end of the range",
        command=f"tdh convert size={size}",
    )


def _failure(name: str, option: str, number: VmmBehaviour, what: str) -> Behaviour:
    return Behaviour(
        name=name, option=option, number=number, what=what, guest=_GIVES_UP, fails=True
    )


def _cache(name: str, on: PoisonAction, word: str, what: str) -> Behaviour:
    return Behaviour(
        name=name,
        option=f"cache/on={word}",
        number=VmmBehaviour.CACHE,
        what=f"from shared to private, the VMM flushes no cache line; who reads one then, {what}",
        guest="can do nothing about it",
        rules=("vmm-cache-flush",),
        on=on,
    )


_ROWS = (
    _retry("retry-2m", "retry/chunk=0x200000", "every 2 MiB", "4M"),
    _retry("retry-4k", "retry/chunk=0x1000", "at each page", "64K"),
    Behaviour(
        name="retry-stuck",
        option="stuck/times=2",
        number=VmmBehaviour.STUCK,
        what="MapGPA answers RETRY without progress, twice",
        guest="asks again for the whole range",
    ),
    _failure(
        "retry-forever", "stuck", VmmBehaviour.STUCK,
        "MapGPA answers RETRY without progress, for ever",
    ),
    _failure(
        "retry-below", "below", VmmBehaviour.BELOW,
        "MapGPA answers RETRY with an address below the range",
    ),
    _failure(
        "retry-above", "above", VmmBehaviour.ABOVE,
        "MapGPA answers RETRY with an address behind the range",
    ),
    _failure("error", "error", VmmBehaviour.ERROR, "MapGPA answers INVALID_OPERAND"),
    _failure(
        "error-in-use", "error/status=0x8000000000000001", VmmBehaviour.ERROR,
        "MapGPA answers GPA_INUSE",
    ),
    _failure(
        "error-partial", "error/done=3", VmmBehaviour.ERROR,
        "MapGPA answers INVALID_OPERAND at the fourth page, with three converted",
    ),
    Behaviour(
        name="short",
        option="short/done=3/to=private",
        number=VmmBehaviour.SHORT,
        what="MapGPA to private answers success with three pages converted",
        guest="finds out by its ACCEPT, and " + _GIVES_UP,
        fails=True,
        rules=("accept-shared",),
    ),
    Behaviour(
        name="slow",
        option="slow/ms=200",
        number=VmmBehaviour.SLOW,
        what="MapGPA takes 200 ms",
        guest="waits",
    ),
    Behaviour(
        name="ept-flush",
        option="ept",
        number=VmmBehaviour.EPT,
        what="a guest-physical mapping of the old state survives MapGPA",
        guest="can do nothing about it",
        rules=("vmm-ept-flush",),
    ),
    _cache("cache-flush", PoisonAction.TD_DEAD, "td-dead", "the TD is dead"),
    _cache("cache-flush-mce", PoisonAction.GUEST_MCE, "guest-mce", "the guest takes the #MC"),
    _cache("cache-flush-crash", PoisonAction.HOST_CRASH, "host-crash", "the host goes down"),
)  # fmt: skip

BEHAVIOURS: Mapping[str, Behaviour] = MappingProxyType({row.name: row for row in _ROWS})


def parse(text: str) -> tuple[Misbehaviour, ...]:
    """`NAME[:KEY=VALUE,...]`, more than one joined by `+`; "every": all that leave the guest
    alive, marked.

    Raises ConfigError.
    """
    if text == EVERY:
        alive = [b for b in BEHAVIOURS.values() if b.on is None]
        return tuple(Misbehaviour(behaviour=b, mark=FIRST_MARK + i) for i, b in enumerate(alive))
    parts = text.split("+") if text else []
    if len(parts) > MOST:
        raise ConfigError(f"{len(parts)} behaviours of the VMM at once: at most {MOST}")
    return tuple(_parse_one(part) for part in parts)


def _parse_one(text: str) -> Misbehaviour:
    name, _, words = text.partition(":")
    if name not in BEHAVIOURS:
        raise ConfigError(
            f"the VMM has no behaviour {name!r}", hint="`tdharness run --vmm list` names them all"
        )
    keys = tuple(_key(name, word) for word in words.split(",")) if words else ()
    return Misbehaviour(behaviour=BEHAVIOURS[name], keys=keys)


def _key(name: str, word: str) -> str:
    key, _, value = word.partition("=")
    if key in ("min", "max"):
        match = re.fullmatch(r"(\d{1,12})([KMG]?)", value, re.ASCII)
        number = str(int(match[1]) * _SIZES[match[2]]) if match else None
    else:
        number = value if re.fullmatch(_FORMS.get(key, "(?!)"), value, re.ASCII) else None
    if number is None:
        raise ConfigError(f"{word!r} says nothing about {name}", hint=_KEYS)
    return f"{key}={number}"


_FORMS = {
    "to": "shared|private",
    "boot": "on",
    **dict.fromkeys(("index", "times", "done", "ms", "after"), r"\d{1,6}"),
}


def plugin_option(shown: Iterable[Misbehaviour]) -> str:
    """The plugin's `vmm=` option."""
    return "+".join("/".join([one.behaviour.option, *one.keys, *_mark(one)]) for one in shown)


def _mark(one: Misbehaviour) -> list[str]:
    return [] if one.mark is None else [f"mark={one.mark}"]


def number_of(event: Event) -> int:
    """The behaviour that a VMM event tells of."""
    return event.args[0] & 0xFFFFFFFF


def never_shown(shown: Sequence[Misbehaviour], events: Sequence[Event]) -> list[str]:
    """Names of the behaviours that no conversion met; of those with a step, if it was run."""
    seen = {number_of(event) for event in events if event.kind is Kind.VMM}
    begun = {event.args[1] for event in events if event.kind is Kind.MARK}
    names = [
        one.behaviour.name
        for one in shown
        if one.behaviour.number not in seen and (one.mark is None or one.mark in begun)
    ]
    return list(dict.fromkeys(names))


def told(shown: Sequence[Misbehaviour], events: Sequence[Event]) -> tuple[str, ...]:
    """What the VMM did wrong: its behaviours by name, with how many MapGPAs met each."""
    counts = Counter(number_of(event) for event in events if event.kind is Kind.VMM)
    names: dict[int, str] = {}
    for one in shown:
        names.setdefault(one.behaviour.number, one.behaviour.name)
    return tuple(
        f"{names.get(number, f'behaviour {number}')} at {count} MapGPA{'s' if count > 1 else ''}"
        for number, count in counts.items()
    )


def render_list() -> str:
    """The catalogue, for people."""
    width = max(map(len, BEHAVIOURS))
    rows = [f"{b.name:{width}}  {b.what}; a correct guest {b.guest}" for b in _ROWS]
    return "\n".join([*rows, "", _KEYS])

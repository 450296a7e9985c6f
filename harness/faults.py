# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that the stub makes by name, on an unmodified kernel: it ignores an action of the guest.

What a fault does is in the plugin (harness/stub/plugin/fault.h); this is the catalogue, and what
picks the conversion: `NAME[:index=2,min=64K,max=2M,caller=dma_direct_alloc,at=0x100000-0x200000]`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from harness.conversions import TO_PRIVATE, TO_SHARED
from harness.errors import ConfigError
from harness.functions import FunctionTable

MOST = 64
# Marks of the steps that try one fault each; a session counts its own from 1.
FIRST_MARK = 0x7000_0000
# All of them, each in a step of its own.
EVERY = "every"
# MapGPA is made in one of these, the first that a kernel has.
_TDCALLS = ("__tdcall_saved_ret", "__tdx_hypercall")
_SELECTORS = (
    "which conversion: NAME:index=N (the N-th that the rest picks, 0: each; default 1),min=SIZE,"
    "max=SIZE,\nat=0xSTART-0xEND,caller=FUNCTION; sizes as 4096, 64K, 2M; NAME alone: as in the "
    "brackets; several\nfaults: NAME+NAME"
)
_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A named fault."""

    name: str
    # what the plugin is told, without a selector
    option: str
    # TO_SHARED or TO_PRIVATE
    direction: str
    # rules that must find it, and those that may as well: the guest goes on as if all were well
    rules: tuple[str, ...]
    also: tuple[str, ...] = ()
    # one sentence
    what: str
    # a command of the guest's module that it can be tried with, and what picks a conversion of it
    # where no other selector is given
    command: str
    selector: str
    # the command fails, for the guest sees what the fault leads to
    must_fail: bool = False
    min_cpus: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which conversion is hit; sizes in bytes. What is not given does not matter."""

    # the n-th of those that the rest picks, from 1; 0: each of them
    index: int = 1
    min: int | None = None
    max: int | None = None
    # guest-physical addresses [start, end)
    at: tuple[int, int] | None = None
    caller: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """A fault to be made. `mark`: only between the guest's marks of this id."""

    fault: Fault
    selector: Selector = Selector()
    mark: int | None = None


def _cache(part: str, what: str, size: str, **more: str) -> Fault:
    return Fault(
        name=f"cache-{more.pop('name', part)}",
        option=f"cache/part={part}",
        direction=TO_SHARED,
        rules=("guest-cache-flush",),
        what=f"the cache flush of {what} is lost",
        command=more.pop("command", f"tdh convert size={size}"),
        selector=more.pop("selector", f"min={size},max={size}"),
    )


def _tlb(to: str, name: str, option: str, what: str, size: str, cpus: int = 1) -> Fault:
    return Fault(
        name=f"tlb-{to}-{name}",
        option=f"tlb/to={to}/{option}",
        direction=TO_SHARED if to == "shared" else TO_PRIVATE,
        rules=("guest-tlb-flush",),
        what=f"to {to}, {what}",
        command=f"tdh convert size={size}",
        selector=f"min={size},max={size}",
        min_cpus=cpus,
    )


def _tlbs(to: str) -> tuple[Fault, ...]:
    return (
        _tlb(to, "all", "who=all", "no vCPU's TLB flush has an effect", "64K"),
        _tlb(to, "self", "who=self", "the converting vCPU's TLB flush is lost", "4K"),
        _tlb(to, "others", "who=others", "the other vCPUs' TLB flushes are lost", "64K", 2),
        _tlb(to, "vcpu1", "vcpu=1", "the TLB flush of vCPU 1 is lost", "4K", 2),
        _tlb(to, "first-page", "part=first-page", "the range's first address stays", "64K"),
        _tlb(to, "middle-page", "part=middle-page", "one address in the range stays", "64K"),
        _tlb(to, "last-page", "part=last-page", "the range's last address stays", "128K"),
        _tlb(to, "half", "part=second-half", "the TLB flush ends half way", "64K"),
        _tlb(to, "globals", "globals=kept", "a whole TLB flush spares global entries", "2M"),
    )


def _parallel(fault: Fault) -> Fault:
    """The fault in one of the conversions that all vCPUs make at the same time."""
    return replace(
        fault,
        command="tdh parallel size=64K cycles=3",
        selector=f"index=2,{fault.selector}",
        min_cpus=2,
    )


def _accept(part: str, size: str, what: str) -> Fault:
    return Fault(
        name=f"accept-{part}" + ("-2m" if size == "2M" else ""),
        option=f"accept/part={part}",
        direction=TO_PRIVATE,
        rules=("unaccepted-access",),
        what=f"TDG.MEM.PAGE.ACCEPT of {what} is lost",
        command=f"tdh convert size={size}",
        selector=f"min={size},max={size}",
    )


def _mapgpa(to: str, part: str, what: str) -> Fault:
    shared = to == "shared"
    return Fault(
        name=f"mapgpa-{to}-{part}",
        option=f"mapgpa/to={to}/part={part}",
        direction=TO_SHARED if shared else TO_PRIVATE,
        rules=("shared-access-to-private",) if shared else ("accept-shared",),
        # On the way back the page is accepted already, which Linux takes for a failure.
        also=("double-accept", "kernel-log") if shared else ("kernel-log",),
        what=f"MapGPA to {to} leaves out {what}",
        command="tdh convert size=64K",
        selector="min=64K,max=64K",
        must_fail=True,
    )


_ROWS = (
    _cache("all", "a whole conversion", "64K"),
    _cache("second-lines", "every second line", "64K"),
    _cache("first-line", "the first line", "4K"),
    _cache("middle-line", "one line in the middle", "128K"),
    _cache("last-line", "the last line", "64K"),
    _cache("line-per-page", "one line of each page", "2M"),
    _cache("first-page", "the first page", "64K"),
    _cache("middle-page", "one page in a range of 2 MiB", "2M"),
    _cache("last-page", "the last page", "64K"),
    _cache("second-half", "the second half of a range", "1M"),
    _cache(
        "all", "the third conversion of its kind", "4K", name="third",
        command="tdh convert size=4K cycles=5", selector="index=3,min=4K,max=4K",
    ),
    _cache(
        "all", "each conversion of 2 MiB or more", "4M", name="large",
        command="tdh convert size=2M cycles=2", selector="index=0,min=2M",
    ),
    _cache(
        "all", "a conversion that dma_direct_alloc() makes", "64K", name="by-caller",
        command="tdh convert size=64K; tdh coherent size=64K",
        selector="caller=dma_direct_alloc,min=64K",
    ),
    *_tlbs("shared"),
    *_tlbs("private"),
    _parallel(_cache("all", "one of many conversions at once", "64K", name="parallel")),
    _parallel(_tlb("shared", "parallel", "who=others", "of many at once, one is not heard", "64K")),
    _accept("all", "64K", "a whole conversion"),
    _accept("first-page", "64K", "the first page"),
    _accept("middle-page", "64K", "one page in the middle"),
    _accept("last-page", "64K", "the last page"),
    _accept("middle-page", "2M", "one page of the 2 MiB that the kernel accepts at once"),
    _mapgpa("shared", "first-page", "the first page"),
    _mapgpa("shared", "last-page", "the last page"),
    _mapgpa("shared", "all", "the whole range"),
    _mapgpa("private", "first-page", "the first page"),
    _mapgpa("private", "last-page", "the last page"),
    _mapgpa("private", "all", "the whole range"),
)  # fmt: skip

FAULTS: Mapping[str, Fault] = MappingProxyType({fault.name: fault for fault in _ROWS})


def parse(text: str) -> tuple[Injection, ...]:
    """`NAME[:KEY=VALUE,...]`, more than one joined by `+`; "every": all of them, marked.

    Raises ConfigError.
    """
    if text == EVERY:
        return tuple(
            Injection(fault=f, selector=_selector(f.name, f.selector), mark=FIRST_MARK + i)
            for i, f in enumerate(FAULTS.values())
        )
    parts = text.split("+") if text else []
    if len(parts) > MOST:
        raise ConfigError(f"{len(parts)} faults at once: at most {MOST} can be made")
    return tuple(_parse_one(part) for part in parts)


def _parse_one(text: str) -> Injection:
    name, _, selector = text.partition(":")
    if name not in FAULTS:
        raise ConfigError(
            f"there is no fault {name!r}", hint="`tdharness run --fault list` names them all"
        )
    fault = FAULTS[name]
    return Injection(fault=fault, selector=_selector(name, selector or fault.selector))


def _selector(name: str, text: str) -> Selector:
    given: dict[str, object] = {}
    for word in text.split(",") if text else []:
        key, _, value = word.partition("=")
        reader = _READERS.get(key)
        read = reader(value) if reader and key not in given else None
        if read is None:
            raise ConfigError(
                f"the fault {name} cannot be picked by {word!r}",
                hint=_SELECTORS,
            )
        given[key] = read
    return Selector(**given)  # type: ignore[arg-type]  # each reader gives its field's type


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else None


def _size(text: str) -> int | None:
    match = re.fullmatch(r"(\d{1,12})([KMG]?)", text, re.ASCII)
    return int(match[1]) * _SIZES[match[2]] if match else None


def _range(text: str) -> tuple[int, int] | None:
    match = re.fullmatch(r"0x([0-9a-f]{1,13})-0x([0-9a-f]{1,13})", text, re.ASCII)
    if not match:
        return None
    start, end = int(match[1], 16), int(match[2], 16)
    return (start, end) if start < end else None


def _symbol(text: str) -> str | None:
    return text if re.fullmatch(r"[\w.]{1,128}", text, re.ASCII) else None


_READERS = {"index": _number, "min": _size, "max": _size, "at": _range, "caller": _symbol}


def plugin_option(injections: Iterable[Injection], functions: FunctionTable | None) -> str:
    """The plugin's `fault=` option; `functions` are the kernel's, at link addresses.

    Raises ConfigError for a caller that the kernel does not have.
    """
    return "+".join(_option(one, functions) for one in injections)


def _option(one: Injection, functions: FunctionTable | None) -> str:
    s = one.selector
    words = [one.fault.option, f"index={s.index}"]
    words += [f"min={s.min}"] if s.min is not None else []
    words += [f"max={s.max}"] if s.max is not None else []
    words += [f"at={s.at[0]:#x}-{s.at[1]:#x}"] if s.at else []
    if s.caller:
        words.append(f"caller={_code(functions, (s.caller,), s.caller)}")
        words.append(f"tdcall={_code(functions, _TDCALLS, 'the TDCALL of a MapGPA')}")
    words += [f"mark={one.mark}"] if one.mark is not None else []
    return "/".join(words)


def _code(functions: FunctionTable | None, names: Sequence[str], what: str) -> str:
    """Link addresses of the first function of these names that there is."""
    found = functions.addresses_of(frozenset(names)) if functions else {}
    address = next((found[name] for name in names if name in found), None)
    function = functions.find(address) if functions and address is not None else None
    if not function:
        raise ConfigError(
            f"the kernel has no function {what}, so no fault can be picked by its caller",
            hint="the image's own symbol table is read (CONFIG_KALLSYMS); static functions may "
            "have been inlined",
        )
    return f"{function.start:#x}-{function.end:#x}"


def render_list() -> str:
    """The catalogue, for people."""
    width = max(map(len, FAULTS))
    rows = [
        f"{f.name:{width}}  {', '.join(f.rules)}: {f.what} ({f.selector})" for f in FAULTS.values()
    ]
    return "\n".join([*rows, "", _SELECTORS])

# SPDX-License-Identifier: GPL-2.0-or-later
"""A call trace out of stack words: which of them are the return addresses of one chain of calls.

The words are what a stack held within the range of kernel addresses: true return addresses, and
left-overs of earlier calls between them. With the kernel's code at hand a true one follows a CALL,
and that call's target is the function of the frame inside it; of all chains the one with the best
evidence wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.functions import Function
from harness.vmlinux import ElfText

Find = Callable[[int], Function | None]

MOST_FRAMES = 24
MOST_WORDS = 64
# How well a frame's call explains the frame inside it. An indirect call may lead anywhere; a
# direct one to another function is a left-over of an earlier call, or a tail call that the bytes
# do not show: it takes a longer chain behind it to be believed.
_DIRECT, _TAIL, _INDIRECT, _OTHER = 8, 6, 3, -24
# Position-independent aliases carry a prefix: __pi___x86_indirect_thunk_rax.
_THUNK = "__x86_indirect_"


@dataclass(frozen=True, slots=True)
class Frame:
    address: int
    function: Function
    # the function that the call names; None where the call is indirect or unknown
    called: Function | None = None
    # where that function jumps to: its tail calls among others
    jumps: frozenset[int] = frozenset()


def frame_of(word: int, find: Find, text: ElfText | None, slide: int) -> Frame | None:
    """The frame whose return address a stack word is; None when it is none.

    Addresses are run-time ones. Without `text` every word within a function passes; code of
    modules has no text here and is believed.
    """
    # A call may be the last instruction of a function: the word itself is behind it.
    function = find(word - 1)
    if not function:
        return None
    if text is None or text.at(word - 1 - slide, 1) is None:
        at = find(word)
        # A pointer to a function is no way back into one.
        return None if at and at.start == word else Frame(word, function)

    def is_thunk(address: int) -> bool:
        called = find(address + slide)
        return called is not None and _THUNK in called.name

    call = text.call_before(word - slide, is_thunk)
    if call is None:
        return None
    called = None if call.target is None else find(call.target + slide)
    if called is None:
        return Frame(word, function)
    return Frame(word, function, called, _tail_calls(called, find, text, slide))


def _tail_calls(
    function: Function, find: Find, text: ElfText, slide: int, depth: int = 2
) -> frozenset[int]:
    """Where a function jumps to, and where functions jump to that it jumps to."""
    jumps = text.jumps_from(function.start - slide, function.end - slide)
    found = {target + slide for target in jumps}
    for target in tuple(found) if depth > 1 else ():
        next_one = find(target)
        if next_one and next_one.start == target and next_one != function:
            found |= _tail_calls(next_one, find, text, slide, depth - 1)
    return frozenset(found)


def best_chain(first: Frame, frames: Sequence[Frame]) -> list[Frame]:
    """Of the frames, innermost first, those of the chain around `first` with the best evidence."""
    # Dynamic programming over the frame inside each: the highest sum of links wins.
    nodes = [first, *frames]
    best: list[tuple[int, int]] = [(0, -1)]
    for outer in range(1, len(nodes)):
        links = [(best[i][0] + _link(nodes[i], nodes[outer]), i) for i in range(outer)]
        best.append(max(links, key=lambda link: link[0]))
    at = max(range(len(nodes)), key=lambda i: best[i][0])
    chain = []
    while at > 0:
        chain.append(nodes[at])
        at = best[at][1]
    return chain[: -MOST_FRAMES - 1 : -1]


def _link(inner: Frame, outer: Frame) -> int:
    if outer.called is None:
        return _INDIRECT
    if _base_name(outer.called.name) == _base_name(inner.function.name):
        return _DIRECT
    return _TAIL if inner.function.start in outer.jumps else _OTHER


def _base_name(name: str) -> str:
    """The name without the suffix of a part that the compiler moved out of line."""
    return name.partition(".cold")[0]

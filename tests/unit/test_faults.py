# SPDX-License-Identifier: GPL-2.0-or-later
import re
from dataclasses import replace

import pytest

from harness import faults
from harness.conversions import TO_PRIVATE, TO_SHARED
from harness.errors import ConfigError
from harness.faults import FAULTS, FIRST_MARK, Injection, Selector, parse, plugin_option
from harness.functions import NameTable
from harness.rules.table import RULES
from harness.stub.build import SOURCES
from harness.workload import injected_steps

LINKED = NameTable(
    [
        (0xFFFFFFFF81000000, "T", "_text"),
        (0xFFFFFFFF81200000, "t", "dma_direct_alloc"),
        (0xFFFFFFFF81200200, "T", "next"),
        (0xFFFFFFFF82000000, "T", "__tdcall_saved_ret"),
        (0xFFFFFFFF82000080, "T", "end"),
    ]
)


def test_the_catalogue_is_large_and_of_both_directions() -> None:
    assert len({fault.option + fault.selector for fault in FAULTS.values()}) == len(FAULTS) >= 25
    for to in (TO_SHARED, TO_PRIVATE):
        assert sum(fault.direction == to for fault in FAULTS.values()) >= 10


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_a_row(fault: faults.Fault) -> None:
    assert {*fault.rules, *fault.also} <= set(RULES)
    assert fault.rules
    assert not set(fault.rules) & set(fault.also)
    assert re.fullmatch(r"[a-z0-9-]{1,40}", fault.name)
    assert not fault.what.endswith(".")
    assert ("/to=private" in fault.option or fault.option.startswith("accept")) == (
        fault.direction == TO_PRIVATE
    )


def test_words_of_the_options_are_the_plugins() -> None:
    known = set(re.findall(r'"([a-z-]+)"', (SOURCES / "fault.c").read_text()))
    every = plugin_option(parse(faults.EVERY), LINKED)
    used = set(re.findall(r"[a-z][a-z-]+", re.sub(r"0x[0-9a-f]+", "", every)))
    assert used <= known


def test_a_name_alone_hits_what_it_is_tried_with() -> None:
    third = Selector(index=3, min=4096, max=4096)
    assert parse("cache-third") == (Injection(fault=FAULTS["cache-third"], selector=third),)
    assert plugin_option(parse("cache-all"), None) == "cache/part=all/index=1/min=65536/max=65536"
    assert parse("") == ()


def test_a_selector() -> None:
    one, two = parse("cache-all:index=0,min=64K,max=2M,at=0x1000-0x2000+tlb-private-self:index=3")
    assert one.selector == Selector(index=0, min=65536, max=2 << 20, at=(0x1000, 0x2000))
    assert two.selector == Selector(index=3)
    assert plugin_option((one, two), None) == (
        "cache/part=all/index=0/min=65536/max=2097152/at=0x1000-0x2000"
        "+tlb/to=private/who=self/index=3"
    )


def test_a_caller_becomes_link_addresses() -> None:
    assert plugin_option(parse("cache-all:caller=dma_direct_alloc"), LINKED) == (
        "cache/part=all/index=1/caller=0xffffffff81200000-0xffffffff81200200"
        "/tdcall=0xffffffff82000000-0xffffffff82000080"
    )


@pytest.mark.parametrize("functions", [LINKED, None])
def test_a_caller_that_the_kernel_has_not(functions: NameTable | None) -> None:
    with pytest.raises(ConfigError, match="no function swiotlb_init"):
        plugin_option(parse("cache-all:caller=swiotlb_init"), functions)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cache", "no fault 'cache'"),
        ("cache-all+", "no fault ''"),
        ("cache-all,tlb-shared-all", "no fault"),
        ("cache-all:size=3", "by 'size=3'"),
        ("cache-all:index", "by 'index'"),
        ("cache-all:index=-1", "by 'index=-1'"),
        ("cache-all:index=1,index=2", "by 'index=2'"),
        ("cache-all:min=1.5M", "by 'min=1.5M'"),
        ("cache-all:min=1T", "by 'min=1T'"),
        ("cache-all:at=0x2000-0x1000", "by 'at="),
        ("cache-all:at=4096-8192", "by 'at="),
        ("cache-all:caller=f+0x12", "no fault '0x12'"),
        ("cache-all:caller=a/b", "by 'caller=a/b'"),
        ("cache-all:index=\u0661", "cannot be picked"),
        ("+".join(["cache-all"] * 65), "65 faults"),
    ],
)
def test_what_cannot_be_parsed(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert words in caught.value.message


def test_every_fault_has_marks_and_a_step_of_its_own() -> None:
    injections = parse(faults.EVERY)
    assert len(injections) == len(FAULTS) <= faults.MOST
    assert [one.mark for one in injections] == list(range(FIRST_MARK, FIRST_MARK + len(injections)))
    steps = injected_steps(injections, cpus=2)
    assert [step.mark for step in steps] == [one.mark for one in injections]
    assert steps[0].name == f"injected-{injections[0].fault.name}"
    alone = injected_steps(injections, cpus=1)
    assert 0 < len(alone) < len(steps)
    assert not injected_steps(parse("cache-all"), cpus=2)


def test_no_comma_reaches_qemu() -> None:
    assert "," not in plugin_option(parse(faults.EVERY), LINKED)


def test_the_list_names_them_all() -> None:
    lines = faults.render_list().splitlines()
    assert [line.split()[0] for line in lines[: len(FAULTS)]] == list(FAULTS)
    assert "index=N" in "".join(lines[-3:])


def test_an_unmarked_fault_has_no_mark_in_its_option() -> None:
    marked = replace(parse("cache-all")[0], mark=7)
    assert plugin_option((marked,), None).endswith("/mark=7")

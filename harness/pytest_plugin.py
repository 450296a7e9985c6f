# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin: options and fixtures of the suites that boot guests; the logic is in suite.py.

A test that asks for the fixture `guest` runs between marks, and is judged by its own slice of the
events and of the kernel log when its body ends. `@pytest.mark.plants("rule", ...)` says that it
breaks rules on purpose: then just these have to be found. With no rule, it need not convert.
"""

import argparse
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.suite import GuestPool, TestGuest

_POOL = pytest.StashKey["GuestPool"]()
_GUEST_FIXTURE = "guest"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the guest that the suites run on."""
    group = parser.getgroup("tdharness", "guest under test")
    group.addoption(
        "--td-mode", choices=("stub", "tdx", "none"), default="stub", help="default: stub"
    )
    group.addoption(
        "--kernel", default="stock", help="a bzImage, stock or stock:7; default: stock (6.12)"
    )
    group.addoption("--smp", type=int, default=2, help="vCPUs of the guest; default: 2")
    group.addoption("--memory", type=int, default=1024, help="MiB of the guest; default: 1024")
    group.addoption(
        "--libvirt", default="", metavar="URI", help="have a libvirt start it, here or over ssh"
    )
    group.addoption(
        "--runs", type=Path, default=Path("runs"), help="where runs are kept; default: runs"
    )
    group.addoption(
        "--guest-trace",
        action=argparse.BooleanOptionalAction,
        help="have the guest trace its own conversions; default: on hardware only",
    )
    group.addoption("--patience", type=float, default=1.0, help="let all take so many times longer")
    group.addoption("--host", default="", help="collect what this host of --hosts tells")
    group.addoption("--hosts", type=Path, default=Path("hosts.toml"), help="default: hosts.toml")
    group.addoption("--nightly", action="store_true", help="the tests that take minutes as well")
    group.addoption(
        "--tdharness-require",
        action="append",
        default=[],
        choices=("stub", "libvirt"),
        help="what must not be skipped: a skip for its lack is a failure",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Markers of the suites."""
    config.addinivalue_line("markers", "plants(*rules): rules that the test breaks on purpose")
    config.addinivalue_line("markers", "nightly: takes minutes, and runs with --nightly only")
    config.addinivalue_line("markers", "needs_td: has no meaning in a plain VM")
    config.addinivalue_line("markers", "needs_stub: only the stub sees what the test is about")
    config.addinivalue_line("markers", "min_cpus(n): needs so many vCPUs")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under pytest-xdist, one worker gets all tests that share the guest: it boots once."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if _GUEST_FIXTURE in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(_GUEST_FIXTURE))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the chosen guest cannot show, with the reason."""
    from harness.suite import skip_reason

    if item.get_closest_marker("nightly") and not item.config.getoption("--nightly"):
        pytest.skip("takes minutes: use --nightly")
    if _GUEST_FIXTURE not in getattr(item, "fixturenames", ()):
        return
    cpus = item.get_closest_marker("min_cpus")
    reason = skip_reason(
        td_mode=item.config.getoption("--td-mode"),
        smp=item.config.getoption("--smp"),
        needs_td=item.get_closest_marker("needs_td") is not None,
        needs_stub=item.get_closest_marker("needs_stub") is not None,
        min_cpus=int(cpus.args[0]) if cpus else 1,
    )
    if not reason:
        return
    if item.config.getoption("--tdharness-require"):
        pytest.fail(f"must not be skipped: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def guest_pool(request: pytest.FixtureRequest) -> Iterator["GuestPool"]:
    """The guests of this session: one at a time, booted when first asked for."""
    from harness.hosts.config import host_named
    from harness.prepare import Request
    from harness.suite import GuestPool

    option = request.config.getoption
    asked = Request(
        kernel=option("--kernel"),
        td_mode=option("--td-mode"),
        smp=option("--smp"),
        memory_mib=option("--memory"),
        libvirt=option("--libvirt"),
        patience=option("--patience"),
        trace=option("--guest-trace"),
    )
    pool = GuestPool(
        asked,
        runs=option("--runs"),
        host=host_named(option("--host"), option("--hosts")) if option("--host") else None,
    )
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def guest(guest_pool: "GuestPool", request: pytest.FixtureRequest) -> "TestGuest":
    """The booted guest; a test that leaves it broken gets the next test a fresh one."""
    request.node.stash[_POOL] = guest_pool
    return guest_pool.guest()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Judge a test by its slice when its body has ended."""
    pool = pyfuncitem.stash.get(_POOL, None)
    if pool is None:
        return (yield)
    plants = pyfuncitem.get_closest_marker("plants")
    with pool.judged(pyfuncitem.name, tuple(plants.args) if plants else None) as outcome:
        result = yield
    if outcome.complaint:
        pytest.fail(outcome.complaint, pytrace=False)
    return result

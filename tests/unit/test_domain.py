# SPDX-License-Identifier: GPL-2.0-or-later
"""The XML of domains: against libvirt's own schema, and what it says of its owner."""

import base64
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from harness import live
from harness.errors import ConfigError, HostError
from harness.hosts.ssh import host_of
from harness.live import Process, start_time
from harness.machine.arguments import DomainWiring
from harness.machine.base import MachineSpec, slowness
from harness.machine.domain import Owner, domain_xml, owner_of
from harness.machine.leftovers import Fate, fate_of
from harness.machine.libvirt import LibvirtMachine, this_owner
from harness.machine.libvirtlink import Link
from harness.machine.place import emulator_of
from harness.machine.tdx import DEBUG, SEPT_VE_DISABLE, Td, td_arguments
from harness.proc import run
from harness.provision.libvirt import domain_schema
from harness.provision.qemu import Qemu, find_or_make
from harness.rundir import RunDir

PROCESS = Process(namespace=live.process().namespace, pid=4711, start=815)
OWNER = Owner(boot_id="5a3c", process=PROCESS, run="/runs/a <b> & c")
QEMU = Path("/usr/bin/qemu-system-x86_64")
SPEC = MachineSpec(
    kernel=Path("/k/bzImage"), initrd=Path("/k/initrd"), plugin=Path("/p/stub.so"), smp=4
)
WIRING = DomainWiring(
    agent_socket=Path("/tmp/a,b/agent"),
    ssh_port=2222,
    console_log=Path("/runs/1/console.log"),
    events=Path("/runs/1/events"),
    disk=Path("/tmp/a,b/disk"),
)
IDENTITY = base64.b64encode(bytes(48)).decode()
TD = Td(
    firmware=Path("/usr/share/ovmf/OVMF.inteltdx.fd"),
    attributes=SEPT_VE_DISABLE | DEBUG,
    mr_config_id=IDENTITY,
    mr_owner=IDENTITY,
    mr_owner_config=IDENTITY,
    quote_socket=Path("/run/qgs.socket"),
)


def stub_xml(spec: MachineSpec = SPEC) -> str:
    return domain_xml(spec, name="tdharness-1", owner=OWNER, emulator=QEMU, wiring=WIRING)


def xml_of_td(td: Td = TD) -> str:
    return stub_xml(replace(SPEC, td_mode="tdx", plugin=None, td=td))


@pytest.fixture(scope="module")
def complaints() -> Callable[[str], list[str]]:
    """What the schema of a libvirt that knows TDX says against a domain."""
    schema = etree.RelaxNG(etree.parse(str(domain_schema())))

    def check(xml: str) -> list[str]:
        schema.validate(etree.fromstring(xml.encode()))
        return [str(error.message) for error in schema.error_log]

    return check


@pytest.mark.parametrize(
    "xml",
    [
        stub_xml(),
        stub_xml(replace(SPEC, td_mode="none", plugin=None)),
        xml_of_td(),
        xml_of_td(Td(firmware=TD.firmware)),
    ],
    ids=["stub", "plain VM", "a TD with all", "a TD with the least"],
)
def test_the_schema_takes_what_we_say(xml: str, complaints: Callable[[str], list[str]]) -> None:
    assert complaints(xml) == []


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("type='tdx'", "type='tdy'"),
        (f"{TD.attributes:#x}", "none"),
        ("mrConfigId", "mrConfigID"),
        ("access mode='private'", "access mode='secret'"),
        ("quoteGenerationService", "quoteService"),
        ("<ioapic driver='qemu'", "<ioapic driver='own'"),
    ],
)
def test_the_schema_knows_what_a_td_is(
    said: str, wrong: str, complaints: Callable[[str], list[str]]
) -> None:
    xml = xml_of_td().replace('"', "'")
    assert said in xml
    assert complaints(xml.replace(said, wrong))


def test_the_owner_is_read_back_whatever_the_run_is_called() -> None:
    assert owner_of(stub_xml()) == OWNER
    assert owner_of(xml_of_td()) == OWNER


@pytest.mark.parametrize(
    "xml",
    [
        "<domain",
        "<domain/>",
        stub_xml().replace('pid="4711"', 'pid="init"'),
        stub_xml().replace('boot="5a3c"', ""),
        stub_xml().replace("urn:tdharness:owner:1", "urn:tdharness:owner:2"),
    ],
)
def test_a_domain_that_names_no_owner_is_nobodys(xml: str) -> None:
    assert owner_of(xml) is None


@pytest.mark.parametrize(
    ("owner", "start", "fate"),
    [
        (None, 815, Fate.KEPT_NAMELESS),
        (OWNER, 815, Fate.KEPT_RUNNING),
        (OWNER, 816, Fate.REMOVED),
        (OWNER, None, Fate.REMOVED),
        (replace(OWNER, boot_id="77"), None, Fate.KEPT_ELSEWHERE),
        # a container beside ours: its processes are not seen
        (replace(OWNER, process=replace(PROCESS, namespace=1)), None, Fate.KEPT_ELSEWHERE),
    ],
)
def test_only_what_a_dead_harness_left_is_removed(
    owner: Owner | None, start: int | None, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "start_time", lambda _: start)
    assert fate_of(owner, "5a3c") is fate


def test_this_process_is_an_owner_that_lives() -> None:
    owner = this_owner(Path("/runs/1"))
    assert (owner.process.pid, owner.process.start) == (os.getpid(), start_time(os.getpid()))
    assert fate_of(owner, owner.boot_id) is Fate.KEPT_RUNNING


def test_a_wrapper_starts_qemu_with_what_it_needs(tmp_path: Path) -> None:
    words = ("/bin/sh", "-c", 'printf "%s|" "$LIBRARIES" "$@"', "a b")
    qemu = Qemu(argv_prefix=words, env={"LIBRARIES": "x y"}, version="11.1.0", origin="test")
    wrapper = emulator_of(qemu, tmp_path / "builds")
    assert run([wrapper, "-name", "c d"], timeout_s=10).stdout == "x y|-name|c d|"
    assert emulator_of(qemu, tmp_path / "builds") == wrapper
    alone = Qemu(argv_prefix=("/usr/bin/qemu",), env={}, version="11.1.0", origin="test")
    assert emulator_of(alone, tmp_path) == Path("/usr/bin/qemu")


@pytest.mark.parametrize(
    ("uri", "seed", "words"),
    [
        ("qemu+tcp://root@lab/system", None, "or one over ssh"),
        ("xen:///system", None, "or one over ssh"),
        ("qemu:///system", 7, "needs the direct launcher"),
    ],
)
def test_what_libvirt_cannot_start_is_refused(
    uri: str, seed: int | None, words: str, tmp_path: Path
) -> None:
    qemu = Qemu(argv_prefix=("/usr/bin/qemu",), env={}, version="11.1.0", origin="test")
    with pytest.raises(ConfigError, match=words):
        LibvirtMachine(replace(SPEC, seed=seed), qemu, RunDir.create(tmp_path, "test"), uri)


@pytest.mark.usefixtures("libvirt_python")
def test_no_libvirt_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no libvirt at qemu\+unix:///system.* after \d\.\d s"):
        Link(f"qemu+unix:///system?socket={tmp_path}/none")


@pytest.mark.parametrize("bad", [IDENTITY[:-4], "none", IDENTITY + "\n", "\u00e9" * 64])
def test_an_identity_is_48_bytes(bad: str) -> None:
    with pytest.raises(ConfigError, match="48 bytes in base64"):
        Td(firmware=TD.firmware, mr_owner=bad)


def qemu_says(words: list[str], accelerator: str) -> str:
    """QEMU's complaint about these words: it has no TDX here, and has to say so at last."""
    qemu = find_or_make()
    argv = [*qemu.argv_prefix, "-accel", accelerator, "-display", "none", "-machine", "q35"]
    env = {**os.environ, **qemu.env}
    result = run([*argv, *words], timeout_s=20, check=False, env=env)
    assert result.returncode == 1
    return result.stderr


def test_qemu_takes_a_tds_words_as_far_as_it_goes_without_tdx() -> None:
    words = td_arguments(TD)
    assert "KVM required" in qemu_says(words, "tcg")
    # Of the object itself there is no complaint: each of these is one.
    for said, wrong in (
        ("mrconfigid", "mrconfigld"),
        ("sept-ve-disable", "sept-ve"),
        ("tdx-guest", "tdx-guests"),
    ):
        complaint = qemu_says([word.replace(said, wrong) for word in words], "tcg")
        assert "KVM required" not in complaint
        assert wrong in complaint


def test_a_uri_names_the_host_that_files_go_to(tmp_path: Path) -> None:
    host = host_of(f"qemu+ssh://lab@tdx1:2222/system?keyfile=/k%20ey&known_hosts={tmp_path}/pinned")
    assert host
    assert (host.address, host.port, host.user) == ("tdx1", 2222, "lab")
    assert (host.key, host.known_hosts) == (Path("/k ey"), tmp_path / "pinned")
    plain = host_of("qemu+ssh://tdx1/system")
    assert plain
    assert (plain.port, plain.key) == (22, None)
    assert plain.known_hosts == Path.home() / ".ssh/known_hosts"
    assert host_of("qemu:///system") is None
    assert host_of("qemu+unix:///system?socket=/s") is None
    with pytest.raises(ConfigError, match="is no URI"):
        host_of("qemu+ssh://tdx1:no/system")


def test_patience_scales_the_kernels_watchdogs() -> None:
    slow = replace(SPEC, patience=30.0)
    assert "watchdog_thresh" not in replace(SPEC, smp=1).cmdline
    assert "watchdog_thresh=300" in replace(slow, smp=1).cmdline
    assert slowness(replace(slow, smp=1)) == 30.0
    with pytest.raises(ConfigError, match="a patience of 0"):
        replace(SPEC, patience=0.0)

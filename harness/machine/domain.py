# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest as libvirt's domain XML; pure.

A domain has libvirt's monitor and lifecycle, and the direct launcher's devices and plugin
(harness.machine.arguments). A TD on hardware is libvirt's own <launchSecurity>.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from harness.live import Process
from harness.machine.arguments import DomainWiring, domain_arguments
from harness.machine.base import MachineSpec
from harness.machine.tdx import Td

PREFIX = "tdharness-"
# Of the owner, in the domain's metadata: a name, never fetched.
OWNER = "urn:tdharness:owner:1"
_PROCESS = ("namespace", "pid", "start")
_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The harness that a domain belongs to: a process of one boot of one machine."""

    boot_id: str
    process: Process
    run: str


def domain_xml(
    spec: MachineSpec, *, name: str, owner: Owner, emulator: Path, wiring: DomainWiring
) -> str:
    """A domain; the versions that one of a TD on hardware needs: harness.hosts.preflight."""
    domain = _domain("kvm" if spec.td else "qemu", name, owner, spec)
    system = _boot(domain, spec)
    features = _add(domain, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if spec.td:
        _measured(domain, system, features, spec.td)
    else:
        _add(features, "smm", state="off")
    _ends(domain)
    devices = _devices(domain, emulator)
    # For libvirt's own console stream; QEMU keeps the log, whoever listens.
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=str(wiring.console_log), append="on")
    _add(serial, "target", port="0")
    _add(devices, "memballoon", model="none")
    ET.register_namespace("qemu", _QEMU)
    line = ET.SubElement(domain, f"{{{_QEMU}}}commandline")
    for word in domain_arguments(spec, wiring):
        ET.SubElement(line, f"{{{_QEMU}}}arg", {"value": word})
    return ET.tostring(domain, encoding="unicode")


def _measured(domain: ET.Element, system: ET.Element, features: ET.Element, td: Td) -> None:
    """A TD on hardware: private memory, TDVF as a ROM, the interrupt controller in QEMU."""
    loader = ET.Element("loader", {"type": "rom", "readonly": "yes"})
    loader.text = str(td.firmware)
    system.insert(1, loader)
    backing = ET.Element("memoryBacking")
    _add(backing, "source", type="anonymous")
    _add(backing, "access", mode="private")
    domain.insert(list(domain).index(system), backing)
    _add(features, "ioapic", driver="qemu")
    _add(domain, "cpu", mode="host-passthrough")
    _add(_add(domain, "clock", offset="utc"), "timer", name="hpet", present="no")
    security = _add(domain, "launchSecurity", type="tdx")
    _text(security, "policy", f"{td.attributes:#x}")
    for tag, value in (
        ("mrConfigId", td.mr_config_id),
        ("mrOwner", td.mr_owner),
        ("mrOwnerConfig", td.mr_owner_config),
    ):
        if value:
            _text(security, tag, value)
    if td.quote_socket:
        _add(security, "quoteGenerationService", path=str(td.quote_socket))


def owner_element(owner: Owner) -> ET.Element:
    """What owner_of() reads, for a domain's metadata."""
    process = {name: str(getattr(owner.process, name)) for name in _PROCESS}
    return ET.Element(f"{{{OWNER}}}owner", {"boot": owner.boot_id, **process, "run": owner.run})


def owner_of(xml: str) -> Owner | None:
    """The owner that a domain names; None for one that is nobody's of ours."""
    try:
        found = ET.fromstring(xml).find(f"metadata/{{{OWNER}}}owner")
        if found is None:
            return None
        return Owner(
            boot_id=found.attrib["boot"],
            process=Process(**{name: int(found.attrib[name]) for name in _PROCESS}),
            run=found.attrib["run"],
        )
    except (ET.ParseError, KeyError, ValueError):
        return None


def _domain(kind: str, name: str, owner: Owner, spec: MachineSpec) -> ET.Element:
    domain = ET.Element("domain", {"type": kind})
    _text(domain, "name", name)
    ET.register_namespace("tdharness", OWNER)
    _add(domain, "metadata").append(owner_element(owner))
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.smp))
    return domain


def _boot(domain: ET.Element, spec: MachineSpec) -> ET.Element:
    system = _add(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    _text(system, "kernel", str(spec.kernel))
    _text(system, "initrd", str(spec.initrd))
    _text(system, "cmdline", spec.cmdline)
    return system


def _ends(domain: ET.Element) -> None:
    """A guest that ends in any way is ended: what it leaves is judged, not what it does next."""
    for tag in ("on_poweroff", "on_reboot", "on_crash"):
        _text(domain, tag, "destroy")


def _devices(domain: ET.Element, emulator: Path) -> ET.Element:
    devices = _add(domain, "devices")
    _text(devices, "emulator", str(emulator))
    _add(devices, "controller", type="usb", model="none")
    return devices


def _add(parent: ET.Element, tag: str, **attributes: str) -> ET.Element:
    return ET.SubElement(parent, tag, attributes)


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text

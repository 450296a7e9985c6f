# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands take."""

import argparse
from pathlib import Path

RUNS = Path("runs")
HOSTS = Path("hosts.toml")


def add_guest_options(parser: argparse.ArgumentParser) -> None:
    """Which guest, and what starts it."""
    group = parser.add_argument_group("guest")
    group.add_argument(
        "--kernel",
        default="stock",
        metavar="IMAGE",
        help="a bzImage, or stock (Debian's 6.12), or stock:7 (Debian's 7.x); default: %(default)s",
    )
    group.add_argument(
        "--td-mode",
        choices=("stub", "tdx", "none"),
        default="stub",
        help="a TD under the stub or on hardware, or a plain VM; default: %(default)s",
    )
    group.add_argument("--firmware", type=Path, metavar="FILE", help="of a TD on hardware: TDVF")
    group.add_argument("--smp", type=int, default=2, metavar="N", help="vCPUs, 1 to 8; default: 2")
    group.add_argument(
        "--memory", type=int, default=1024, metavar="MIB", help="512 to 8192; default: 1024"
    )
    group.add_argument("--cmdline", default="", metavar="WORDS", help="more for the kernel")
    group.add_argument(
        "--libvirt", default="", metavar="URI", help="have a libvirt start it, here or over ssh"
    )
    group.add_argument(
        "--patience",
        type=float,
        default=1.0,
        metavar="N",
        help="let all take N times longer, on a slow machine; default: 1",
    )
    group.add_argument(
        "--guest-trace",
        action=argparse.BooleanOptionalAction,
        help="have the guest trace its own conversions; default: on hardware only",
    )
    group.add_argument("--qemu", type=Path, metavar="PROGRAM", help="a QEMU of your own, >= 11.1")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Where its run goes."""
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="where runs are kept; default: runs"
    )


def add_verdict_options(parser: argparse.ArgumentParser) -> None:
    """How a verdict is made and shown."""
    parser.add_argument("--strict", action="store_true", help="rules that only report fail, too")
    parser.add_argument("--all", action="store_true", help="every finding and conversion")
    parser.add_argument("--json", action="store_true", help="the verdict, for machines")


def add_hosts_file(parser: argparse.ArgumentParser) -> None:
    """Where hosts are listed."""
    parser.add_argument(
        "--hosts", type=Path, default=HOSTS, metavar="FILE", help="default: %(default)s"
    )

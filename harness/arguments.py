# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the command line: what each command takes, and its help."""

import argparse
from pathlib import Path

from harness import __version__
from harness.options import (
    RUNS,
    add_guest_options,
    add_hosts_file,
    add_runs,
    add_verdict_options,
)

HISTORY = RUNS / "history.sqlite"
# Found by the harness itself, in the kernels that it boots by default.
KNOWN = Path(__file__).parents[1] / "kernel-patches/6.12/findings/known-issues.toml"
_RUN = "runs/20260101T000000Z-conversion-1a2b3c"
_EPILOG = f"""\
exit codes: 0 pass, 1 findings, 2 wrong usage or input, 3 host or build, 4 cannot judge,
130 interrupted

examples:
  tdharness run                             Debian's own 6.12 kernel as a TD, all workloads
  tdharness run --kernel linux/arch/x86/boot/bzImage --smp 4
  tdharness run --workload conversion --keep     ... and `tdharness shell` in another terminal
  tdharness build kernel-patches/6.12/mutants/0001-*.patch    prints IMAGE, for run --kernel IMAGE
  tdharness judge {_RUN}
  tdharness events {_RUN} --json | head
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="tdharness",
        description="Boots a kernel as a TD, makes it convert memory, says which rule was broken.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tdharness {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, what: str, example: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example: tdharness {name} {example}" if example else None,
        )

    _add_setup(add("setup", "fetch and build everything that a run needs", "--kernel stock:7"))
    doctor = add("doctor", "say what this machine has, what it is good for, and what is missing")
    doctor.add_argument("--json", action="store_true", help="for machines")
    _add_build(add("build", "build a kernel from source; prints its image", "0001-x.patch"))
    _add_run(add("run", "boot a guest, run the workloads, judge", "--kernel bzImage --smp 4"))
    _add_judge(add("judge", "judge a saved run again", f"{_RUN} --strict"))
    _add_events(add("events", "print a run's event stream", f"{_RUN} --json | head"))
    _add_mce(add("mce", "decode machine checks: a log, a paste, a database", "/var/log/kern.log"))
    _add_person(add("shell", "open a shell in a running guest over ssh", _RUN))
    _add_person(add("console", "open the serial console of a running guest; Ctrl-] leaves", _RUN))
    _add_bench(add("bench", "measure: interleaved boots, medians and ratios", "--rounds 3"))
    _add_history(add("history", "print nights and trends, or export a night", "--as mail"))
    _add_clean(add("clean", "boot clean kernels many times, which must trip no rule", "--boots 2"))
    _add_series(add("series", "try a patch series against its base", "v2.mbox --each --bisect"))
    _add_nightly(add("nightly", "run a matrix of series, kernels and guests", "nightly.toml"))
    _add_mutate(add("mutate", "plant every known fault and print how many were caught", "--smp 4"))
    _add_bisect_step(add("bisect-step", "say for `git bisect run` what HEAD is", "--finding RULE"))
    _add_hosts(add("hosts", "the machines of a lab: list, check, lease", "check tdx1"))
    _add_qualify(add("qualify", "see whether a host is fit for guests", "local"))
    return parser


def _add_judge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="DIR")
    add_verdict_options(parser)
    parser.add_argument(
        "--by-trace",
        action="store_true",
        help="by the guest's own trace, as on hardware; writes nothing",
    )


def _add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", default="", help="only findings with this in them")
    parser.add_argument(
        "--file", type=Path, default=HISTORY, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--as",
        dest="form",
        default="table",
        choices=("table", "mail", "junit", "ktap", "kcidb"),
        help="the trends of all nights, or one night exported; default: table",
    )
    parser.add_argument("--night", type=int, metavar="N", help="which to export; default: newest")
    parser.add_argument("--origin", default="tdharness", help="the lab's name in KCIDB")


def _add_mce(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="?",
        default="-",
        metavar="FILE|-|STATUS",
        help="kernel log, console, trace, mcelog's output or rasdaemon's database; - is standard "
        "input, the default; or an MCi_STATUS in hexadecimal",
    )
    parser.add_argument(
        "--phys-bits",
        type=int,
        default=46,
        metavar="N",
        help="of the host, as /proc/cpuinfo has them: a KeyID stands above; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="the records, for machines")


def _add_clean(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel", action="append", metavar="IMAGE", help="as of run; default: stock and stock:7"
    )
    parser.add_argument(
        "--size",
        action="append",
        metavar="VCPUSxMIB",
        help="default: 1x512, 2x1024, 4x2048 and 8x6144",
    )
    parser.add_argument(
        "--boots", type=int, default=10, metavar="N", help="of each; default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="the rows, for machines")
    add_runs(parser)


def _add_setup(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--refresh", action="store_true", help="take newer packages if there are")
    parser.add_argument(
        "--kernel", default="stock", metavar="SERIES", help="stock or stock:7; default: stock"
    )


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("patch", nargs="*", type=Path, metavar="PATCH", help="of git format-patch")
    _add_source(parser)
    parser.add_argument("--json", action="store_true", help="all about it, for machines")


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base",
        default="linux-source-6.12",
        metavar="SOURCE",
        help="a linux-source package, DIRECTORY[@REVISION] of git, or unpacked source; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--config",
        default="lean",
        metavar="FILE",
        help="lean, distribution (of Debian's kernel of that version), a whole .config, or a "
        "fragment for on top of lean; default: %(default)s",
    )


def _add_workload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workload",
        action="append",
        choices=("conversion", "dma", "devices", "kexec", "faults"),
        help="may be given more than once; default: conversion, dma and devices",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add_guest_options(parser)
    add_runs(parser)
    parser.add_argument(
        "--host", metavar="HOST", help="keep what this host tells meanwhile: its machine checks"
    )
    add_hosts_file(parser)
    _add_workload(parser)
    parser.add_argument(
        "--fault",
        default="",
        metavar="NAME[:SELECTOR]",
        help="let the stub ignore an action of the guest; `list` names all faults and selectors, "
        "`every` tries each of them by itself",
    )
    parser.add_argument(
        "--vmm",
        default="",
        metavar="NAME[:SELECTOR]",
        help="let the stub's VMM misbehave; `list` names all ways and selectors, `every` tries "
        "each that leaves the guest alive in a step of its own",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="a run that can be repeated: one thread, time by instructions, random numbers from N",
    )
    parser.add_argument("--keep", action="store_true", help="keep the guest until Ctrl-C")
    add_verdict_options(parser)


def _add_person(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="DIR", help="default: the newest that runs")
    add_runs(parser)


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="for machines")
    add_guest_options(parser)
    add_runs(parser)


def _add_series(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "series",
        metavar="SERIES",
        help="a directory or mbox of patches, a `series` file, [TREE@]OLD..NEW, or a message id",
    )
    _add_source(parser)
    parser.add_argument("--each", action="store_true", help="every patch, not only the whole")
    parser.add_argument(
        "--bisect", action="store_true", help="find the patch that brings what the whole has new"
    )
    parser.add_argument(
        "--known",
        type=Path,
        metavar="FILE",
        help="known issues (harness/known.py); default: known-issues.toml beside the series",
    )
    _add_workload(parser)
    parser.add_argument("--json", action="store_true", help="for machines")
    add_guest_options(parser)
    add_runs(parser)


def _add_nightly(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the matrix that a TOML file describes, most informative cells first, until it is done "
        "or its time is up, and compare it with the nights before. One that was cut short goes on."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="see harness/nightly/config.py")
    parser.add_argument(
        "--unfinished",
        action="store_true",
        help="run nothing; exit with 0 if a night was cut short and would be gone on with, else 1",
    )
    add_runs(parser)


def _add_mutate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--group",
        action="append",
        choices=("stub", "guest", "vmm", "mutants", "rfc", "clean"),
        help="may be given more than once; default: all",
    )
    parser.add_argument(
        "--patches",
        type=Path,
        default=Path("kernel-patches/6.12"),
        metavar="DIR",
        help="holds BASE, mutants/ and rfc/; default: %(default)s",
    )
    parser.add_argument("--config", default="lean", metavar="FILE", help="as of `build`")
    parser.add_argument(
        "--boots", type=int, default=1, metavar="N", help="of each clean kernel; default: 1"
    )
    parser.add_argument(
        "--by-trace",
        action="store_true",
        help="judge patched kernels by the guest's own trace, as on hardware",
    )
    parser.add_argument("--json", action="store_true", help="the score, for machines")
    add_guest_options(parser)
    add_runs(parser)


def _add_bisect_step(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "One step of `git bisect run`: builds HEAD as `build` does, runs it, and exits with 0 when "
        "it is good, 1 when it is bad, 125 when it does not build or boot, and 128 or more, which "
        "ends the search, when the host or the harness failed."
    )
    parser.add_argument(
        "--finding",
        default="",
        metavar="WHAT",
        help="what makes a kernel bad: a rule, RULE:FUNCTION or an identity; default: any failure",
    )
    parser.add_argument(
        "--source", type=Path, default=Path(), metavar="DIR", help="the git tree; default: here"
    )
    parser.add_argument(
        "--base",
        default="",
        metavar="REVISION",
        help="build on this, a good one, and only what changed since; default: build all",
    )
    parser.add_argument("--config", default="lean", metavar="FILE", help="as of `build`")
    _add_workload(parser)
    add_guest_options(parser)
    add_runs(parser)


def _add_hosts(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(dest="act", required=True, metavar="ACT")
    for name, what in (
        ("list", "which hosts there are, and who has them"),
        ("check", "say what a host has of what it needs, and what to do"),
        ("lease", "have a host to oneself while a command runs"),
        ("release", "take the lease of a host away from whoever has it"),
        ("clean", "end guests that a dead harness left at a host's libvirt"),
    ):
        act = acts.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        add_hosts_file(act)
        if name != "list":
            act.add_argument("host", metavar="HOST", help="a name of the file, or local")
        if name == "clean":
            act.add_argument("--libvirt", metavar="URI", help="in place of what the file says")
        if name == "check":
            act.add_argument("--json", action="store_true", help="for machines")
        if name == "lease":
            act.add_argument(
                "--wait", type=float, default=3600.0, metavar="SECONDS", help="default: an hour"
            )
            act.add_argument("argv", nargs="+", metavar="COMMAND", help="and its words, after --")


def _add_qualify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="a name of the file, or local")
    parser.add_argument(
        "--profile", choices=("quick", "full", "soak"), default="quick", help="default: quick"
    )
    add_hosts_file(parser)
    parser.add_argument(
        "--kernel", default="stock", metavar="IMAGE", help="of the guests; default: stock"
    )
    parser.add_argument(
        "--wait", type=float, default=3600.0, metavar="SECONDS", help="for the lease; default: 3600"
    )
    parser.add_argument(
        "--known",
        type=Path,
        default=KNOWN,
        metavar="FILE",
        help="issues of guest kernels, which count against no host; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="the report, for machines")
    add_runs(parser)

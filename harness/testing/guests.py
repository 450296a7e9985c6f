# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans of guests that run in the fake QEMU, and `tdharness` with such guests.

python -m harness.testing.guests run --runs DIR
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from harness import cli, prepare
from harness.image import offsets_of
from harness.kernel.base import Kernel
from harness.machine.base import MachineSpec
from harness.plan import Plan
from harness.provision.qemu import Qemu
from harness.session import Progress
from harness.testing import fake_qemu
from harness.workload import Step


def fake_plan(
    directory: Path,
    faults: str | None = None,
    *,
    boot_timeout_s: float = 60.0,
    scenario: str = "fake",
    td_mode: str = "stub",
    trace: bool = False,
) -> Plan:
    """A plan whose files are made in `directory`.

    Without `faults` the environment's own FAKE_QEMU counts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kernel, initrd, plugin = (directory / name for name in ("bzImage", "initrd.cpio", "stub.so"))
    for path in (kernel, initrd, plugin):
        path.touch()
    offsets_of(initrd).write_text("{}")
    return Plan(
        spec=MachineSpec(
            kernel=kernel,
            initrd=initrd,
            td_mode=td_mode,
            plugin=plugin if td_mode == "stub" else None,
        ),
        kernel=Kernel(release=fake_qemu.RELEASE, image=kernel),
        qemu=Qemu(
            argv_prefix=(sys.executable, "-m", fake_qemu.__name__),
            env={} if faults is None else {"FAKE_QEMU": faults},
            version="11.1.0",
            origin="the fake",
        ),
        scenario=scenario,
        trace=trace,
        boot_timeout_s=boot_timeout_s,
    )


def use_fakes(directory: Path) -> None:
    """Let every guest of this process be a fake one."""

    def fake_prepare(
        request: prepare.Request,
        progress: Progress,
        *,
        scenario: str = "conversion",
        steps: Sequence[Step] = (),
    ) -> Plan:
        progress("checking the cache")
        return fake_plan(directory, scenario=scenario, td_mode=request.td_mode)

    prepare.prepare = fake_prepare


def main() -> int:
    """`tdharness`, with fake guests whose files lie beside the runs."""
    runs = Path(sys.argv[sys.argv.index("--runs") + 1])
    use_fakes(runs.parent / "fake")
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: GPL-2.0-or-later
"""The judge's score: plant every fault that there is, and leave clean kernels alone.

A fault that could not be tried is a row that says why, never the end of the others. Patched kernels
are built in a thread while those before them run.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import faults, vmm
from harness.clean import KERNELS, clean
from harness.errors import ConfigError, EvidenceError, HarnessError
from harness.evidence import Evidence, load
from harness.injected import scores_of, verdict_of_slice
from harness.job import carry_out, in_child
from harness.judge import judge
from harness.kernel.build import build
from harness.kernel.kconfig import config_of
from harness.kernel.origin import base_of
from harness.mutants import Mutant, base_named_in, read_group
from harness.pipeline import guests_at_once, pipelined
from harness.prepare import Request, prepare
from harness.scoretable import (
    Row,
    row_of_clean,
    row_of_fault,
    row_of_mutant,
    row_of_rest,
    row_of_step,
    row_untried,
)  # fmt: skip
from harness.session import Progress
from harness.verdict import Verdict
from harness.workload import Step, injected_steps, misbehaviour_steps, steps_for

PATCHED = ("mutants", "rfc")
GROUPS = ("stub", "guest", "vmm", *PATCHED, "clean")
_RUN_TIMEOUT_S = 900.0
# What a kernel's image is made by; it raises HarnessError.
Builder = Callable[[Mutant], Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """The guest that faults are tried on, and where its runs go."""

    guest: Request
    runs: Path
    progress: Progress
    # patched kernels are judged by the guest's own trace alone, as on hardware
    by_trace: bool = False

    def run(self, request: Request, steps: Sequence[Step]) -> tuple[Evidence, Verdict]:
        """One guest from its boot to its verdict. Raises HarnessError."""
        plan = prepare(request, lambda _: None, scenario="mutate")
        run = carry_out(plan, steps, self.runs, self.progress)
        evidence = load(run)
        return evidence, judge(run, evidence=evidence)


def stub_faults(lab: Laboratory) -> Iterator[Row]:
    """Every fault of harness.faults, in one guest."""
    injections = faults.parse(faults.EVERY)
    steps = injected_steps(injections, cpus=lab.guest.smp)
    evidence, verdict = lab.run(replace(lab.guest, fault=faults.EVERY), steps)
    for one, score in scores_of(evidence, injections):
        yield row_of_fault(one.fault, score)
    yield row_of_rest("stub", verdict)


def guest_faults(lab: Laboratory) -> Iterator[Row]:
    """What the guest's test module does wrong on purpose, in one guest."""
    steps = steps_for(("faults",), cpus=lab.guest.smp)
    evidence, verdict = lab.run(lab.guest, steps)
    yield from _step_rows("guest", steps, evidence)
    yield row_of_rest("guest", verdict)


def vmm_behaviours(lab: Laboratory) -> Iterator[Row]:
    """Every way of the VMM to misbehave: in one guest, and in one each those that end it."""
    shown = vmm.parse(vmm.EVERY)
    steps = misbehaviour_steps(shown)
    evidence, verdict = lab.run(replace(lab.guest, vmm=vmm.EVERY), steps)
    yield from _step_rows("vmm", steps, evidence)
    yield row_of_rest("vmm", verdict)
    for behaviour in vmm.BEHAVIOURS.values():
        if behaviour.on is not None:
            yield _fatal_row(lab, behaviour)


def _fatal_row(lab: Laboratory, behaviour: vmm.Behaviour) -> Row:
    step = Step(
        name=f"vmm-{behaviour.name}",
        command=behaviour.command,
        expected_rules=behaviour.rules,
    )
    verdict = lab.run(replace(lab.guest, vmm=behaviour.name), [step])[1]
    return row_of_step("vmm", step.name, frozenset(behaviour.rules), verdict)


def _step_rows(group: str, steps: Sequence[Step], evidence: Evidence) -> Iterator[Row]:
    ended = {step.name: step for step in evidence.steps}
    for step in steps:
        if step.name not in ended:
            yield row_untried(group, step.name, frozenset(step.expected_rules), "it did not run")
            continue
        mark = ended[step.name].mark
        if mark is None:
            raise EvidenceError(f"step {step.name} has no marks")
        verdict = verdict_of_slice(evidence, mark)
        yield row_of_step(group, step.name, frozenset(step.expected_rules), verdict)


def patched_kernels(lab: Laboratory, mutants: Sequence[Mutant], build: Builder) -> Iterator[Row]:
    """Kernels with a patch each, built while the ones before them run."""
    at_once = guests_at_once(lab.guest.smp, lab.guest.memory_mib)

    def verdict_of(mutant: Mutant, image: Path) -> Verdict:
        asked = replace(lab.guest, kernel=str(image), vmm=mutant.vmm)
        if not lab.by_trace:
            return judge(in_child(asked, mutant.workloads, lab.runs, _RUN_TIMEOUT_S))
        traced = replace(asked, trace=True)
        run = in_child(traced, mutant.workloads, lab.runs, _RUN_TIMEOUT_S)
        return judge(run, evidence=load(run, by_trace=True), write=False)

    for mutant, verdict in pipelined(mutants, build, verdict_of, at_once):
        if isinstance(verdict, HarnessError):
            yield row_untried(mutant.group, mutant.name, mutant.trips, verdict.message)
        else:
            yield row_of_mutant(mutant, verdict)


def clean_kernels(lab: Laboratory, boots: int) -> Iterator[Row]:
    """Unchanged kernels on the guest's size, so many boots each; `clean` does all sizes."""
    size = (lab.guest.smp, lab.guest.memory_mib)
    rows = clean(KERNELS, (size,), boots, lab.runs, lab.progress)
    for cell in dict.fromkeys(row.cell for row in rows):
        yield row_of_clean(cell, [row for row in rows if row.cell == cell])


def builder(base: str, config: str, progress: Progress) -> Builder:
    """Builds mutants of a base; the words are those of `tdharness build`. Raises HarnessError."""
    source, configuration = base_of(base), config_of(config, base)

    def build_one(mutant: Mutant) -> Path:
        patches = (mutant.path,) if mutant.path else ()
        return build(source, patches, configuration, progress).image

    return build_one


def mutate(
    lab: Laboratory, groups: Sequence[str], patches: Path, config: str, boots: int
) -> Iterator[Row]:
    """The rows of these groups; `patches` is a folder of kernel-patches, clean kernels get `boots`.

    Raises HarnessError.
    """
    # What the user got wrong is said before anything runs.
    if lab.by_trace and set(groups) - set(PATCHED):
        raise ConfigError(
            "a guest's trace sees what its kernel does, and nothing that the stub or our module do",
            hint="--group mutants --group rfc",
        )
    base = base_named_in(patches)
    mutants = [m for group in PATCHED if group in groups for m in read_group(patches / group)]
    if "stub" in groups:
        yield from stub_faults(lab)
    if "guest" in groups:
        yield from guest_faults(lab)
    if "vmm" in groups:
        yield from vmm_behaviours(lab)
    if "clean" in groups:
        yield from clean_kernels(lab, boots)
    if mutants:
        unchanged = Mutant(
            path=None, group="clean", name=f"{base}, {config}", title="", trips=frozenset()
        )
        yield from patched_kernels(lab, (unchanged, *mutants), builder(base, config, lab.progress))

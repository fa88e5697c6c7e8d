"""`bench [OVERRIDES]`: plan, run every cell, print the tables; the last line is the sweep's directory."""

import os
import sys
from argparse import Namespace

from benchrunner.cli.cluster import DETACH, follow_and_report, require_cluster
from benchrunner.cli.command import JUNIT, Command, Example
from benchrunner.cli.overrides import MULTIRUN, OVERRIDES, plan_overrides
from benchrunner.cli.run_and_report import (
    BUDGET,
    EVENTS,
    FAIL_ON,
    NO_INFER,
    budget_s,
    events_file,
    fail_on,
    junit_file,
    run_and_report,
)


def run(arguments: Namespace) -> int:
    """Plan the overrides, run the plan in a new directory and print its tables."""
    from benchrunner.core import faults
    from benchrunner.core.paths import SweepPaths
    from benchrunner.launch.launchers import allocator_for
    from benchrunner.launch.local import LocalLauncher
    from benchrunner.run.options import RunOptions
    from benchrunner.store import plan_file

    faults.parse_faults(os.environ.get(faults.VARIABLE))
    junit = junit_file(arguments)
    options = RunOptions(
        budget_s=budget_s(arguments),
        infer=not arguments.no_infer,
        fail_on=fail_on(arguments),
        events=events_file(arguments),
    )
    made = plan_overrides(arguments, launch=True)
    require_cluster(made.settings.launcher.name, arguments)
    allocator = allocator_for(made.settings.launcher)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    paths = SweepPaths(plan_file.write_plan(made, made.settings.out_dir))
    if allocator is not None:
        return follow_and_report(made, paths, allocator, options, junit, detach=arguments.detach)
    launcher = LocalLauncher(preload=made.settings.launcher.preload)
    return run_and_report(made, paths, launcher, options, junit)


COMMAND = Command(
    run=run,
    is_answer=False,
    summary="run one cell (key=value …), a matrix (-m key=a,b …) or a sweep (+sweeps=NAME, FILE.yaml)",
    operands=OVERRIDES,
    flags=(MULTIRUN, BUDGET, NO_INFER, DETACH, FAIL_ON, JUNIT, EVENTS),
    examples=(
        Example(line="bench", meaning="the debug model, one training cell"),
        Example(line="bench model=llama2-7b strategy=fsdp seq_len=2048", meaning="one cell"),
        Example(
            line="bench -m strategy=fsdp,ddp precision=bf16,fp8",
            meaning="a matrix: every combination of the lists",
        ),
        Example(line="bench -m 'model=glob(llama2*)' micro_batch_size='range(1,5)'"),
        Example(
            line="bench +sweeps=smoke",
            meaning="a sweep from sweeps/; add overrides to narrow it: strategy=single",
        ),
    ),
)

"""Sweeps of scripted jobs on a virtual clock, through the real loop."""

import json
import os

from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.plan.plan import Plan
from benchrunner.run.options import RunOptions
from benchrunner.run.sweep import run_plan
from samples import CPU, make_cell, plan_cell

RESULT = {"step_times_s": [0.1] * 3, "tokens_per_step": 10, "num_parameters": 5, "num_trainable_parameters": 5}
OK = Script(result=RESULT)
ERROR = {"message": "boom", "type": "RuntimeError", "kind": "exception", "traceback": "", "at": 1.0}
OOM = Script(errors={0: ERROR | {"kind": "oom", "message": "CUDA out of memory"}}, exits={0: 1})
ENVIRONMENT = {"benchrunner": "0.1.0", "versions": {"torch": "2.13.0"}, "driver": None, "gpus": []}


def make_plan(cells, hardware=CPU):
    return Plan(cells=cells, hardware=hardware, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")


def cells(count, devices=1, **leaves):
    """So many cells of so many devices each, which differ in their seed."""
    kind = "single" if devices == 1 else "ddp"
    return [
        plan_cell(make_cell(strategy=kind, leaves={"seed": seed, "devices": devices} | leaves)) for seed in range(count)
    ]


def run(paths, planned, script=lambda job: OK, hardware=CPU, launcher=None, **options):
    """Run with a fake launcher; `script` is a Script, slug → Script, or a function of the job."""
    if isinstance(script, Script):
        launcher = launcher or FakeLauncher(lambda job: script)
    elif isinstance(script, dict):
        launcher = launcher or FakeLauncher(lambda job: script.get(job.cell.slug, OK))
    launcher = launcher or FakeLauncher(script)
    settings = {"environment": ENVIRONMENT, "clock": launcher.clock, "fault": None, "hardware": hardware} | options
    summary = run_plan(make_plan(planned, hardware), paths, launcher=launcher, options=RunOptions(**settings))
    return summary, launcher


def interrupted(at, signum):
    """A launcher in whose job number `at` a signal comes to this process."""

    def script(job):
        if len(launcher.handles) == at - 1:
            os.kill(os.getpid(), signum)
        return OK

    launcher = FakeLauncher(script)
    return launcher


def record(paths, planned):
    """What was written of a cell."""
    return json.loads(paths.cell(planned.cell.slug).record.read_text())


def spans(launcher):
    """When each job began and ended, and on which devices it was."""
    return [(handle.started_s, handle.ended_s, handle.job.devices) for handle in launcher.handles]

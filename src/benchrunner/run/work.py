"""One of several loops over a plan: the same loop, whose cells are those that it could claim."""

import filelock

from benchrunner.core.errors import SweepDirError
from benchrunner.core.faults import parse_faults
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.job import Launcher
from benchrunner.plan.plan import Plan
from benchrunner.run.options import RunOptions
from benchrunner.run.prepare import prepare
from benchrunner.run.sweep import Sweep
from benchrunner.store.runs import ExitSummary


def work_on(plan: Plan, paths: SweepPaths, *, launcher: Launcher, options: RunOptions) -> ExitSummary:
    """Take cells and run them until none is to be had. `options.share` says who this is. From the main thread.

    Raises:
        SweepDirError: the others have given up this worker, a bench runs the sweep alone, or it was measured on other
            machines or software.
        ConfigError: BENCH_FAULT is no fault.
    """
    parse_faults(options.fault)
    if plan.settings.launcher.name == "local":
        _require_nobody_alone(paths)
    sweep = Sweep(prepare(plan, paths, launcher, options), launcher, options)
    try:
        return sweep.run(plan)
    finally:
        launcher.close()


def _require_nobody_alone(paths: SweepPaths) -> None:
    """A bench of launcher=local claims no cell that it takes."""
    try:
        filelock.FileLock(paths.lock, timeout=0).acquire().lock.release()
    except filelock.Timeout as error:
        raise SweepDirError(
            f"{paths.root}: a bench runs this sweep alone; launcher=detached makes sweeps that others may help with"
        ) from error
    except OSError:  # nothing can be locked there; whoever cannot write finds out
        return

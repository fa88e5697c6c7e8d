"""`bench show DIR CELL --isolate`: runs the few cells that tell which values of a cell make it fail, and says which."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchrunner.cli.overrides import plan_overrides
from benchrunner.core.errors import ConfigError, UsageError
from benchrunner.core.paths import SweepPaths

if TYPE_CHECKING:
    from benchrunner.plan.plan import Plan
    from benchrunner.report.row import Row
    from benchrunner.run.isolate import Isolation, Values

ISOLATED = ("failed", "timeout", "invalid", "oom", "unsupported")
"""Statuses that say something about the cell."""

FOLDER = "isolate"
"""Of a sweep's directory: the cells that were run for this."""


class Asker:
    """Runs a cell, or remembers that the sweep has run it."""

    def __init__(self, paths: SweepPaths, rows: "Sequence[Row]", slug: str, settings: Sequence[str]) -> None:
        self._out_dir, self._name, self._settings = paths.root / FOLDER, slug[-6:], list(settings)
        self._known = {row.planned.cell.cell_id: _code(row) for row in rows if row.status in (*ISOLATED, "ok")}

    def __call__(self, words: Sequence[str]) -> str:
        """The reason code that the cell of these overrides ends with; `ok` where it has none."""
        try:
            made = plan_overrides(Namespace(overrides=[*words, *self._settings], multirun=False), launch=True)
        except ConfigError as error:
            return f"refused ({error})"
        planned = made.cells[0]
        if planned.cell.cell_id in self._known:
            return self._known[planned.cell.cell_id]
        if planned.verdict != "run":
            return str(planned.reason_code)
        print(f"trying {shlex.join(words)}", file=sys.stderr)
        return self._run(replace(made, sweep_name=self._name))

    def _run(self, made: "Plan") -> str:
        from benchrunner.launch.local import LocalLauncher
        from benchrunner.run.options import RunOptions
        from benchrunner.run.sweep import run_plan
        from benchrunner.store.plan_file import write_plan
        from benchrunner.store.records import read_record

        paths, planned = SweepPaths(write_plan(made, self._out_dir)), made.cells[0]
        launcher = LocalLauncher(preload=made.settings.launcher.preload)
        summary = run_plan(made, paths, launcher=launcher, options=RunOptions())
        if summary.interrupted_by is not None:
            raise UsageError("interrupted; the cells that were run are in " + str(self._out_dir))
        record, problem = read_record(paths.cell(planned.place).record, planned)
        return (record.reason_code or "ok") if record else problem or "no record"


def isolation_lines(row: "Row", rows: "Sequence[Row]", paths: SweepPaths) -> list[str]:
    """The smallest combination of the cell's values that still fails, and how that was found.

    The cell is run again first: the failure may be of another machine, have been mended, or have been a coincidence.

    Raises:
        UsageError: the cell did not fail, or somebody interrupted.
    """
    from benchrunner.run.isolate import differing, isolate, overrides_of, settings_of_the_run, values_of

    if row.status not in ISOLATED:
        raise UsageError(f"{row.planned.cell.slug} is {row.status}: there is no failure to isolate")
    cell = row.planned.cell
    failing = values_of(cell)
    working = [values_of(other.planned.cell) for other in rows if other.status == "ok"]
    nearest = sorted(working, key=lambda values: len(differing(failing, values)))[:1]
    settings = settings_of_the_run(cell)
    ask = Asker(paths, [other for other in rows if other is not row], cell.slug, settings)
    if (now := ask(overrides_of(failing))) != row.reason_code:
        return [f"run again here it is {now}, not {row.reason_code}: there is no failure to isolate"]
    return _lines(isolate(failing, [_usual(), *nearest], row.reason_code, ask), row.reason_code, settings)


def _usual() -> "Values":
    """What a bare `bench` means."""
    from benchrunner.run.isolate import values_of

    return values_of(plan_overrides(Namespace(overrides=[], multirun=False), launch=False).cells[0].cell)


def _lines(found: "Isolation", code: str, settings: Sequence[str]) -> list[str]:
    needed = shlex.join(found.needed) or "nothing: a bare bench ends so too"
    tried = [
        f"with {shlex.join(one.by) or f'the default of {one.replaced}'}: {'still ' * one.is_same}{one.code}"
        for one in found.trials
    ]
    return [f"{code} takes {needed}", *tried, shlex.join(["bench", *found.overrides, *settings])]


def _code(row: "Row") -> str:
    return "ok" if row.status == "ok" else row.reason_code

"""A sweep's directory → its tables and files, from plan and records alone: also half-finished, also several at once."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from benchrunner.core.environment import Environment
from benchrunner.core.files import write_text
from benchrunner.core.paths import SweepPaths
from benchrunner.machine import environment
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.report import csv_file, html, markdown
from benchrunner.report.content import Block, Tables, make_tables
from benchrunner.report.results import Row
from benchrunner.store.environment_file import read_environment
from benchrunner.store.plan_file import load_plan
from benchrunner.store.records import read_record
from benchrunner.store.runs import Run, read_runs, usage_line


@dataclass(frozen=True, slots=True)
class MeasuredSweep:
    """One sweep as read from disk."""

    paths: SweepPaths
    plan: Plan
    rows: list[Row]
    notes: list[str]
    environment: Environment = field(default_factory=Environment)
    runs: list[Run] = field(default_factory=list)

    @property
    def title(self) -> str:
        """`<sweep>/<stamp>`."""
        return f"{self.plan.sweep_name}/{self.paths.root.name}"


def write_report(sweeps: Sequence[SweepPaths], out: SweepPaths | None = None) -> Tables:
    """Rebuild every table and write the files.

    Args:
        sweeps: directories with a plan.json.
        out: where to; None: into the sweep itself, and for several into `<out_dir>/merged/<stamp>` of the first.

    Raises:
        SweepDirError: a directory that is no sweep.
    """
    tables, target = make_report(sweeps)
    write_tables(tables, out or target)
    return tables


def make_report(sweeps: Sequence[SweepPaths]) -> tuple[Tables, SweepPaths]:
    """Every table, and where its files belong.

    Raises:
        SweepDirError: a directory that is no sweep.
    """
    read = [read_sweep(paths) for paths in sweeps]
    return tables_of(read), sweeps[0] if len(read) == 1 else _merged_paths(read[0])


def tables_of(sweeps: Sequence[MeasuredSweep]) -> Tables:
    """The tables of one sweep, or of several merged."""
    rows, merge_notes = merge_rows([row for sweep in sweeps for row in sweep.rows])
    notes = [note for sweep in sweeps for note in sweep.notes]
    title = " + ".join(sweep.title for sweep in sweeps)
    return make_tables(title, rows, [*notes, *merge_notes], [_block(sweep) for sweep in sweeps])


def write_tables(tables: Tables, target: SweepPaths) -> None:
    """results.csv, results.md, compatibility.csv, compatibility.md and report.html, each atomically."""
    target.root.mkdir(parents=True, exist_ok=True)
    write_text(target.table("results", "csv"), csv_file.to_csv(tables.results))
    write_text(target.table("results", "md"), markdown.results_markdown(tables))
    write_text(target.table("compatibility", "csv"), csv_file.to_csv(tables.compatibility))
    write_text(target.table("compatibility", "md"), markdown.compatibility_markdown(tables))
    write_text(target.html, html.to_html(tables))


# --- reading -------------------------------------------------------------------------------------------------------


def read_sweep(paths: SweepPaths) -> MeasuredSweep:
    """A sweep with every record that can be read; what cannot is noted by name.

    Raises:
        SweepDirError: no plan, or a damaged one.
    """
    plan = load_plan(paths.root)
    notes: list[str] = _foreign(paths, plan)
    rows = [_read_row(paths, plan, planned, notes) for planned in plan.cells]
    runs, problem = read_runs(paths)
    notes += [problem] if problem else []
    found, problem = read_environment(paths)
    notes += [f"{paths.environment.name} is damaged: {problem}"] if problem else []
    return MeasuredSweep(paths, plan, rows, [*notes, *_run_notes(runs)], found or Environment(), runs)


def _run_notes(runs: Sequence[Run]) -> list[str]:
    """What the last run over the sweep had to say."""
    return [note for run in runs[-1:] for note in run.notes]


def _read_row(paths: SweepPaths, plan: Plan, planned: PlannedCell, notes: list[str]) -> Row:
    record, problem = read_record(paths.cell(planned.cell.slug).record, planned)
    if problem:
        notes.append(problem)
    return Row(
        planned=planned,
        record=record,
        sweep=f"{plan.sweep_name}/{paths.root.name}",
        hardware=plan.hardware.name,
        device_name=plan.hardware.device_name,
        torch=plan.hardware.torch,
        problem=problem,
    )


def _foreign(paths: SweepPaths, plan: Plan) -> list[str]:
    """Directories under cells/ that the plan does not know."""
    known = {planned.cell.slug for planned in plan.cells}
    places = (paths.root / "cells").iterdir() if (paths.root / "cells").is_dir() else []
    return [
        f"cells/{place.name} is not in the plan and was skipped" for place in sorted(places) if place.name not in known
    ]


# --- merging -------------------------------------------------------------------------------------------------------


def merge_rows(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """One row a cell, device and torch: the attempted one, and of several the latest; says how many were dropped.

    The same cell on another device or torch is another measurement and keeps its row.
    """
    best: dict[tuple[str, str, str | None], Row] = {}
    for row in rows:
        key = (row.planned.cell.cell_id, row.device_name, row.torch)
        if key not in best or _rank(row) >= _rank(best[key]):
            best[key] = row
    dropped = len(rows) - len(best)
    note = f"{dropped} rows of cells that stand in several sweeps were left out; the latest attempt is shown"
    return list(best.values()), [note] if dropped else []


def _rank(row: Row) -> tuple[bool, bool, str]:
    record = row.record
    return (bool(record and record.attempt), record is not None, (record.started_at if record else None) or "")


def _merged_paths(first: MeasuredSweep) -> SweepPaths:
    """Beside the first sweep, wherever that is now: no file says where to write."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    home = first.paths.root.resolve().parent
    return SweepPaths((home.parent if home.name == first.plan.sweep_name else home) / "merged" / stamp)


def _block(sweep: MeasuredSweep) -> Block:
    plan = sweep.plan
    command = shlex.join(["bench", *plan.arguments])
    machine = f"{plan.hardware.name} ({plan.hardware.device_name}); peaks: {plan.hardware.source or 'unknown'}"
    lines = [("Command", command), ("Hardware", machine)]
    lines += [("Use of the devices", line) for line in map(_use, sweep.runs) if line]
    known = environment.summary_lines(sweep.environment) if sweep.environment else [("Environment", "not recorded")]
    return Block(sweep.title, lines + known)


def _use(run: Run) -> str | None:
    return usage_line(run.busy_share, run.concurrency)

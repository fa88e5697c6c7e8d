"""A sweep's directory → its tables and files, from plan and records alone: also half-finished, also several at once."""

import os
import shlex
import signal
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
from benchrunner.report.expectations import judge_expectations
from benchrunner.report.published import layout_names, load_layout, published_tables
from benchrunner.report.row import Row
from benchrunner.store.environment_file import read_environment
from benchrunner.store.plan_file import load_plan
from benchrunner.store.records import read_record
from benchrunner.store.runs import Run, read_runs, usage_line

STOPPED_BY = {"brake": "the circuit breaker: cells failed alike", "disk": "the disk is full"}
"""What ended a run early → in words."""


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
        return f"{self.plan.sweep_name}/{self.paths.name}"

    @property
    def banner(self) -> str | None:
        """What is missing of the sweep, why, and what runs it; None when every cell has its verdict."""
        waiting = [row for row in self.rows if row.is_waiting]
        if not waiting:
            return None
        count = f"{len(waiting)} of {len(self.rows)} cells have no verdict"
        why = _why_waiting(self.runs[-1] if self.runs else None, {row.reason_code for row in waiting})
        return f"PARTIAL: {count}: {why}. To run them: bench resume {shlex.quote(str(self.paths.root))}"


def make_report(sweeps: Sequence[SweepPaths], layout: str | None = None) -> tuple[Tables, SweepPaths]:
    """Every table, and where its files belong.

    Args:
        sweeps: directories with a plan.json.
        layout: of the published tables to print first; None: of the tables that the sweep itself reproduces, if any.

    Raises:
        SweepDirError: a directory that is no sweep.
        ConfigError: no such layout.
    """
    read = [read_sweep(paths) for paths in sweeps]
    target = sweeps[0] if len(read) == 1 else _merged_paths(read[0])
    return tables_of(read, target, layout), target


def tables_of(sweeps: Sequence[MeasuredSweep], target: SweepPaths | None = None, layout: str | None = None) -> Tables:
    """The tables of one sweep, or of several merged, with links from where they are written (None: the first)."""
    rows, merge_notes = merge_rows([row for sweep in sweeps for row in sweep.rows])
    notes = [note for sweep in sweeps for note in sweep.notes]
    title = " + ".join(sweep.title for sweep in sweeps)
    banner = [f"{_of(sweep, sweeps)}{sweep.banner}" for sweep in sweeps if sweep.banner]
    hardware, named = sweeps[0].plan.hardware, layout or _own_layout(sweeps)
    return make_tables(
        title,
        rows,
        [*notes, *merge_notes],
        [_block(sweep) for sweep in sweeps],
        banner,
        _roots(sweeps, target or sweeps[0].paths),
        published_tables(load_layout(named), rows, hardware, _places(sweeps)) if named else (),
        judge_expectations(rows, hardware) if len({sweep.plan.sweep_name for sweep in sweeps}) == 1 else (),
    )


def _own_layout(sweeps: Sequence[MeasuredSweep]) -> str | None:
    """The layout that has the name of all these sweeps."""
    names = {sweep.plan.sweep_name for sweep in sweeps}
    return next(iter(names)) if len(names) == 1 and names <= set(layout_names()) else None


def _places(sweeps: Sequence[MeasuredSweep]) -> dict[str, str]:
    """Sweep → its directory, as commands are given it."""
    return {sweep.title: str(sweep.paths.root) for sweep in sweeps}


def _roots(sweeps: Sequence[MeasuredSweep], target: SweepPaths) -> dict[str, str]:
    places = {sweep.title: os.path.relpath(sweep.paths.root, target.root) for sweep in sweeps}
    return {title: "" if place == "." else f"{place}/" for title, place in places.items()}


def _of(sweep: MeasuredSweep, sweeps: Sequence[MeasuredSweep]) -> str:
    """Which of several sweeps a sentence is about."""
    return f"{sweep.title}: " if len(sweeps) > 1 else ""


def _why_waiting(last: Run | None, codes: set[str]) -> str:
    """Why cells of a sweep have no verdict, by what its last run left and what the cells say."""
    if last is not None and last.interrupted_by is not None:
        return f"the sweep was interrupted by {_signal_name(last.interrupted_by)}"
    if last is not None and last.stopped_by is not None:
        return f"the sweep was stopped early ({STOPPED_BY.get(last.stopped_by, last.stopped_by)})"
    if codes <= {"skipped.budget"}:
        return "they did not fit the budget"
    return "the sweep is still running, or bench was killed" if last is None else "they were not reached"


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


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
    notes: list[str] = [*plan.notes, *_foreign(paths, plan)]
    found, damage = read_environment(paths)
    commit = ((found or Environment()).get("git") or {}).get("commit")
    rows = [_read_row(paths, plan, planned, notes, commit) for planned in plan.cells]
    runs, problem = read_runs(paths)
    notes += [problem] if problem else []
    notes += [f"{paths.environment.name} is damaged: {damage}"] if damage else []
    return MeasuredSweep(paths, plan, rows, [*notes, *_run_notes(runs)], found or Environment(), runs)


def _run_notes(runs: Sequence[Run]) -> list[str]:
    """What the last run over the sweep had to say."""
    return [note for run in runs[-1:] for note in run.notes]


def _read_row(paths: SweepPaths, plan: Plan, planned: PlannedCell, notes: list[str], commit: str | None) -> Row:
    record, problem = read_record(paths.cell(planned.cell.slug).record, planned)
    if problem:
        notes.append(problem)
    return Row(
        planned=planned,
        record=record,
        sweep=f"{plan.sweep_name}/{paths.name}",
        hardware=plan.hardware.name,
        device_name=plan.hardware.device_name,
        torch=plan.hardware.torch,
        problem=problem,
        card=plan.cards.get(planned.cell.axes["model"]),
        commit=commit,
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

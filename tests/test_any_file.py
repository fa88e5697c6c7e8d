"""Files of any content, and valid files with something changed, through everything that reads them."""

import copy
import json
import os
import shutil
import tempfile
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchrunner.core.errors import DamagedFile, SweepDirError
from benchrunner.core.files import decode
from benchrunner.core.paths import SweepPaths
from benchrunner.core.rank_file import RankFile
from benchrunner.core.record import Record, record_to_dict
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.plan.plan import Plan
from benchrunner.report import csv_file, markdown, terminal
from benchrunner.report.write import read_sweep, tables_of
from benchrunner.run.sweep import RunOptions, run_plan
from benchrunner.store.plan_file import write_plan
from samples import CPU, make_cell, plan_cell

ONE, TWO = (plan_cell(make_cell(leaves={"seed": seed})) for seed in range(2))
PLAN = Plan(cells=[ONE, TWO], hardware=CPU, sweep_name="cli", arguments=["-m"], created_at="2026-11-21T03:00:00+00:00")
CHECK = {"ok": True, "expected": 5, "observed": "5", "note": "so"}
PEAKS = {"allocated_bytes": 1, "reserved_bytes": 2}
RESULT = {
    "workload": "train", "device": {"type": "cuda", "index": 0, "memory_bytes": 9}, "num_parameters": 5,
    "num_trainable_parameters": 5, "tokens_per_step": 10, "samples_per_step": 1,
    "flops": {"model_per_step": 8.0, "hardware_per_step": 9.0, "by_dtype": {"bf16": 8.0}},
    "step_times_s": [0.1, 0.2, 0.1], "memory": {"window": PEAKS, "run": PEAKS, "num_alloc_retries": 0},
    "compile": {"compile_s": 1.0, "num_graphs": 1, "first_step_s": 2.0}, "energy_j": 3.0,
    "utilization": {"mean": 90.0, "sd": 1.0}, "clock_event_reasons": ["hw_slowdown"], "foreign_processes": None,
    "losses": [2.0, 1.0], "metrics": {"decode_tokens_per_second": 7.5}, "checks": {"shape": CHECK, "parity": CHECK},
}  # fmt: skip
ENVIRONMENT = {
    "benchrunner": "0.1.0", "cpu": {"name": "x", "num_cores": 2}, "versions": {"torch": "2.13.0", "triton": None},
    "git": {"commit": "abc", "is_dirty": False}, "driver": "570.1", "driver_cuda": "12.8", "topology": [["self"]],
    "gpus": [{"name": "NVIDIA H200", "power_limit_w": 700.0}], "variables": {"OMP_NUM_THREADS": "1"},
}  # fmt: skip
ERROR = {"kind": "oom", "type": "OutOfMemoryError", "message": "no", "at": 1.0, "memory": {"free_bytes": 1}}
OLD = {"attempt": 1, "status": "failed", "reason_code": "failed.exit", "reason": "so"}

HUGE = st.sampled_from([10**400, -(10**19), 10**18, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan")])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | HUGE | st.text(max_size=5)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
THOROUGH = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def places(document, here=()):
    """The ways to every part of a document."""
    if not isinstance(document, dict | list):
        return
    for key, part in document.items() if isinstance(document, dict) else enumerate(document):
        yield (*here, key)
        yield from places(part, (*here, key))


@st.composite
def changed(draw, document):
    """The text of a document with one to three parts dropped or replaced."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        if not (known := list(places(document))):
            break
        *way, key = draw(st.sampled_from(known))
        parent = document
        for step in way:
            parent = parent[step]
        if draw(st.booleans()):
            del parent[key]
        else:
            parent[key] = draw(SCALARS | ANY_JSON)
    return json.dumps(document).encode()


@st.composite
def broken(draw, document):
    """The bytes of a document, cut off or with some turned over."""
    text = bytearray(json.dumps(document).encode())
    if draw(st.booleans()):
        return bytes(text[: draw(st.integers(0, len(text)))])
    for place in draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=4)):
        text[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(text)


def contents(document):
    """Anything that a file may hold in place of this document."""
    anything = ANY_JSON.map(lambda value: json.dumps(value).encode())
    return changed(document) | broken(document) | anything | st.binary(max_size=20)


# --- a finished sweep


def run(paths, script=None, **options):
    launcher = FakeLauncher(lambda job: script or Script(result=copy.deepcopy(RESULT)))
    chosen = {"environment": ENVIRONMENT, "clock": launcher.clock, "fault": None, "hardware": CPU} | options
    return run_plan(PLAN, paths, launcher=launcher, options=RunOptions(**chosen))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    paths = SweepPaths(write_plan(PLAN, tmp_path_factory.mktemp("finished")))
    run(paths)
    return paths


@contextmanager
def with_file(finished, name, text, gone=()):
    """A copy of the sweep with this in the file, and without those that are gone."""
    with tempfile.TemporaryDirectory() as place:
        paths = SweepPaths(shutil.copytree(finished.root, Path(place) / "sweep"))
        for path in gone:
            os.unlink(paths.root / path)
        (paths.root / name).write_bytes(text)
        yield paths


def cell_file(name):
    return f"cells/{ONE.cell.slug}/{name}"


def full_record(finished):
    record = json.loads((finished.root / cell_file("record.json")).read_text())
    record["ranks"][0]["error"] = ERROR
    record["evidence"] = {"rank": 0, "file": "rank0.json", "lines": ["x"], "check": CHECK}
    return record | {"earlier_attempts": [OLD], "flags": ["unstable"], "overrides": {"seed": 1, "x": {"y": [1.5]}}}


def documents(finished):
    return {
        cell_file("record.json"): full_record(finished),
        "environment.json": ENVIRONMENT,
        "runs.json": json.loads(finished.runs.read_text()),
    }


def report(paths):
    sweep = read_sweep(paths)
    tables = tables_of([sweep])
    csv_file.to_csv(tables.results)
    markdown.results_markdown(tables)
    with redirect_stdout(StringIO()):
        terminal.print_tables(tables)
    return sweep, tables


NAMES = ["record", "environment", "runs"]


@pytest.mark.parametrize("index", range(3), ids=NAMES)
@THOROUGH
@given(data=st.data())
def test_a_report_shows_the_rest(finished, index, data):
    name, document = list(documents(finished).items())[index]
    with with_file(finished, name, data.draw(contents(document))) as paths:
        sweep, _ = report(paths)
    assert sweep.rows[1].status == "ok" and sweep.rows[0].planned == ONE
    assert all(line.isprintable() and len(line) < 400 for line in sweep.notes if " is damaged" in line)


@pytest.mark.parametrize("index", range(3), ids=NAMES)
@THOROUGH
@given(data=st.data())
def test_a_resumed_sweep_runs_what_is_missing(finished, index, data):
    name, document = list(documents(finished).items())[index]
    gone = [f"cells/{TWO.cell.slug}/record.json"]
    with with_file(finished, name, data.draw(contents(document)), gone) as paths:
        summary = run(paths, resume=True, mix=True)
        assert sum(summary.counts.values()) == 2
        assert read_sweep(paths).rows[1].status == "ok"


@THOROUGH
@given(data=st.data())
def test_an_attempt_is_taken_over_or_made_again(finished, data):
    name = data.draw(st.sampled_from(["cell.json", "rank0.json", "exits0.json"]))
    document = json.loads((finished.root / cell_file(f"attempt-1/{name}")).read_text())
    text = data.draw(contents(document))
    with with_file(finished, cell_file(f"attempt-1/{name}"), text, [cell_file("record.json")]) as paths:
        run(paths, resume=True)
        sweep, _ = report(paths)
        assert sweep.rows[0].record is not None and sweep.rows[1].status == "ok"


class Writing(FakeLauncher):
    """A launcher whose first job leaves this rank file, and nothing else happens to it."""

    def __init__(self, text):
        super().__init__(
            lambda job: Script(hangs=True) if job.cell == ONE.cell else Script(result=copy.deepcopy(RESULT))
        )
        self.text = text

    def start(self, job):
        handle = super().start(job)
        if job.cell == ONE.cell:
            job.paths.rank(0).write_bytes(self.text)
        return handle


STATUSES = [
    asdict(RankFile(rank=0, pid=1, state="done", phase="teardown", phases_s={"start": 1.0}, result=RESULT)),
    asdict(RankFile(rank=0, pid=1, state="error", phase="measure", error={**ERROR, "traceback": "x"})),
]


@THOROUGH
@given(data=st.data())
def test_a_running_job_of_any_rank_file_ends_with_a_verdict(tmp_path_factory, data):
    launcher = Writing(data.draw(contents(data.draw(st.sampled_from(STATUSES)))))
    with tempfile.TemporaryDirectory() as place:
        paths = SweepPaths(write_plan(PLAN, place))
        options = RunOptions(environment=ENVIRONMENT, clock=launcher.clock, fault=None, hardware=CPU)
        summary = run_plan(PLAN, paths, launcher=launcher, options=options)
        assert sum(summary.counts.values()) == 2
        sweep, _ = report(paths)
        assert sweep.rows[0].record is not None and sweep.rows[1].status == "ok"


@THOROUGH
@given(data=st.data())
def test_a_plan_is_read_or_refused_in_one_line(finished, data):
    document = json.loads(finished.plan.read_text())
    with with_file(finished, "plan.json", data.draw(contents(document))) as paths:
        try:
            report(paths)
        except SweepDirError as error:
            assert "\n" not in str(error) and len(str(error)) < 500


# --- the types


@THOROUGH
@given(data=st.data())
def test_what_is_decoded_is_what_is_written(finished, data):
    text = data.draw(changed(full_record(finished)))
    try:
        record = decode(text, Record)
    except DamagedFile:
        return
    again = json.dumps(record_to_dict(record), allow_nan=False).encode()
    assert decode(again, Record) == record


def test_the_documents_that_are_changed_are_valid(finished):
    with with_file(finished, cell_file("record.json"), json.dumps(full_record(finished)).encode()) as paths:
        sweep, tables = report(paths)
    assert sweep.notes == [] and sweep.rows[0].record.evidence["check"] == CHECK
    assert list(tables.results["status"]) == ["ok", "ok"]

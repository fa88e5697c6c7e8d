"""Whatever is in the place of a sweep's file: one line names it, and the rest of the sweep goes on."""

import json
import re
import shutil

import pytest

from benchrunner.core.cell import unique_slug
from benchrunner.core.environment import Environment
from benchrunner.core.errors import SweepDirError
from benchrunner.core.files import write_json
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import FakeLauncher, Script
from benchrunner.outcome import evidence
from benchrunner.outcome.evidence import gather
from benchrunner.outcome.judge import judge
from benchrunner.plan.plan import Plan
from benchrunner.report import markdown
from benchrunner.report.write import read_sweep, tables_of
from benchrunner.run.sweep import RunOptions, run_plan
from benchrunner.store.plan_file import load_plan, write_plan
from damage import DAMAGES, damage, respect_permissions
from samples import CPU, make_cell, plan_cell

ONE, TWO = (plan_cell(make_cell(leaves={"seed": seed})) for seed in range(2))
PLAN = Plan(cells=[ONE, TWO], hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")
RESULT = {"step_times_s": [0.1] * 3, "tokens_per_step": 10, "num_parameters": 5, "num_trainable_parameters": 5}
ENVIRONMENT: Environment = {"benchrunner": "0.1.0", "versions": {"torch": "2.13.0"}, "driver": None, "gpus": []}
RECORD = f"cells/{ONE.cell.slug}/record.json"
JOB = f"cells/{ONE.cell.slug}/attempt-1/cell.json"


class Damaging(FakeLauncher):
    """A launcher whose jobs leave something in the place of a file of the first cell."""

    def __init__(self, script, put):
        super().__init__(lambda job: script if job.cell == ONE.cell else Script(result=RESULT))
        self.put = put

    def start(self, job):
        handle = super().start(job)
        if job.cell == ONE.cell:
            self.put(job.paths)
        return handle


def run(paths, launcher=None, **options):
    launcher = launcher or FakeLauncher(lambda job: Script(result=RESULT))
    settings = {"environment": ENVIRONMENT, "clock": launcher.clock, "fault": None, "hardware": CPU} | options
    return run_plan(PLAN, paths, launcher=launcher, options=RunOptions(**settings))


def statuses(sweep):
    return [row.status for row in sweep.rows]


def the_line(lines, name):
    """The only line that names a file."""
    (line,) = [line for line in lines if name in line]
    assert len(line) < 400 and line.isprintable(), line
    return line


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    paths = SweepPaths(write_plan(PLAN, tmp_path_factory.mktemp("finished")))
    run(paths)
    return paths


@pytest.fixture
def paths(finished, tmp_path, monkeypatch):
    respect_permissions(monkeypatch)
    return SweepPaths(shutil.copytree(finished.root, tmp_path / "sweep"))


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("file", [RECORD, "environment.json", "runs.json"])
def test_a_report_names_it_and_shows_the_rest(paths, file, name):
    if (file, name) == ("environment.json", "no keys"):
        pytest.skip("an environment of which nothing is known")
    damage(paths.root / file, name)
    sweep = read_sweep(paths)
    line = the_line(sweep.notes, file)
    assert line.startswith(f"{file} is damaged") and re.search(DAMAGES[name][1], line)
    assert statuses(sweep) == ["skipped" if file == RECORD else "ok", "ok"]
    assert file in markdown.results_markdown(tables_of([sweep]))


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("file", [RECORD, "environment.json", "runs.json", JOB])
def test_a_resumed_sweep_names_it_and_goes_on(paths, capsys, file, name):
    if (file, name) == ("environment.json", "no keys"):
        pytest.skip("an environment of which nothing is known")
    paths.cell(TWO.cell.slug).record.unlink()
    if file == JOB:
        paths.cell(ONE.cell.slug).record.unlink()
    damage(paths.root / file, name)
    summary = run(paths, resume=True)
    line = the_line(summary.notes, file)
    assert line.startswith(f"{file} ") and re.search(DAMAGES[name][1], line)
    assert the_line(capsys.readouterr().err.splitlines(), f"{file} is damaged" if name != "directory" else file)
    assert statuses(read_sweep(paths)) == ["skipped" if (file, name) == (RECORD, "directory") else "ok", "ok"]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_plan_is_one_error(paths, name):
    damage(paths.plan, name)
    with pytest.raises(SweepDirError) as caught:
        load_plan(paths.root)
    assert the_line([str(caught.value)], str(paths.plan)) and re.search(DAMAGES[name][1], str(caught.value))


def edited(path, way, value):
    """The document with another value in a place of it."""
    document = json.loads(path.read_text())
    part = document
    for key in way[:-1]:
        part = part[key]
    part[way[-1]] = value(part[way[-1]]) if callable(value) else value
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("way", "value", "said"),
    [
        (("cells", 0, "slug"), "../../x", "no slug"),
        (("cells", 0, "slug"), "..", "'..' is no slug|slug is .."),
        (("cells", 0, "slug"), TWO.cell.slug, "slug"),
        (("cells", 0, "cell_id"), "0123456789ab", "cell_id is 0123456789ab"),
        (("cells", 0, "config_digest"), "0123456789ab", "config_digest is 0123456789ab"),
        (("common", "seq_len"), 64, "config_digest"),
        (("sections", "model", 0, "num_layers"), 1, "config_digest"),
        (("sections", "measure", 0, "steps"), 1, "config_digest"),
        (("cells", 0, "scalars", "seed"), 7, "config_digest|sizes"),
        (("cells", 0, "overrides", "seed"), 7, "cell_id"),
        (("cells", 0, "sizes", 3), 64, "cells.0: its sizes is"),
        (("cells", 1), lambda entry: {**entry, "slug": ONE.cell.slug}, "cells.1: its slug is"),
        (("cells",), lambda cells: [cells[0], cells[0]], "slug|there twice"),
    ],
)
def test_an_edited_plan_is_one_error(paths, way, value, said):
    edited(paths.plan, way, value)
    with pytest.raises(SweepDirError) as caught:
        load_plan(paths.root)
    assert re.search(said, the_line([str(caught.value)], str(paths.plan)))


def test_a_cell_that_is_there_twice_is_named(paths):
    """Also under the longer name that it would have beside another one of its own."""
    slug = unique_slug(ONE.cell.axes, ONE.cell.overrides, ONE.cell.cell_id, {ONE.cell.slug})
    edited(paths.plan, ("cells",), lambda cells: [cells[0], *[{**cells[0], "slug": slug}] * 2])
    with pytest.raises(SweepDirError, match=r"cells\.2: the cell is there twice"):
        load_plan(paths.root)


def test_what_only_concerns_the_run_may_be_edited(paths):
    edited(paths.plan, ("common", "timeout_s"), 77.0)
    assert load_plan(paths.root).cells[0].cell.config.timeout_s == 77.0


def test_a_record_of_another_configuration_is_no_measurement_of_this_one(paths):
    edited(paths.root / RECORD, ("config_digest",), "0123456789ab")
    sweep = read_sweep(paths)
    assert statuses(sweep) == ["skipped", "ok"]
    assert "another configuration (0123456789ab)" in the_line(sweep.notes, RECORD)


@pytest.mark.parametrize("key", ["cell_id", "config_digest"])
def test_an_attempt_at_another_cell_is_not_taken_over(paths, key):
    (paths.root / RECORD).unlink()
    edited(paths.root / JOB, ("cell", key), "0123456789ab")
    summary = run(paths, resume=True)
    assert f"its cell's {key} is 0123456789ab" in the_line(summary.notes, JOB)
    assert [path.name for path in sorted(paths.cell(ONE.cell.slug).root.glob("attempt-*"))] == [
        "attempt-1",
        "attempt-2",
    ]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_rank_file_of_a_running_job_is_named_and_the_others_go_on(paths, monkeypatch, name):
    if name == "1 GB":  # which takes seconds to be searched for this host's name
        monkeypatch.setattr(evidence, "scrub_files", list)
    launcher = Damaging(Script(hangs=True), lambda attempt: damage(attempt.rank(0), name))
    for planned in (ONE, TWO):
        paths.cell(planned.cell.slug).record.unlink()
        shutil.rmtree(paths.cell(planned.cell.slug).attempt(1).root)
    summary = run(paths, launcher)
    assert summary.counts == {"failed": 1, "ok": 1}
    assert launcher.clock.now() < 60, "the watcher saw it, and did not wait for a limit"
    sweep = read_sweep(paths)
    assert sweep.rows[0].reason_code == "failed.garbage"
    line = the_line([sweep.rows[0].reason], "rank 0 left a status file that cannot be read")
    assert re.search(DAMAGES[name][1], line)


@pytest.mark.parametrize("name", DAMAGES)
def test_exit_codes_that_cannot_be_read_are_named_in_the_verdict(paths, name):
    attempt = paths.cell(ONE.cell.slug).attempt(1)
    attempt.rank(0).unlink()
    write_json(attempt.exits(), {"exits": [{"rank": 0, "code": -9}]})
    assert judge(gather(attempt, 1, code=1)).reason_code == "failed.signal"
    damage(attempt.exits(), name)
    verdict = judge(gather(attempt, 1, code=1))
    assert verdict.reason_code == "failed.launch"
    assert re.search(DAMAGES[name][1], the_line([verdict.reason], "exits0.json is damaged"))

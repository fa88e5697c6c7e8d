"""`repeats=N`: each cell in N processes, spread over the sweep, none of a cell that does not work."""

from dataclasses import replace

import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import place_of
from benchrunner.launch.fake import FakeLauncher
from benchrunner.run.repeats import Repeats
from benchrunner.run.resume import Selection
from benchrunner.store.records import read_records
from benchrunner.store.runs import read_runs
from fake_sweeps import ENVIRONMENT, ERROR, OK, OOM, Script, cells, make_plan, run
from samples import H200, make_record

BOOM = Script(errors={0: ERROR}, exits={0: 1})


def repeated(count, repeats=3, **leaves):
    return cells(count, repeats=repeats, brake=None, **leaves)


def places(launcher):
    """Which process of which cell each job was, in order."""
    return [
        handle.job.paths.root.parent.relative_to(handle.job.paths.root.parents[-1]).name for handle in launcher.handles
    ]


def numbers(launcher):
    """The number of each job's process, in order."""
    named = places(launcher)
    return [int(name.removeprefix("repeat-")) if name.startswith("repeat-") else 1 for name in named]


def records(paths, planned, repeats=3):
    return read_records(make_plan(planned).processes(repeats), paths)[0]


def test_rounds_follow_one_another(paths):
    planned = repeated(2)
    summary, launcher = run(paths, planned)
    assert numbers(launcher) == [1, 1, 2, 2, 3, 3]
    assert (summary.exit_code, summary.counts) == (0, {"ok": 2})
    assert [one.repeat for one in records(paths, planned).values()] == [1, 1, 2, 2, 3, 3]


def test_rounds_follow_one_another_under_a_budget_and_with_cells_of_different_sizes(paths):
    planned = [*cells(1, devices=3, repeats=2), *cells(1, devices=4, repeats=2)]
    _, launcher = run(paths, planned, hardware=H200, budget_s=1e6)
    assert numbers(launcher) == [1, 1, 2, 2]
    _, launcher = run(type(paths)(paths.root / "other"), planned, hardware=H200)
    assert [
        (n, handle.job.cell.sizes.devices) for n, handle in zip(numbers(launcher), launcher.handles, strict=True)
    ] == [
        (1, 4),
        (1, 3),
        (2, 4),
        (2, 3),
    ]


def test_a_cell_without_repeats_is_where_it_always_was(paths):
    planned = repeated(1)
    run(paths, planned)
    slug = planned[0].cell.slug
    assert (paths.root / "cells" / slug / "attempt-1").is_dir()
    assert (paths.root / "cells" / slug / "repeat-3" / "attempt-1").is_dir()
    assert (place_of(slug, 1), paths.processes(slug)) == (slug, [1, 2, 3])


@pytest.mark.parametrize("script", [OOM, BOOM])
def test_a_cell_that_is_not_ok_is_not_repeated(paths, script):
    planned = repeated(2)
    summary, launcher = run(paths, planned, {planned[0].cell.slug: script})
    assert numbers(launcher) == [1, 1, 2, 3]
    assert sum(summary.counts.values()) == 2
    assert set(records(paths, planned)) == {planned[0].place, *(place_of(planned[1].cell.slug, n) for n in (1, 2, 3))}


def test_a_later_process_that_fails_is_the_cells_verdict_and_is_said(paths):
    planned = repeated(1)
    summary, launcher = run(paths, planned, lambda job: BOOM if "repeat-2" in str(job.paths.root) else OK)
    assert numbers(launcher) == [1, 2, 3]
    assert (summary.exit_code, summary.counts) == (2, {"failed": 1})
    assert f"process 2 of {planned[0].cell.slug}: failed.exception" in read_runs(paths)[0][-1].notes[0]


def test_a_resumed_sweep_runs_the_processes_that_are_missing(paths):
    planned = repeated(2)
    run(paths, planned)
    paths.cell(place_of(planned[1].cell.slug, 2)).record.unlink()
    for file in paths.cell(place_of(planned[1].cell.slug, 2)).attempt(1).root.iterdir():
        file.unlink()
    _, launcher = run(paths, planned, resume=True)
    assert [(numbers(launcher), launcher.handles[0].job.cell.slug)] == [([2], planned[1].cell.slug)]


def test_more_processes_of_some_cells_can_be_asked_for(paths):
    planned = repeated(2, repeats=1)
    run(paths, planned)
    chosen = Selection(cells=(planned[1].cell.cell_id,))
    _, launcher = run(paths, planned, resume=True, repeats=3, selection=chosen)
    assert numbers(launcher) == [2, 3]
    assert {handle.job.cell.slug for handle in launcher.handles} == {planned[1].cell.slug}
    assert len(records(paths, planned)) == 4


def test_further_processes_are_of_the_same_commit(paths):
    planned = repeated(1, repeats=1)
    run(paths, planned, environment=ENVIRONMENT | {"git": {"commit": "abc"}})
    other = ENVIRONMENT | {"git": {"commit": "def"}}
    with pytest.raises(SweepDirError, match="commit abc, here def"):
        run(paths, planned, resume=True, repeats=2, environment=other)
    run(paths, planned, resume=True, environment=other)


def test_what_was_not_started_leaves_nothing(paths):
    planned = repeated(1)
    launcher = FakeLauncher(lambda job: replace(OK, duration_s=100.0))
    run(paths, planned, launcher=launcher, budget_s=1.0)
    assert list((paths.root / "cells").glob("*/repeat-*")) == []


def test_the_first_process_decides_whether_there_are_others():
    (first,) = repeated(1)
    second = replace(first, repeat=2)
    failed, ok = make_record(first.cell, "failed", "failed.exit", "no"), make_record(first.cell)
    repeats = Repeats([failed])
    refused = repeats.refusal(second, 0.0)
    assert (refused.status, refused.reason_code) == ("skipped", "skipped.not_repeated")
    assert refused.reason == "its first process was not ok" and repeats.refusal(first, 0.0) is None
    repeats.learn(first, ok)
    assert repeats.refusal(second, 0.0) is None
    repeats.learn(second, replace(failed, repeat=2))
    assert repeats.refusal(second, 0.0) is None is Repeats([ok, replace(failed, repeat=2)]).refusal(second, 0.0)
    repeats.learn(first, failed)
    assert repeats.refusal(second, 0.0) is not None

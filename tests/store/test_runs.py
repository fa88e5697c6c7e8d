import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.store.runs import ExitSummary, Run, add_run, read_runs, usage_line


def test_every_run_is_kept_with_what_is_known_of_it(tmp_path):
    paths = SweepPaths(tmp_path)
    assert read_runs(paths) == ([], None)
    add_run(paths, ExitSummary(counts={"ok": 1}, num_attempted=1), "first")
    more = {"interrupted_by": 2, "busy_share": 0.5, "concurrency": 1.5, "stopped_by": "disk"}
    add_run(paths, ExitSummary(counts={"oom": 2}, num_attempted=3, notes=("odd",), **more), "second")
    last = Run(started_at="second", counts={"oom": 2}, num_attempted=3, notes=["odd"], **more)
    assert read_runs(paths) == ([Run(started_at="first", counts={"ok": 1}, num_attempted=1), last], None)


def test_a_damaged_file_is_skipped_and_named(tmp_path):
    paths = SweepPaths(tmp_path)
    paths.runs.write_text("{")
    runs, problem = read_runs(paths)
    assert runs == [] and problem.startswith("runs.json is damaged and was skipped: ")


@pytest.mark.parametrize(
    ("summary", "code"),
    [
        ({"counts": {"ok": 1, "oom": 1}}, 0),
        ({"counts": {"ok": 1, "failed": 1}}, 2),
        ({"counts": {"ok": 1, "timeout": 1}}, 2),
        ({"counts": {"ok": 1, "invalid": 1}}, 2),
        ({"counts": {"ok": 1}, "stopped_by": "brake"}, 2),
        ({"counts": {"ok": 1}, "unwanted": ["oom"]}, 2),
        ({"counts": {"oom": 1}}, 4),
        ({"counts": {"oom": 1}, "num_predicted": 1}, 0),
        ({"counts": {"failed": 1}, "interrupted_by": 15}, 143),
    ],
)
def test_the_exit_code_of_a_run(summary, code):
    assert ExitSummary(num_attempted=1, **summary).exit_code == code


def test_how_much_devices_were_at_work():
    assert usage_line(None, 3.0) is None
    assert usage_line(0.973, None) == "devices at work 97.3% of the time while cells waited"
    assert usage_line(0.5, 3.84) == "devices at work 50.0% of the time while cells waited; 3.8 cells at once on average"

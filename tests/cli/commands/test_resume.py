import re

import pytest

from benchrunner.cli.commands import resume
from benchrunner.run.resume import Selection
from benchrunner.store.plan_file import write_plan
from fake_sweeps import cells, make_plan


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resume"], "resume needs the directory"),
        (["resume", ".", "."], "resume needs the directory of one sweep"),
        (["resume", "nowhere"], "nowhere: no such directory"),
        (["resume", "."], "not a sweep"),
    ],
)
def test_what_is_no_sweep_is_refused(refused, words, message):
    refused(words, message)


def test_a_sweep_with_nothing_left_ends_as_before(bench, sweep):
    assert bench("resume", sweep)[0] == 4
    assert bench("--only", "skipped", "resume", sweep, "--cells=*ddp*")[0] == 4


def test_a_selection_of_nothing_is_refused(bench, sweep):
    code, _, err, _ = bench("resume", sweep, "--cells", "nothing*")
    assert (code, "no cell's name or id matches 'nothing*'" in err) == (1, True)
    code, _, err, _ = bench("resume", sweep, "--only", "failed,tmeout")
    assert (code, "did you mean timeout?" in err) == (1, True)


def test_a_sweep_of_this_machine_ends_with_the_command(bench, sweep):
    code, out, err, _ = bench("resume", sweep, "--detach")
    assert (code, out) == (1, "") and err.startswith("bench: --detach: cells of launcher=local end with bench; ")


def test_what_is_left_of_a_clusters_sweep_is_followed(bench, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(resume, "follow_and_report", lambda *given, **more: calls.append((*given, more)) or 7)
    place = write_plan(make_plan(cells(2, **{"launcher.name": "detached"})), tmp_path / "outputs")
    assert bench("resume", str(place), "--detach", "--junit", "j", "timeout_s=60")[0] == 7
    [(made, paths, allocator, options, junit, more)] = calls
    assert (made.cells[0].cell.config.timeout_s, paths.root, type(allocator).__name__) == (
        60.0,
        place,
        "LocalAllocator",
    )
    assert (options.resume, options.overrides, junit, more) == (True, ("timeout_s=60",), "j", {"detach": True})


def test_a_sweep_that_was_planned_without_preloading_stays_without(bench, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(resume, "run_and_report", lambda *given: calls.append(given) or 7)
    place = write_plan(make_plan(cells(2, **{"launcher.preload": False})), tmp_path / "outputs")
    assert bench("resume", str(place))[0] == 7 and not calls[0][2]._preloads


def test_settings_of_the_run_may_be_others_this_time(bench, sweep):
    assert bench("resume", sweep, "timeout_s=60", "brake=null", "limits.build_s=90", "launcher.partition=long")[0] == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seq_len=64", "seq_len: is frozen in the plan; a resume may change timeout_s"),
        ("timeout_s=-1", "timeout_s: -1.0 is not allowed"),
        ("timeout_s=1,2", "timeout_s: 2 values make a matrix|timeout_s: does not tell cells apart"),
        ("timeouts=1", "timeouts: no such key"),
        ("precision=bf16", "precision: is frozen in the plan"),
    ],
)
def test_other_overrides_are_refused(bench, sweep, override, message):
    before = bench("report", sweep)[3]
    code, out, err, files = bench("resume", sweep, override)
    assert (code, out, files) == (1, "", before) and re.match(f"bench: ({message})", err)


def test_a_resume_does_what_its_flags_say(bench, sweep, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(resume, "run_and_report", lambda *given: calls.append(given) or 7)
    flags = ["--budget", "45m", "--no-infer", "--fail-on", "oom", "--events", "e", "--repeats", "3", "--mix"]
    assert (
        bench("resume", sweep, *flags, "--junit", "j", "--only", "failed", "timeout_s=60", "--cells", "*ddp*,,*")[0]
        == 7
    )
    [(made, paths, launcher, options, junit)] = calls
    assert (made.cells[0].cell.config.timeout_s, str(paths.root), junit) == (60.0, sweep, "j") and launcher._preloads
    assert options.resume and options.mix and not options.infer and options.budget_s == 2700.0
    assert (options.fail_on, str(options.events), options.repeats) == (("oom",), "e", 3)
    assert options.overrides == ("timeout_s=60",)
    assert (options.selection.statuses, options.selection.cells) == ({"failed"}, ("*ddp*", "*"))
    bench("resume", sweep)
    options = calls[1][3]
    assert options.resume and options.infer and not options.mix and options.selection == Selection()
    assert (options.budget_s, options.fail_on, options.events, options.repeats, options.overrides) == (
        None, (), None, None, ()
    )  # fmt: skip

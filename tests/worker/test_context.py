import json
from datetime import timedelta

import torch

from benchrunner.launch import local
from benchrunner.run import watch
from benchrunner.worker.context import Context
from samples import make_cell


def make_context(tmp_path, leaves=None, **more):
    return Context(
        cell=make_cell(leaves=leaves),
        hardware={"device_type": "cpu"},
        path=tmp_path / "rank0.json",
        **more,
    )


def read(context):
    return json.loads(context.path.read_text())


def test_phases_are_timed_and_written_as_they_change(tmp_path):
    context = make_context(tmp_path)
    context.phase("build")
    assert (read(context)["phase"], list(read(context)["phases_s"])) == ("build", ["start"])
    context.phase("measure")
    context.finish()
    last = read(context)
    assert (last["state"], last["phase"]) == ("done", "measure")
    assert list(last["phases_s"]) == ["start", "build", "measure"]


def test_the_same_phase_again_changes_nothing(tmp_path):
    context = make_context(tmp_path)
    context.phase("build")
    before = read(context)
    context.phase("build")
    assert read(context) == before


def test_a_phase_entered_twice_adds_up(tmp_path):
    context = make_context(tmp_path)
    for name in ("measure", "check", "measure", "teardown"):
        context.phase(name)
    assert list(read(context)["phases_s"]) == ["start", "measure", "check"]


def test_alone_there_is_nobody_to_join(tmp_path):
    context = make_context(tmp_path)
    context.init_process_group()
    assert not torch.distributed.is_initialized()
    context.destroy_process_group()


def test_phases_are_heard_of_once_the_file_shows_them(tmp_path):
    context, heard = make_context(tmp_path), []
    context.on_phase.append(lambda phase: heard.append((phase, read(context)["phase"])))
    for name in ("build", "build", "measure"):
        context.phase(name)
    assert heard == [("build", "build"), ("measure", "measure")]


def test_the_runner_ends_an_overdue_job_before_a_collective_gives_up(tmp_path, monkeypatch):
    joined = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda **options: joined.append(options))
    make_context(tmp_path, leaves={"timeout_s": 30.0}, world_size=2).init_process_group()
    ending_s = watch.LOOK_INTERVAL_S + watch.DUMP_DELAY_S + local.GRACE_S
    assert [options["timeout"] > timedelta(seconds=30.0 + ending_s) for options in joined] == [True]

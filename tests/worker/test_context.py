import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch

from benchrunner.core import faults as names
from benchrunner.core.faults import parse_fault
from benchrunner.launch import local
from benchrunner.run import watch
from benchrunner.worker.context import Context
from benchrunner.worker.faults import deaths
from samples import make_cell


def make_context(tmp_path, fault=None, leaves=None, **more):
    return Context(
        cell=make_cell(leaves=leaves),
        hardware={"device_type": "cpu"},
        path=tmp_path / "rank0.json",
        fault=parse_fault(fault),
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
    context = make_context(tmp_path, "exception:measure")
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


def test_the_runner_ends_an_overdue_job_before_a_collective_gives_up(tmp_path, monkeypatch):
    joined = []
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda **options: joined.append(options))
    make_context(tmp_path, leaves={"timeout_s": 30.0}, world_size=2).init_process_group()
    ending_s = watch.LOOK_S + watch.DUMP_S + local.GRACE_S
    assert [options["timeout"] > timedelta(seconds=30.0 + ending_s) for options in joined] == [True]


@pytest.mark.parametrize(
    ("fault", "error"),
    [("exception", RuntimeError), ("oom_host", RuntimeError), ("missing", ModuleNotFoundError)],
)
def test_a_fault_strikes_on_entering_its_phase(tmp_path, fault, error):
    context = make_context(tmp_path, f"{fault}@0:measure")
    context.phase("build")
    with pytest.raises(error):
        context.phase("measure")
    assert read(context)["phase"] == "measure"


def test_a_fault_in_the_first_phase(tmp_path):
    with pytest.raises(RuntimeError):
        make_context(tmp_path, "exception:start")


def test_a_fault_of_another_rank_does_not_strike(tmp_path):
    make_context(tmp_path, "exception@1").phase("build")


def test_lies_are_asked_for(tmp_path):
    context = make_context(tmp_path, "no_reduce@0")
    assert context.fault_is("no_reduce") and not context.fault_is("no_shard")
    assert not make_context(tmp_path, "no_reduce@1").fault_is("no_reduce")
    assert not make_context(tmp_path).fault_is("no_reduce")


def test_the_environment_is_printed_whole(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MARK_OF_THIS_TEST", "yes")
    make_context(tmp_path, "print_env").phase("build")
    assert "MARK_OF_THIS_TEST=yes" in capsys.readouterr().out


def test_every_death_has_an_act():
    assert set(deaths.ACTS) == set(names.DEATHS)


def test_the_list_of_faults_needs_no_torch():
    code = "import sys, benchrunner.core.faults; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0

"""Real jobs of two ranks with planted faults, through the whole way from launch to record, by torchrun."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import asdict

import pytest

from benchrunner.core.faults import parse_fault
from benchrunner.core.paths import AttemptPaths, SweepPaths
from benchrunner.launch import local, processes
from benchrunner.launch.job import Job
from benchrunner.outcome.judge import judge
from benchrunner.plan.plan import Plan
from benchrunner.run.log_cleaner import clean_logs
from benchrunner.run.options import RunOptions
from benchrunner.run.sweep import run_plan
from benchrunner.run.watch import Running
from benchrunner.store.plan_file import write_plan
from benchrunner.worker.agent import torchrun_words
from samples import CPU, make_cell, plan_cell

ENVIRONMENT = {"benchrunner": "0.1.0", "versions": {}, "driver": None, "gpus": []}


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def cell():
    leaves = {"seq_len": 16, "measure.steps": 2, "measure.warmup_steps": 1, "timeout_s": 600.0}
    shape = {"model.num_layers": 1, "model.d_model": 32, "model.d_ff": 64, "model.vocab_size": 64}
    return plan_cell(make_cell(strategy="ddp", leaves=leaves | shape))


def run_job(tmp_path, fault=None, hangs_in=None, *, preload=False):
    """One attempt from launch to verdict; the job, its evidence and its outcome.

    `hangs_in`: its time is over two seconds after both ranks have come to this phase, however slow the machine.
    """
    planned = cell()
    job = Job(
        cell=planned.cell,
        paths=AttemptPaths(tmp_path / "attempt-1"),
        devices=(),
        marker=uuid.uuid4().hex,
        hardware=asdict(CPU),
        fault=parse_fault(fault),
    )
    launcher = local.LocalLauncher(preload=preload)
    handle = launcher.start(job)
    run = Running(planned=planned, job=job, handle=handle, places=(), started_s=time.monotonic())
    while (code := run.step(time.monotonic())) is None:
        time.sleep(0.05)
        if hangs_in is not None and are_in(job.paths, hangs_in):
            time.sleep(2)
            run.started_s -= planned.cell.config.timeout_s
            hangs_in = None
    assert processes.marked_pids(job.marker) == []
    launcher.close()
    evidence = run.evidence(code)
    return job, evidence, judge(evidence)


def are_in(attempt, phase):
    texts = [path.read_text() for path in attempt.root.glob("rank*.json")]
    return [json.loads(text)["phase"] for text in texts] == [phase] * 2


@pytest.mark.slow
def test_a_job_without_a_fault(tmp_path):
    _, evidence, outcome = run_job(tmp_path)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert evidence.code == 0 and evidence.exits == {}
    assert evidence.ranks[1].result["step_times_s"]
    assert list(evidence.ranks[0].phases_s)[:3] == ["start", "build", "compile"]


@pytest.mark.slow
def test_forked_ranks_compute_what_started_ones_do(tmp_path):
    runs = [run_job(tmp_path / str(preload), preload=preload)[1] for preload in (False, True)]
    started, forked = ([evidence.ranks[rank].result for rank in (0, 1)] for evidence in runs)
    for one, other in zip(started, forked, strict=True):
        assert one["losses"] == other["losses"]
        assert one["checks"].keys() == other["checks"].keys()


EXCEPTION = "exception@0", "failed.exception", "rank 0, in phase build, raised RuntimeError: planted fault"
OOM = "oom@1:warmup", "oom.device", "rank 1, in phase warmup, ran out of device memory when it asked for 1.00 TiB"
SIGKILL = "sigkill@1", "failed.signal", "rank 1, in phase build, was killed by SIGKILL"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        pytest.param(*EXCEPTION, marks=pytest.mark.slow),
        pytest.param(*OOM, marks=pytest.mark.slow),
        pytest.param(*SIGKILL, marks=pytest.mark.slow),
        ("exit@1", "failed.exit", "rank 1, in phase build, exited with code 7"),
    ],
)
def test_deaths_are_named_and_leave_no_files_elsewhere(tmp_path, monkeypatch, fault, code, words):
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    _, _, outcome = run_job(tmp_path, fault)
    assert outcome.reason_code == code
    assert outcome.reason.startswith(words)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_a_hang_shows_where_it_hangs(tmp_path):
    _, _, outcome = run_job(tmp_path, "hang@1:measure", hangs_in="measure")
    assert outcome.reason_code == "timeout.measure"
    assert outcome.evidence["rank"] == 1 and "_hang" in outcome.reason
    assert outcome.evidence["stacks"]["0"]


@pytest.mark.slow
def test_secrets_and_host_names_stay_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("SOME_URL", "https://me:hunter2@example.org/")
    monkeypatch.setenv("NOTE", f"on {socket.gethostname()}!")
    job, _, _ = run_job(tmp_path, "print_env")
    clean_logs(job.paths)  # as the loop does beside and after a job
    text = "".join(path.read_text() for path in job.paths.root.iterdir() if path.is_file())
    assert "OMP_NUM_THREADS=1" in text
    assert "hunter2" not in text
    assert not re.search(rf"(?<![\w.-]){re.escape(socket.gethostname())}(?![\w-])", text)


def test_torchrun_meets_by_name_on_several_nodes_only():
    alone, many = torchrun_words("/a", "2"), torchrun_words("/a", "8", ("--nnodes=2",))
    assert "--local-addr=localhost" in alone and alone[-3:] == ["-m", "benchrunner.worker", "/a"]
    assert "--nnodes=2" in many and "--standalone" not in many


def test_an_agent_whose_parent_has_gone_leaves(tmp_path):
    env = os.environ | {"BENCH_PARENT_PID": "1"}
    command = [sys.executable, "-m", "benchrunner.worker.agent", str(tmp_path), "1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "has gone" in done.stderr
    assert list(tmp_path.iterdir()) == []


BENCH = """
import sys
from pathlib import Path
from benchrunner.core.paths import SweepPaths
from benchrunner.launch.local import LocalLauncher
from benchrunner.run.options import RunOptions
from benchrunner.run.sweep import run_plan
from benchrunner.store.plan_file import load_plan
environment = {"benchrunner": "0.1.0", "versions": {}, "driver": None, "gpus": []}
root = Path(sys.argv[1])
options = RunOptions(environment=environment)
sys.exit(run_plan(load_plan(root), SweepPaths(root), launcher=LocalLauncher(), options=options).exit_code)
"""


def start_bench(tmp_path, fault):
    """A process that runs a sweep of one cell; returns it, the sweep's place and the marker once its ranks are up."""
    plan = Plan(cells=[cell()], hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")
    paths = SweepPaths(write_plan(plan, tmp_path))
    env = os.environ | {"BENCH_FAULT": fault}
    bench = subprocess.Popen([sys.executable, "-c", BENCH, str(paths.root)], env=env, stderr=subprocess.PIPE)
    attempt = paths.cell(plan.cells[0].cell.slug).attempt(1)
    wait_for(lambda: are_in(attempt, "build"))
    return bench, plan, paths, json.loads(attempt.cell.read_text())["marker"]


def wait_for(condition, seconds=240.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_after_kill_9_nothing_is_left_and_resume_goes_on(tmp_path):
    bench, plan, paths, marker = start_bench(tmp_path, "hang")
    assert len(processes.marked_pids(marker)) == 3
    bench.kill()
    bench.wait()
    wait_for(lambda: processes.marked_pids(marker) == [], seconds=10)
    options = RunOptions(environment=ENVIRONMENT, resume=True, hardware=CPU, fault=None)
    summary = run_plan(plan, paths, launcher=local.LocalLauncher(), options=options)
    assert summary.counts == {"ok": 1}
    assert json.loads(paths.cell(plan.cells[0].cell.slug).record.read_text())["attempt"] == 2


def test_ctrl_c_once_is_orderly(tmp_path):
    bench, plan, paths, marker = start_bench(tmp_path, "hang")
    bench.send_signal(signal.SIGINT)
    assert bench.wait(60) == 130
    assert processes.marked_pids(marker) == []
    made = json.loads(paths.cell(plan.cells[0].cell.slug).record.read_text())
    assert (made["reason_code"], made["fault"]) == ("skipped.interrupted", "hang")


@pytest.mark.slow
def test_a_second_signal_kills_at_once(tmp_path):
    bench, _, _, marker = start_bench(tmp_path, "ignore_sigterm")
    bench.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    bench.send_signal(signal.SIGINT)
    assert bench.wait(5) == 130
    wait_for(lambda: processes.marked_pids(marker) == [], seconds=10)


@pytest.mark.slow
def test_a_sweep_on_a_host_whose_name_does_not_resolve(tmp_path):
    probe = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs the right to rename a host")
    plan = Plan(cells=[cell()], hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")
    root = write_plan(plan, tmp_path)
    rename = 'hostname no-such-host.invalid && exec "$@"'
    command = ["unshare", "--uts", "sh", "-c", rename, "sh", sys.executable, "-c", BENCH, str(root)]
    assert subprocess.run(command, check=False, timeout=600).returncode == 0

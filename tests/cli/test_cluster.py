"""What is planned for: the nodes, whatever the host is from which they are asked for."""

import os
import signal
import subprocess
from argparse import Namespace

import pytest

from benchrunner.cli import cluster
from benchrunner.cli.overrides import plan_overrides
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import SweepPaths
from benchrunner.launch import launchers
from benchrunner.launch.allocation import JobState
from benchrunner.run.follow import Following


class Nodes:
    """A cluster whose nodes are this machine with another environment; `refuses` GPUs, and says so."""

    def __init__(self, refuses=True, **variables):
        self.refuses, self.variables, self.asked, self.cancelled = refuses, variables, [], []

    def submit(self, sweep, request):
        assert (sweep.is_dir(), sweep.name[:7], sweep.parent.name) == (True, ".probe-", "outputs")
        assert (request.name, request.time_min) == ("bench-probe", 5)
        self.asked.append(request.gpus_per_node)
        if self.refuses and request.gpus_per_node:
            raise UsageError("no GPUs here")
        subprocess.run(request.command, check=True, env=os.environ | self.variables)
        return "7"

    def cancel(self, sweep, jobs):
        assert sweep.is_dir()
        self.cancelled += jobs

    def poll(self, sweep, jobs):
        assert sweep.is_dir()
        return {job: JobState(phase="ended", end="completed") for job in jobs}


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """A plan on a cluster of such nodes."""

    def plan(nodes, *words):
        monkeypatch.setattr(launchers, "allocator_for", lambda config: {"slurm": nodes}[config.name])
        words = ["launcher=slurm", f"out_dir={tmp_path}/new/outputs", *words]
        made = plan_overrides(Namespace(overrides=words, multirun=False), launch=True)
        assert not list(tmp_path.rglob(".probe-*")), "nothing of the question is left"
        return made

    return plan


def test_what_the_nodes_lack_is_ruled_out_and_not_what_the_submitting_host_lacks(planned, monkeypatch):
    without_compiler = Nodes(PATH="/nowhere", CXX="")
    assert [one.reason_code for one in planned(without_compiler, "compile=inductor").cells] == ["missing.cxx"]
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert [one.verdict for one in planned(Nodes(PATH=path), "compile=inductor").cells] == ["run"]


def test_hardware_that_is_named_is_looked_for_on_the_nodes(planned):
    assert planned(Nodes(), "hardware=cpu", "hardware.memory_bytes=77").hardware.memory_bytes != 77
    assert planned(Nodes(), "hardware=cpu").cells[0].verdict == "run"
    elsewhere = planned(Nodes(), "hardware=h200-sxm-141gb")
    assert elsewhere.cells[0].reason_code == "skipped.devices" and not elsewhere.hardware.is_present


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], [1, 0]),
        (["strategy=ddp", "devices=4"], [4, 0]),
        (["hardware=cpu"], [0]),
        (["launcher.gres=gpu:a100:2"], [0]),
    ],
)
def test_the_question_asks_for_gpus_unless_the_cluster_has_none(planned, words, asked):
    nodes = Nodes()
    planned(nodes, *words)
    assert nodes.asked == asked


def test_a_question_that_no_node_can_ever_answer_is_one_message(planned, monkeypatch, capsys):
    nodes = Nodes(refuses=False)
    waits = JobState(phase="waiting", detail="Priority")
    starts = JobState(phase="running", detail="on node 3")
    states = [None, waits, waits, starts, JobState(phase="waiting", detail="X", is_hopeless=True)]
    nodes.poll = lambda sweep, jobs: {"7": state} if (state := states.pop(0)) else {}
    monkeypatch.setattr(cluster, "ASK_INTERVAL_S", 0.0)
    with pytest.raises(UsageError, match=r"no node of the cluster ever has \(X\)"):
        planned(nodes)
    asked = "what the nodes are is asked of them: job 7"
    assert (nodes.cancelled, capsys.readouterr().err.splitlines()) == (["7"], [asked, "job 7 waits (Priority)"])


def test_a_job_that_waits_is_mentioned_with_its_reason_alone(planned, monkeypatch, capsys):
    nodes = Nodes(refuses=False)
    states = [JobState(phase="waiting"), JobState(phase="waiting", detail="X", is_hopeless=True)]
    nodes.poll = lambda sweep, jobs: {"7": states.pop(0)}
    monkeypatch.setattr(cluster, "ASK_INTERVAL_S", 0.0)
    with pytest.raises(UsageError):
        planned(nodes)
    assert "waits" not in capsys.readouterr().err


def test_who_insists_on_an_end_while_it_asks_leaves_no_job_either(planned, monkeypatch):
    nodes = Nodes(refuses=False)
    left = []

    def leave(code):
        left.append((code, list(nodes.cancelled)))

    monkeypatch.setattr("benchrunner.run.interrupts.os._exit", leave)
    nodes.poll = lambda sweep, jobs: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)] and {}
    with pytest.raises(SystemExit):
        planned(nodes)
    assert left == [(143, ["7"])]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_who_is_told_to_end_while_it_asks_leaves_no_job(planned, signum):
    nodes = Nodes(refuses=False)
    nodes.poll = lambda sweep, jobs: os.kill(os.getpid(), signum) or {}
    with pytest.raises(SystemExit) as ended:
        planned(nodes)
    assert ended.value.code == 128 + signum and nodes.cancelled == ["7"]


def test_gpus_that_were_named_and_are_refused_are_an_error(planned):
    with pytest.raises(UsageError, match="no GPUs here"):
        planned(Nodes(), "launcher.gpus_per_node=8")


def test_nodes_that_leave_no_answer_are_quoted(planned, monkeypatch):
    nodes = Nodes()
    nodes.submit = lambda sweep, request: "7"
    nodes.logs = lambda sweep, job: {"7": f"no python\nsrun: error: of it all, {sweep.is_dir()}\n"}[job]
    with pytest.raises(UsageError, match=r"launcher: the nodes could not be examined: .*of it all, True"):
        planned(nodes)


@pytest.mark.parametrize(("detach", "only_watch"), [(True, False), (False, True), (False, False)])
@pytest.mark.parametrize("summary", [None, "how it ended"])
def test_who_detaches_is_told_the_directory_and_who_follows_sees_the_tables(
    monkeypatch, tmp_path, capsys, detach, only_watch, summary
):
    called = []
    paths = SweepPaths(tmp_path)
    monkeypatch.setattr("benchrunner.run.follow.follow_plan", lambda *given: called.append(given) or summary)
    monkeypatch.setattr("benchrunner.cli.run_and_report.report", lambda *given: called.append(given) or 7)
    how = {name: True for name, is_so in (("detach", detach), ("only_watch", only_watch)) if is_so}
    code = cluster.follow_and_report("plan", paths, "allocator", "options", "junit", **how)
    assert called[0] == ("plan", paths, "allocator", "options", Following(detach=detach, only_watch=only_watch))
    assert called[1:] == ([] if summary is None else [(paths, summary, "junit")])
    assert (code, capsys.readouterr().out) == ((0, f"{tmp_path}\n") if summary is None else (7, ""))

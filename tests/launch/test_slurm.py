import subprocess

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch.allocation import JobState, Request
from benchrunner.launch.slurm import SlurmAllocator

REQUEST = Request(name="bench-x", command=["python", "-m", "benchrunner", "work", "a dir"], nodes=2, gpus_per_node=4)


class Slurm:
    """What Slurm's commands answer: command → (exit code, stdout, stderr)."""

    def __init__(self, **answers):
        self.answers, self.calls = answers, []

    def __call__(self, command):
        self.calls.append(list(command))
        answer = self.answers.get(command[0], (0, "", ""))
        code, out, err = answer(command) if callable(answer) else answer
        return subprocess.CompletedProcess(command, code, out, err)


def submit(tmp_path, slurm, **keys):
    return SlurmAllocator(LauncherConfig(name="slurm", **keys), slurm).submit(tmp_path, REQUEST)


def test_an_allocation_asks_for_what_the_keys_say(tmp_path):
    slurm = Slurm(sbatch=(0, "17;cluster\n", ""))
    keys = {"partition": "gpu", "qos": "q", "mem": "64G", "exclusive": True, "nodelist": "a1,a2", "reservation": "r"}
    assert submit(tmp_path, slurm, **keys, sbatch={"mail-user": "me", "no_kill": ""}) == "17"
    words = slurm.calls[0]
    assert {
        "--partition=gpu", "--qos=q", "--mem=64G", "--exclusive", "--nodelist=a1,a2", "--reservation=r", "--nodes=2",
        "--gpus-per-node=4", "--time=60", "--mail-user=me", "--no-kill", "--parsable",
    } <= set(words)  # fmt: skip


def test_nodes_that_are_listed_are_asked_for_in_turn(tmp_path):
    slurm = Slurm(sbatch=(0, "17\n", ""))
    allocator = SlurmAllocator(LauncherConfig(name="slurm", nodelist="a[1-3]"), slurm)
    for _ in range(3):
        allocator.submit(tmp_path, REQUEST)
    asked = [next(word for word in call if word.startswith("--nodelist=")) for call in slurm.calls]
    assert asked == ["--nodelist=a1,a2", "--nodelist=a3,a1", "--nodelist=a2,a3"]


def test_gres_is_said_in_place_of_gpus(tmp_path):
    slurm = Slurm(sbatch=(0, "17\n", ""))
    submit(tmp_path, slurm, gres="gpu:a100:4")
    assert "--gres=gpu:a100:4" in slurm.calls[0] and not any("gpus" in word for word in slurm.calls[0])


def test_the_script_sets_up_and_becomes_the_worker(tmp_path):
    slurm = Slurm(sbatch=(0, "17\n", ""))
    submit(tmp_path, slurm, setup=["module load cuda", "ulimit -n 4096"])
    lines = (tmp_path / "allocations" / "bench-x.sh").read_text().splitlines()
    assert lines[1:3] == ["module load cuda", "ulimit -n 4096"]
    assert lines[-1] == "exec python -m benchrunner work 'a dir'"


@pytest.mark.parametrize(
    ("said", "key"),
    [
        ("sbatch: error: invalid partition specified: gpuu", "launcher.partition"),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "launcher.qos"),
        ("sbatch: unrecognized option '--nonsense=1'", "launcher.sbatch"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "nodes_per_job"),
    ],
)
def test_what_slurm_refuses_is_one_message_with_the_key(tmp_path, said, key):
    with pytest.raises(UsageError, match=key) as caught:
        submit(tmp_path, Slurm(sbatch=(1, "", said + "\n")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "hint"), [("array", "launcher.jobs"), ("test_only", "bench plan"), ("time", "time_min")]
)
def test_what_bench_sets_itself_is_not_passed_through(tmp_path, key, hint):
    slurm = Slurm()
    with pytest.raises(UsageError, match=rf"launcher.sbatch.{key}: bench sets this itself \(.*{hint}"):
        submit(tmp_path, slurm, sbatch={key: "1"})
    assert slurm.calls == []


def test_a_host_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch is not installed on this host"):
        SlurmAllocator(LauncherConfig(name="slurm")).submit(tmp_path, REQUEST)


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("7|PENDING|Resources", JobState(phase="waiting", detail="Resources")),
        ("7|PENDING|PartitionTimeLimit", JobState(phase="waiting", detail="PartitionTimeLimit", is_hopeless=True)),
        ("7|RUNNING|None", JobState(phase="running", detail="RUNNING")),
        ("7|COMPLETING|None", JobState(phase="running", detail="COMPLETING")),
        ("7|COMPLETED|None", JobState(phase="ended", end="completed")),
        ("7|CANCELLED|None", JobState(phase="ended", end="cancelled")),
        ("7|TIMEOUT|TimeLimit", JobState(phase="ended", end="time_limit", detail="TimeLimit")),
        ("7|PREEMPTED|None", JobState(phase="ended", end="preempted")),
        ("7|NODE_FAIL|None", JobState(phase="ended", end="node_failed")),
    ],
)
def test_states(tmp_path, line, state):
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), Slurm(squeue=(0, line + "\n", "")))
    assert allocator.poll(tmp_path, ["7"]) == {"7": state}


def forgotten(command):
    """squeue that does not know the job, as when it has ended minutes ago."""
    return (1, "", "slurm_load_jobs error: Invalid job id specified") if "--jobs=7" in command else (0, "", "")


def test_what_squeue_has_forgotten_has_ended_and_does_not_wait(tmp_path, capfd):
    noisy = (1, "", "Slurm accounting storage is disabled")
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), Slurm(squeue=forgotten, sacct=noisy))
    assert allocator.poll(tmp_path, ["7"]) == {"7": JobState(phase="ended", end="unknown")}
    assert capfd.readouterr() == ("", "")


def test_accounting_says_how_a_forgotten_job_ended(tmp_path):
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), Slurm(squeue=forgotten, sacct=(0, "CANCELLED by 0\n", "")))
    assert allocator.poll(tmp_path, ["7"])["7"].end == "cancelled"


def test_a_controller_that_does_not_answer_says_nothing_of_the_job(tmp_path):
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), Slurm(squeue=(1, "", "Unable to contact controller")))
    assert allocator.poll(tmp_path, ["7"]) == {}

import subprocess
from dataclasses import replace

import pytest

from benchrunner.core.errors import UsageError
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch import slurm as slurm_module
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


def test_the_whole_call_of_an_allocation(tmp_path):
    slurm = Slurm(sbatch=(0, " 17\n", ""))
    keys = {"partition": "p", "account": "a", "qos": "q", "constraint": "c", "mem": "1G", "cpus_per_task": 3}
    assert submit(tmp_path, slurm, **keys, sbatch={"comment": "x", "job_name": "mine"}) == "17"
    folder = tmp_path / "allocations"
    assert slurm.calls == [
        [
            "sbatch", "--parsable", "--partition=p", "--account=a", "--qos=q", "--constraint=c", "--mem=1G",
            "--cpus-per-task=3", "--gpus-per-node=4", "--job-name=mine", "--nodes=2", "--ntasks-per-node=1",
            "--time=60", f"--output={folder}/%j.log", "--open-mode=append", "--comment=x", f"{folder}/bench-x.sh",
        ]
    ]  # fmt: skip
    assert (folder / "bench-x.sh").read_text() == (
        "#!/bin/bash\nexport BENCH_JOB=\"$SLURM_JOB_ID\"\nexec python -m benchrunner work 'a dir'\n"
    )


def test_nodes_without_gpus_and_a_list_of_as_many_are_asked_for_as_they_stand(tmp_path):
    slurm = Slurm(sbatch=(0, "17", ""))
    allocator = SlurmAllocator(LauncherConfig(name="slurm", nodelist="a[1-2]"), slurm)
    allocator.submit(tmp_path, replace(REQUEST, gpus_per_node=0))
    assert "--nodelist=a[1-2]" in slurm.calls[0] and not any(word.startswith("--gpus") for word in slurm.calls[0])


def test_gres_is_said_in_place_of_gpus(tmp_path):
    slurm = Slurm(sbatch=(0, "17\n", ""))
    submit(tmp_path, slurm, gres="gpu:a100:4")
    assert "--gres=gpu:a100:4" in slurm.calls[0] and not any(word.startswith("--gpus") for word in slurm.calls[0])


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


def test_what_slurm_says_is_told_without_its_name_and_its_silence_by_the_code(tmp_path):
    with pytest.raises(UsageError) as caught:
        submit(tmp_path, Slurm(sbatch=(1, "", "sbatch: error: no memory left\nmore")))
    assert str(caught.value) == "launcher=slurm: sbatch refuses the allocation: no memory left (see launcher.mem)"
    with pytest.raises(UsageError) as caught:
        submit(tmp_path, Slurm(sbatch=(5, "", "")))
    assert str(caught.value) == "launcher=slurm: sbatch refuses the allocation: exit code 5"


def test_a_command_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    def run(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(slurm_module.subprocess, "run", run)
    with pytest.raises(UsageError, match="sbatch does not answer"):
        SlurmAllocator(LauncherConfig(name="slurm")).submit(tmp_path, REQUEST)


def test_what_a_command_says_and_how_it_ends_is_known(tmp_path, monkeypatch):
    words = ["sh", "-c", "printf 'a\\377'; echo b >&2; exit 3"]
    assert vars(slurm_module._run(words)) == {"args": words, "returncode": 3, "stdout": "a\ufffd", "stderr": "b\n"}
    monkeypatch.setattr(slurm_module, "ANSWER_S", 0.0)
    late = {"args": words, "returncode": 124, "stdout": "", "stderr": "sh does not answer"}
    assert vars(slurm_module._run(words)) == late
    monkeypatch.setenv("PATH", str(tmp_path))
    absent = {"args": ["squeue"], "returncode": 127, "stdout": "", "stderr": "squeue is not installed on this host"}
    assert vars(slurm_module._run(["squeue"])) == absent


def test_jobs_are_cancelled_one_by_one_and_their_logs_read(tmp_path):
    slurm = Slurm()
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), slurm)
    allocator.cancel(tmp_path, ["7", "8"])
    assert slurm.calls == [["scancel", "7"], ["scancel", "8"]]
    assert allocator.logs(tmp_path, "7") == ""
    (tmp_path / "allocations").mkdir()
    (tmp_path / "allocations" / "7.log").write_bytes(b"said \xff")
    assert allocator.logs(tmp_path, "7") == "said \ufffd"


def test_several_jobs_are_asked_for_at_once(tmp_path):
    slurm = Slurm(squeue=(0, " 7|PENDING|None\nodd line\n8|RUNNING|None\n", ""), sacct=(0, "", ""))
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), slurm)
    assert allocator.poll(tmp_path, []) == {} and slurm.calls == []
    found = allocator.poll(tmp_path, iter(["7", "8", "9"]))
    assert [found[job].phase for job in ("7", "8", "9")] == ["waiting", "running", "ended"]
    assert slurm.calls == [
        ["squeue", "--noheader", "--format=%i|%T|%r", "--states=all", "--jobs=7,8,9"],
        ["sacct", "--noheader", "--parsable2", "--allocations", "--jobs=9", "--format=State"],
    ]


def test_where_one_is_forgotten_the_others_are_still_told_apart(tmp_path):
    def squeue(command):
        everything = "8|RUNNING|None\n99|RUNNING|None\n"
        return (1, "", "invalid") if any(word.startswith("--jobs") for word in command) else (0, everything, "")

    slurm = Slurm(squeue=squeue, sacct=(0, "RUNNING\n", ""))
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), slurm)
    assert allocator.poll(tmp_path, ["7", "8"]) == {
        "7": JobState(phase="ended", end="unknown", detail="RUNNING"),
        "8": JobState(phase="running", detail="RUNNING"),
    }
    assert slurm.calls[1] == ["squeue", "--noheader", "--format=%i|%T|%r", "--states=all"]


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


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ((0, "CANCELLED by 0\n", ""), "cancelled"), ((0, "", ""), "unknown"),
        ((1, "COMPLETED\n", "no accounting"), "unknown"),
    ],
)  # fmt: skip
def test_accounting_says_how_a_forgotten_job_ended(tmp_path, answer, end):
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), Slurm(squeue=forgotten, sacct=answer))
    assert allocator.poll(tmp_path, ["7"]) == {"7": JobState(phase="ended", end=end)}


def test_a_controller_that_does_not_answer_says_nothing_of_the_job(tmp_path):
    allocator = SlurmAllocator(LauncherConfig(name="slurm"), Slurm(squeue=(1, "", "Unable to contact controller")))
    assert allocator.poll(tmp_path, ["7"]) == {}

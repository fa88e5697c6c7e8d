import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from types import SimpleNamespace

import pytest

from benchrunner.core.cell import cell_from_dict
from benchrunner.core.faults import Fault
from benchrunner.core.paths import AttemptPaths
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch import launchers, local, processes, variables
from benchrunner.launch.allocation import Request
from benchrunner.launch.job import Job, rank_pids, write_job
from samples import CPU, H200, make_cell


def make_job(tmp_path, cell=None, hardware=CPU, devices=(), fault=None):
    return Job(
        cell=cell or make_cell(),
        paths=AttemptPaths(tmp_path / "attempt-1"),
        devices=devices,
        marker=uuid.uuid4().hex,
        hardware=dataclasses.asdict(hardware),
        fault=fault,
    )


def test_cell_json_holds_what_the_ranks_need(tmp_path):
    job = make_job(tmp_path, make_cell(strategy="ddp"), fault=Fault(kind="oom", rank=1))
    write_job(job)
    document = json.loads(job.paths.cell.read_text())
    assert cell_from_dict(document["cell"]) == job.cell
    assert document["hardware"]["device_type"] == "cpu"
    assert document["fault"] == "oom@1"


def test_the_whole_job_file_of_an_attempt(tmp_path):
    job = dataclasses.replace(
        make_job(tmp_path / "deep", hardware=H200, devices=(2, 3)), attempt=4, started_at="2026-01-01"
    )
    write_job(job)
    document = json.loads(job.paths.cell.read_text())
    assert document.pop("cell")["cell_id"] == job.cell.cell_id
    assert document == {
        "hardware": dataclasses.asdict(H200),
        "attempt": 4,
        "marker": job.marker,
        "fault": None,
        "devices": [2, 3],
        "started_at": "2026-01-01",
    }
    with pytest.raises(FileExistsError):
        write_job(job)


def test_ranks_whose_files_cannot_be_read_have_no_process(tmp_path):
    paths = AttemptPaths(tmp_path)
    for rank, text in enumerate(['{"rank": 0, "pid": 10}', "{", '{"rank": 2, "pid": 12}']):
        paths.rank(rank).write_text(text)
    assert sorted(rank_pids(paths)) == [10, 12]


@pytest.mark.parametrize(
    ("visible", "devices", "expected"),
    [(None, (1, 3), "1,3"), ("4,5,6,7", (0, 2), "4,6"), ("GPU-aa, GPU-bb", (1,), "GPU-bb"), ("", (0,), "0")],
)
def test_devices_are_mapped_through_ours(tmp_path, visible, devices, expected):
    found = variables.device_variables(make_job(tmp_path, hardware=H200, devices=devices), visible)
    assert found == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": expected}


def test_a_cpu_job_sees_no_gpu(tmp_path):
    assert variables.device_variables(make_job(tmp_path), "0,1") == {"CUDA_VISIBLE_DEVICES": ""}


def test_the_environment_of_a_job(tmp_path):
    job = make_job(tmp_path, make_cell(strategy="ddp"))
    env = variables.job_environment(job, {"HF_TOKEN": "x", "NCCL_DEBUG": "INFO", "HOME": "/home/me"})
    assert "HF_TOKEN" not in env
    assert env["NCCL_DEBUG"] == "INFO"
    assert env[processes.MARKER_VARIABLE] == job.marker
    assert int(env["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)


def test_a_secret_is_passed_on_by_name(tmp_path):
    job = make_job(tmp_path)
    config = dataclasses.replace(
        job.cell.config, launcher=dataclasses.replace(job.cell.config.launcher, pass_env=["HF_TOKEN"])
    )
    env = {"HF_TOKEN": "x", "GITHUB_PAT": "y", "HOME": "/home/me"}
    made = variables.job_environment(dataclasses.replace(job, cell=dataclasses.replace(job.cell, config=config)), env)
    assert made["HF_TOKEN"] == "x" and "GITHUB_PAT" not in made


def test_threads_that_the_user_chose_stay(tmp_path):
    assert variables.job_environment(make_job(tmp_path), {"OMP_NUM_THREADS": "3"})["OMP_NUM_THREADS"] == "3"


def test_threads_are_an_equal_share(tmp_path):
    assert variables.num_threads(make_job(tmp_path, make_cell(4, strategy="ddp")), 8) == 2
    assert variables.num_threads(make_job(tmp_path, make_cell(4, strategy="ddp")), 2) == 1
    assert variables.num_threads(make_job(tmp_path, hardware=H200), 32) == 8
    assert variables.num_threads(make_job(tmp_path, hardware=H200), 640) == variables.MAX_THREADS


def test_a_cold_cell_has_a_cache_of_its_own(tmp_path):
    cold = make_job(tmp_path, make_cell(compile="inductor"))
    home = variables.cache_variables(cold, {})["TORCHINDUCTOR_CACHE_DIR"]
    assert home == str(cold.paths.cache / "inductor")
    cold.paths.cache.mkdir(parents=True)
    variables.drop_cold_cache(cold.paths)
    assert not cold.paths.cache.exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyError])
@pytest.mark.parametrize("home", [None, "", "relative", "/nonexistent/home", "/proc/1"])
def test_a_user_without_a_home_has_a_cache_in_the_temporary_directory(tmp_path, monkeypatch, home, error):
    def no_home():
        raise error("Could not determine home directory.")

    monkeypatch.setattr(variables.Path, "home", staticmethod(no_home))
    monkeypatch.setattr(variables.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(variables.os, "access", lambda path, mode: str(path) not in ("/", "/proc/1"))
    found = variables.shared_cache({} if home is None else {"HOME": home})
    assert found == tmp_path / f"benchrunner-{os.getuid()}" / "cache"


def test_a_job_starts_although_the_working_directory_has_gone(tmp_path, monkeypatch):
    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(variables.Path, "cwd", staticmethod(gone))
    assert variables.job_environment(make_job(tmp_path), {})["PYTHONSAFEPATH"] == "1"


def test_other_cells_share_the_users_cache_with_those_of_their_attention(tmp_path):
    leaves = {"compile.cache": "shared"}
    shared = make_job(tmp_path, make_cell(compile="inductor", leaves=leaves))
    flash = make_job(tmp_path, make_cell(compile="inductor", leaves=leaves | {"attention": "flash"}))
    caches = [
        variables.cache_variables(job, {"XDG_CACHE_HOME": str(tmp_path)})["TRITON_CACHE_DIR"]
        for job in (shared, make_job(tmp_path), flash)
    ]
    assert caches[0] == caches[1] == f"{tmp_path}/benchrunner/attention-auto/triton"
    assert caches[2] != caches[0]


def test_there_need_be_no_cache_to_drop(tmp_path):
    variables.drop_cold_cache(make_job(tmp_path).paths)


def test_the_local_launcher_is_the_default():
    assert launchers.allocator_for(LauncherConfig(name="local")) is None
    for environ in ({}, {"SLURM_JOB_NODELIST": "a1"}):
        made = launchers.job_launcher(LauncherConfig(name="local", preload=False), environ)
        assert isinstance(made, local.LocalLauncher) and not made._preloads and made.num_nodes == 1
    assert launchers.job_launcher(LauncherConfig(name="local"), {})._preloads


def test_an_allocation_of_several_nodes_runs_steps():
    made = launchers.job_launcher(LauncherConfig(name="slurm"), {"SLURM_JOB_NODELIST": "a[1-3]"})
    assert (type(made).__name__, made.num_nodes) == ("StepLauncher", 3)
    assert launchers.job_launcher(LauncherConfig(name="slurm"), {"SLURM_JOB_NODELIST": "a[1-2]"}).num_nodes == 2


@pytest.mark.parametrize(("name", "kind"), [("slurm", "SlurmAllocator"), ("detached", "LocalAllocator")])
def test_a_cluster_is_asked_through_its_allocator(name, kind):
    assert type(launchers.allocator_for(LauncherConfig(name=name))).__name__ == kind


def test_slurm_is_asked_as_the_keys_say(tmp_path):
    asked = launchers.allocator_for(LauncherConfig(name="slurm", partition="gpu"))
    assert "--partition=gpu" in asked.options(Request(name="bench", command=["true"]), tmp_path)


def test_the_whole_call_of_an_agent(tmp_path, monkeypatch):
    monkeypatch.setattr(local.subprocess, "Popen", lambda command, **how: (command, how))
    job = make_job(tmp_path, make_cell(strategy="ddp"))
    command, how = local._start_agent(job, {"A": "1"}, 7)
    assert command == [sys.executable, "-m", "benchrunner.worker.agent", str(job.paths.root), "2"]
    assert how == {
        "stdin": subprocess.DEVNULL,
        "stdout": 7,
        "stderr": subprocess.STDOUT,
        "env": {"A": "1", "BENCH_PARENT_PID": str(os.getpid())},
        "start_new_session": True,
    }


class Agent:
    """Says nothing and stays, or has ended with a code."""

    def __init__(self, told, code=None):
        self.stdout, self._told, self._code = io.BytesIO(), told, code

    def poll(self):
        return self._code

    def terminate(self):
        self._told.append("end")


@pytest.fixture
def silent(tmp_path):
    """What makes a handle of such an agent."""
    return lambda *about: local.LocalHandle(make_job(tmp_path), Agent(*(about or [[]])))


@pytest.fixture
def stuck(monkeypatch):
    """A process of every job that no kill ends; whose jobs are killed, and the time."""
    told, now = [], [100.0]
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(local, "marked_pids", lambda marker: [10])
    monkeypatch.setattr(local, "kill_marked", told.append)
    return told, now


def test_a_job_has_seconds_to_end_and_what_outlives_being_killed_is_given_up(silent, stuck):
    told, now = stuck
    handle = silent(told)
    assert handle.poll() is None and told == []
    handle.terminate()
    now[0] += local.GRACE_S - 1
    handle.terminate()
    assert handle.poll() is None and told == ["end"]
    now[0] += 1
    assert handle.poll() is None and told == ["end", handle._job.marker]
    now[0] += local.DRAIN_S - 1
    assert handle.poll() is None
    now[0] += 1
    assert handle.poll() == -signal.SIGKILL and set(told[1:]) == {handle._job.marker}


def test_what_outlives_an_agent_and_being_killed_is_given_up_with_what_it_might_say(silent, stuck):
    told, now = stuck
    handle = silent(told, 3)
    assert handle._log.daemon
    handle._log = SimpleNamespace(join=lambda timeout: told.append(timeout))
    assert handle.poll() is None and told == [handle._job.marker]
    now[0] += local.DRAIN_S
    assert handle.poll() == 3 and told[-1] == 1.0


class Said(io.BytesIO):
    """What an agent said, and how it was asked for."""

    def __init__(self):
        super().__init__(b"\xff\n\x1b[1mlast\n")
        self.asked = []

    def readline(self, size=-1):
        self.asked.append(size)
        return super().readline(size)


@pytest.mark.parametrize("is_full", [False, True])
def test_what_an_agent_says_is_read_to_its_end_although_the_disk_is_full(tmp_path, monkeypatch, is_full):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local, "open", full if is_full else open, raising=False)
    job, agent = make_job(tmp_path), Agent([])
    agent.stdout = Said()
    job.paths.root.mkdir()
    local.LocalHandle(job, agent)._log.join()
    assert agent.stdout.asked == [local.LONGEST_LINE_BYTES] * 3 and agent.stdout.closed
    assert is_full or job.paths.agent_log.read_text() == "\ufffd\nlast\n"


def test_only_ranks_of_the_job_that_wrote_their_file_say_where_they_are(monkeypatch, silent):
    told = []
    handle = silent()
    handle._job.paths.root.mkdir()
    for rank, pid in enumerate((11, 12)):
        handle._job.paths.rank(rank).write_text(f'{{"rank": {rank}, "pid": {pid}}}')
    monkeypatch.setattr(local, "marked_pids", {handle._job.marker: [10, 11]}.__getitem__)
    monkeypatch.setattr(local, "send_signal", lambda pids, signum: told.append((pids, signum)))
    handle.dump_stacks()
    assert told == [({11}, signal.SIGUSR1)] and not handle.is_waiting()


@pytest.mark.parametrize(
    ("before", "now", "found"), [(3, 5, 2), (3, 3, 0), (3, None, 0), (None, 5, 0), (None, None, 0)]
)
def test_kills_for_memory_are_counted_since_the_job_began(monkeypatch, silent, before, now, found):
    counts = iter([before, now])
    monkeypatch.setattr(local, "num_oom_kills", lambda: next(counts))
    assert silent().num_oom_kills() == found


def sleeper(marker, code="import time; time.sleep(60)"):
    env = os.environ | {processes.MARKER_VARIABLE: marker}
    return subprocess.Popen([sys.executable, "-c", code], env=env, start_new_session=True)


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_processes_are_found_and_killed_by_their_marker():
    marker = uuid.uuid4().hex
    mine, other = sleeper(marker), sleeper(uuid.uuid4().hex)
    try:
        wait_for(lambda: processes.marked_pids(marker) == [mine.pid])
        assert processes.kill_marked(marker) == [mine.pid]
        assert mine.wait(10) == -signal.SIGKILL
        assert processes.marked_pids(marker) == []
        assert other.poll() is None
    finally:
        mine.kill()
        other.kill()


def test_a_signal_to_a_process_that_has_gone_is_no_error():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    processes.send_signal([gone.pid], signal.SIGTERM)


def test_oom_kills_are_counted_where_the_kernel_tells(tmp_path):
    file = tmp_path / "memory.events"
    file.write_text("low 0\noom 3\noom_kill 2\n")
    assert processes._read_counter(file, "oom_kill") == 2
    assert processes._read_counter(file, "absent") is None
    assert processes._read_counter(tmp_path / "absent", "oom_kill") is None


STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
    "print('\\x1b[31mready\\x1b[0m', flush=True)\n"
    "time.sleep(60)\n"
)


def test_a_job_that_ignores_sigterm_goes_with_its_grandchildren(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 0.2)
    job = make_job(tmp_path)
    job.paths.root.mkdir()
    env = os.environ | {processes.MARKER_VARIABLE: job.marker}
    command = [sys.executable, "-c", STUBBORN]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    handle = local.LocalHandle(job, process)
    wait_for(lambda: job.paths.agent_log.exists() and job.paths.agent_log.read_text() == "ready\n")
    assert len(handle.pids()) == 2
    assert handle.poll() is None
    handle.terminate()
    wait_for(lambda: handle.poll() is not None)
    assert handle.poll() == -signal.SIGKILL
    assert handle.pids() == []


def test_a_grandchild_that_outlives_its_job_is_ended(tmp_path):
    job = make_job(tmp_path)
    job.paths.root.mkdir()
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    env = os.environ | {processes.MARKER_VARIABLE: job.marker}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    handle = local.LocalHandle(job, process)
    wait_for(lambda: handle.poll() is not None)
    assert handle.poll() == 0
    assert handle.pids() == []

"""The environment of a job, variable by variable."""

import dataclasses
import os
from pathlib import Path

import pytest

from benchrunner.core.paths import PACKAGE, AttemptPaths
from benchrunner.launch import variables
from benchrunner.launch.job import Job
from benchrunner.launch.variables import cache_variables, job_environment, num_threads, shared_cache, starts_cold
from samples import CPU, H200, make_cell


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(variables.os, "sched_getaffinity", {0: {0, 1, 2, 3, 4, 5}}.__getitem__)
    return tmp_path


def make_job(home, cell=None, hardware=CPU, devices=()):
    facts = dataclasses.asdict(hardware)
    paths = AttemptPaths(home / "attempt-1")
    return Job(cell=cell or make_cell(), paths=paths, devices=devices, marker="abc", hardware=facts)


def test_the_whole_environment_of_a_job_on_a_cpu(home):
    cell = make_cell(strategy="ddp")
    caches = f"{home}/.cache/benchrunner/attention-auto"
    assert job_environment(make_job(home, cell), {"HOME": str(home)}) == {
        "HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
        "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
        "TRITON_CACHE_DIR": f"{caches}/triton",
        "BENCH_ATTEMPT": "abc",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "3",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONSAFEPATH": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }


def test_what_is_another_on_gpus_of_several_nodes_and_where_the_package_stands(home, monkeypatch):
    cell = make_cell(4, strategy="ddp", leaves={"nodes": 2})
    monkeypatch.chdir(PACKAGE.parent)
    made = job_environment(make_job(home, cell, H200, (2, 3)), {"HOME": str(home), "CUDA_VISIBLE_DEVICES": "7,6,5,4"})
    assert made["CUDA_VISIBLE_DEVICES"] == "5,4" and made["OMP_NUM_THREADS"] == "1"
    assert not {"OMP_WAIT_POLICY", "PYTHONSAFEPATH", "GLOO_SOCKET_IFNAME"} & made.keys()


def test_what_the_user_chose_stays(home):
    chosen = {"OMP_NUM_THREADS": "9", "OMP_WAIT_POLICY": "ACTIVE", "GLOO_SOCKET_IFNAME": "eth0", "HOME": str(home)}
    assert job_environment(make_job(home), chosen).items() >= chosen.items()


def test_a_cache_is_in_the_first_place_that_can_be_written(home):
    xdg, own = home / "xdg", home / "own"
    environ = {"XDG_CACHE_HOME": str(xdg), "HOME": str(own)}
    assert shared_cache(environ) == xdg / "benchrunner"
    assert shared_cache({"HOME": str(own)}) == own / ".cache" / "benchrunner"
    assert shared_cache(environ | {"XDG_CACHE_HOME": "relative"}) == own / ".cache" / "benchrunner"
    xdg.write_text("a file in its place")
    assert shared_cache(environ) == own / ".cache" / "benchrunner"
    xdg.unlink()
    xdg.mkdir()
    (xdg / "benchrunner").write_text("a file in its place")
    assert shared_cache(environ) == own / ".cache" / "benchrunner"


def test_the_system_knows_the_home_of_a_user_without_the_variable(home, monkeypatch):
    monkeypatch.setattr(variables.Path, "home", staticmethod(lambda: Path(home)))
    assert shared_cache({}) == home / ".cache" / "benchrunner"


def test_a_place_has_to_be_one_to_write_and_to_enter(home, monkeypatch):
    asked = []
    monkeypatch.setattr(variables.os, "access", lambda path, mode: asked.append((path, mode)))
    monkeypatch.setattr(variables.tempfile, "gettempdir", lambda: "/somewhere")
    assert shared_cache({"HOME": str(home / "deep")}) == Path(f"/somewhere/benchrunner-{os.getuid()}/cache")
    assert asked == [(home, os.W_OK | os.X_OK)]


@pytest.mark.parametrize(
    ("compile", "leaves", "is_cold"),
    [
        ("eager", {"compile.cache": "cold"}, False),
        ("inductor", {"compile.cache": "cold"}, True),
        ("inductor", {"compile.cache": "shared"}, False),
    ],
)
def test_what_compiles_into_an_empty_cache(home, compile, leaves, is_cold):
    cell = make_cell(compile=compile, leaves=leaves)
    assert starts_cold(cell) is is_cold
    place = cache_variables(make_job(home, cell), {"HOME": str(home)})["TRITON_CACHE_DIR"]
    assert place.startswith(str(home / "attempt-1" / "cache")) is is_cold


@pytest.mark.parametrize(("devices", "cores", "threads"), [(1, 8, 8), (4, 3, 1), (4, 15, 3), (None, 8, 8), (0, 8, 8)])
def test_threads_beside_gpus_are_a_share_of_the_cores(home, devices, cores, threads):
    assert num_threads(make_job(home, hardware=dataclasses.replace(H200, num_devices=devices)), cores) == threads


def test_the_attention_is_in_the_name_of_the_cache(home):
    job = make_job(home, make_cell(leaves={"attention": "math"}))
    assert cache_variables(job, {"XDG_CACHE_HOME": str(home)}) == {
        "TORCHINDUCTOR_CACHE_DIR": f"{home}/benchrunner/attention-math/inductor",
        "TRITON_CACHE_DIR": f"{home}/benchrunner/attention-math/triton",
    }

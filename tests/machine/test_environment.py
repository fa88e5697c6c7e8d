"""The Setup block: what is recorded, and what never is."""

import json
import socket
import subprocess
import types

import pytest

from benchrunner.core.environment import Cpu, Environment
from benchrunner.machine import environment


def test_collect_is_json_and_names_no_host():
    text = json.dumps(environment.collect(), allow_nan=False)
    found = json.loads(text)
    assert found["versions"]["torch"] and found["python"].startswith("3.")
    assert found["cpu"]["memory_bytes"] > 0 and found["collected_at"].endswith("+00:00")
    assert "hostname" not in text and "node" not in found
    assert set(found) == set(Environment.__annotations__) and set(found["cpu"]) == set(Cpu.__annotations__)
    assert len(found["collected_at"]) == len("2026-01-01T00:00:00+00:00")
    assert found["git"] == environment.git_state(environment.PACKAGE)


def test_the_cuda_libraries_are_found_by_either_name(monkeypatch):
    wheels = {"NVIDIA-CUDNN-cu13": "9.1", "nvidia-nccl": "2.2", "nvidia-smi": "1", None: "3"}
    installed = [types.SimpleNamespace(metadata={"Name": name}, version=wheels[name]) for name in wheels]
    monkeypatch.setattr(environment.importlib.metadata, "distributions", lambda: installed)
    monkeypatch.setattr(environment, "package_version", lambda name: None)
    assert {name: version for name, version in environment.versions().items() if version} == {
        "nvidia-cudnn-cu13": "9.1",
        "nvidia-nccl": "2.2",
    }


def test_the_longest_name_of_a_host_is_scrubbed_first(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(environment.platform, "node", lambda: "box.example.org")
    monkeypatch.setattr(environment, "hosts_of", lambda environ: ["localhost", "a1", "boxer", "n12"])
    assert environment.scrub_host("localhost a1 boxer box.example.org box n12") == "localhost a1 " + " ".join(
        ["<host>"] * 4
    )


def test_variables_are_allow_listed_without_secrets_and_hosts(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "secret-box")
    found = environment.variables(
        {
            "NCCL_DEBUG": "INFO",
            "OMP_NUM_THREADS": "1",
            "HOME": "/home/me",
            "TORCH_HUB_TOKEN": "abc",
            "CUDA_API_KEY": "abc",
            "TORCH_MIRROR": "https://me:abc@example.org/",
            "torch_x": "1",
            "NCCL_HOSTID": "secret-box-7",
        }
    )
    assert found == {"NCCL_DEBUG": "INFO", "OMP_NUM_THREADS": "1", "NCCL_HOSTID": "<host>-7"}


@pytest.fixture
def checkout(tmp_path):
    package = tmp_path / "src" / "benchrunner"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1")
    who = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    return package


def test_git_state_of_a_checkout(checkout):
    clean = environment.git_state(checkout)
    assert len(clean["commit"]) == 40 and clean["is_dirty"] is False
    (checkout / "a.py").write_text("2")
    assert environment.git_state(checkout) == {"commit": clean["commit"], "is_dirty": True}


def test_a_checkout_before_its_first_commit_has_none(checkout):
    subprocess.run(["git", "-C", str(checkout), "update-ref", "-d", "HEAD"], check=True)
    assert environment.git_state(checkout)["commit"] is None


def test_what_git_does_not_say_is_null(checkout, monkeypatch):
    said = {"rev-parse --show-toplevel": str(checkout.parent.parent), "rev-parse HEAD": "abc"}
    monkeypatch.setattr(environment, "_git", lambda package, *words: said.get(" ".join(words)))
    assert environment.git_state(checkout) == {"commit": "abc", "is_dirty": None}


def test_an_installed_package_inside_another_repository_has_no_commit(checkout):
    installed = checkout.parent.parent / ".venv" / "site-packages" / "benchrunner"
    installed.mkdir(parents=True)
    assert environment.git_state(installed) == {"commit": None, "is_dirty": None}


def test_no_git_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.git_state(tmp_path) == {"commit": None, "is_dirty": None}


def test_without_a_driver_the_answers_are_null(monkeypatch):
    import pynvml

    def no_driver():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_driver)
    assert environment.nvml_state() == {"driver": None, "driver_cuda": None, "gpus": [], "topology": []}


def test_summary_lines_never_blank():
    for known in ({}, environment.collect()):
        assert all(label and text for label, text in environment.summary_lines(known))


def test_summary_counts_equal_gpus():
    gpus = [{"name": "NVIDIA H200", "power_limit_w": 700.0}] * 4
    lines = dict(environment.summary_lines({"gpus": gpus, "driver": "580.1", "driver_cuda": "13.0"}))
    assert lines["GPU"] == "4 × NVIDIA H200, 700 W"
    assert lines["Driver"] == "580.1 (CUDA 13.0)"


def test_the_whole_summary():
    known = {
        "collected_at": "2026-01-01",
        "benchrunner": "0.1",
        "git": {"commit": "abc", "is_dirty": True},
        "python": "3.11.7",
        "versions": {"torch": "2.11", "triton": None, "numpy": "2.0"},
        "gpus": [{"name": None, "power_limit_w": None}],
        "driver": None,
        "cpu": {"name": "Some CPU", "num_cores": 8},
        "system": "Linux x86_64",
        "kernel": "6.1",
        "variables": {"OMP_NUM_THREADS": "1", "NCCL_DEBUG": "INFO"},
    }
    assert environment.summary_lines(known) == [
        ("Date", "2026-01-01"),
        ("benchrunner", "0.1, commit abc, with uncommitted changes"),
        ("Versions", "Python 3.11.7, torch 2.11, numpy 2.0"),
        ("GPU", "1 × unknown, power limit unknown"),
        ("Driver", "none"),
        ("CPU", "Some CPU, 8 cores"),
        ("System", "Linux x86_64, kernel 6.1"),
        ("Variables", "OMP_NUM_THREADS=1, NCCL_DEBUG=INFO"),
    ]
    for is_dirty in (False, None):
        assert environment.summary_lines({"git": {"commit": "abc", "is_dirty": is_dirty}})[1][1].endswith("commit abc")
    assert dict(environment.summary_lines({}))["GPU"] == "none"


@pytest.fixture
def two_gpus(monkeypatch):
    """The driver of a machine with two H200s, which does not say whether they are partitioned."""
    import pynvml

    def unsupported(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    sm, memory, handles = pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM, ("GPU-0", "GPU-1")

    def of_each(value):
        return dict.fromkeys(handles, value).__getitem__

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: f"GPU-{index}",
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetName": of_each(b"NVIDIA H200"),
        "nvmlDeviceGetMemoryInfo": of_each(types.SimpleNamespace(total=150754820096, free=150000000000)),
        "nvmlDeviceGetCudaComputeCapability": of_each((9, 0)),
        "nvmlSystemGetDriverVersion": lambda: "580.95",
        "nvmlSystemGetCudaDriverVersion": lambda: 12080,
        "nvmlDeviceGetEnforcedPowerLimit": of_each(700000),
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: {"GPU-1": {sm: 1980}, "GPU-0": {sm: 1981}}[handle][kind],
        "nvmlDeviceGetClockInfo": lambda handle, kind: of_each({sm: 345, memory: 3201})(handle)[kind],
        "nvmlDeviceGetPersistenceMode": of_each(1),
        "nvmlDeviceGetMigMode": unsupported,
        "nvmlDeviceGetNvLinkState": lambda handle, link: of_each({0: 1, 1: 0, 2: 1, 3: 2})(handle).get(link),
        "nvmlDeviceGetP2PStatus": lambda one, other, index: (
            pynvml.NVML_P2P_STATUS_OK
            if index == pynvml.NVML_P2P_CAPS_INDEX_NVLINK and {one, other} == {*handles}
            else -1
        ),
    }
    for name, answer in answers.items():
        assert hasattr(pynvml, name)
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_driver_is_asked(two_gpus):
    found = environment.nvml_state()
    assert (found["driver"], found["driver_cuda"], len(found["gpus"])) == ("580.95", "12.8", 2)
    assert found["topology"] == [["self", "nvlink"], ["nvlink", "self"]]
    assert found["gpus"][1] == {
        "name": "NVIDIA H200",
        "uuid": "GPU-1",
        "memory_bytes": 150754820096,
        "power_limit_w": 700.0,
        "max_sm_clock_mhz": 1980,
        "sm_clock_mhz": 345,
        "memory_clock_mhz": 3201,
        "persistence_mode": True,
        "is_mig": None,
        "num_nvlinks": 2,
    }


def test_what_a_driver_does_not_know_is_null(two_gpus, monkeypatch):
    import pynvml

    def not_there(*_):
        raise AttributeError

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigMode", {"GPU-0": (1, 0), "GPU-1": (0, 1)}.__getitem__)
    for name in ("nvmlDeviceGetNvLinkState", "nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetClockInfo"):
        monkeypatch.setattr(pynvml, name, not_there)
    found = environment.nvml_state()
    assert found["driver_cuda"] is None
    told = [(gpu["is_mig"], gpu["num_nvlinks"], gpu["sm_clock_mhz"]) for gpu in found["gpus"]]
    assert told == [(True, None, None), (False, None, None)]


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (0, "internal"),
        (10, "single switch"),
        (20, "multiple switches"),
        (30, "host bridge"),
        (40, "node"),
        (50, "system"),
        (60, "60"),
        (None, None),
    ],
)
def test_without_nvlink_the_level_of_the_tree_is_said(two_gpus, monkeypatch, level, said):
    import pynvml

    levels = {("GPU-0", "GPU-1"): level, ("GPU-1", "GPU-0"): level}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetP2PStatus", lambda one, other, index: 7)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTopologyCommonAncestor", lambda one, other: levels[one, other])
    assert environment.nvml_state()["topology"] == [["self", said], [said, "self"]]


def test_hardware_reads_the_same_driver(two_gpus, monkeypatch):
    from benchrunner.machine import hardware

    monkeypatch.setattr(hardware, "package_version", lambda name: "2.11.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    machine = hardware.detect()
    assert (machine.name, machine.num_devices, machine.compute_capability) == ("h200-sxm-141gb", 1, "9.0")
    assert (machine.device_name, machine.memory_bytes) == ("NVIDIA H200", 150754820096)
    assert hardware.free_memory_bytes(machine) == 150000000000
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.free_memory_bytes(machine) is None

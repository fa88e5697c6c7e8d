"""The Setup block: what is recorded, and what never is."""

import json
import socket
import subprocess

import pytest

from benchrunner.machine import environment


def test_collect_is_json_and_names_no_host():
    text = json.dumps(environment.collect(), allow_nan=False)
    found = json.loads(text)
    assert found["versions"]["torch"] and found["python"].startswith("3.")
    assert found["cpu"]["memory_bytes"] > 0 and found["collected_at"].endswith("+00:00")
    assert "hostname" not in text and "node" not in found


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


@pytest.fixture
def two_gpus(monkeypatch):
    """The driver of a machine with two H200s, one counter of which is not supported."""
    import types

    import pynvml

    def unsupported(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: f"GPU-{index}",
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetUUID": lambda handle: handle,
        "nvmlDeviceGetName": lambda handle: b"NVIDIA H200",
        "nvmlDeviceGetMemoryInfo": lambda handle: types.SimpleNamespace(total=150754820096, free=150000000000),
        "nvmlDeviceGetCudaComputeCapability": lambda handle: (9, 0),
        "nvmlSystemGetDriverVersion": lambda: "580.95",
        "nvmlSystemGetCudaDriverVersion": lambda: 13000,
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700000,
        "nvmlDeviceGetMaxClockInfo": lambda handle, kind: 1980,
        "nvmlDeviceGetClockInfo": lambda handle, kind: 345,
        "nvmlDeviceGetPersistenceMode": lambda handle: 1,
        "nvmlDeviceGetMigMode": unsupported,
        "nvmlDeviceGetNvLinkState": lambda handle, link: 1,
        "nvmlDeviceGetP2PStatus": lambda one, other, index: pynvml.NVML_P2P_STATUS_OK,
    }
    for name, answer in answers.items():
        assert hasattr(pynvml, name)
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_driver_is_asked(two_gpus):
    found = environment.nvml_state()
    assert (found["driver"], found["driver_cuda"], len(found["gpus"])) == ("580.95", "13.0", 2)
    assert found["topology"] == [["self", "nvlink"], ["nvlink", "self"]]
    gpu = found["gpus"][1]
    assert (gpu["name"], gpu["uuid"], gpu["power_limit_w"], gpu["is_mig"]) == ("NVIDIA H200", "GPU-1", 700.0, None)


def test_hardware_reads_the_same_driver(two_gpus, monkeypatch):
    from benchrunner.machine import hardware

    monkeypatch.setattr(hardware, "package_version", lambda name: "2.11.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    machine = hardware.detect()
    assert (machine.name, machine.num_devices, machine.compute_capability) == ("h200-sxm-141gb", 1, "9.0")
    assert hardware.free_memory_bytes(machine) == 150000000000

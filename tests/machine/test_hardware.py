"""Detection, CUDA_VISIBLE_DEVICES, device files and planned machines."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchrunner.core.paths import config_dir
from benchrunner.core.schema import HardwareConfig
from benchrunner.machine import hardware
from benchrunner.machine.hardware import Gpu, Hardware, find_device, resolve, usable_devices, visible_gpus

GPUS = [
    Gpu(index=i, uuid=f"GPU-{i}a", name="NVIDIA H200", memory_bytes=150754820096, compute_capability="9.0")
    for i in range(4)
]
BLANK = HardwareConfig(name="auto")


def config(name, **changes):
    text = (config_dir() / "hardware" / f"{name}.yaml").read_text()
    return HardwareConfig(**(yaml.safe_load(text) | changes))


@pytest.fixture
def four_h200(monkeypatch):
    monkeypatch.setattr(hardware, "read_nvml", lambda: GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "package_version", lambda name: "2.11.0+cu130" if name == "torch" else None)


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        ("0,1,-1,2", [0, 1]),
        ("0,0", [0]),
        ("GPU-3a,GPU-1", [3, 1]),
        (" 1 , 2 ", [1, 2]),
        ("9", []),
    ],
)
def test_visible_gpus_follow_cuda(visible, indices):
    assert [gpu.index for gpu in visible_gpus(GPUS, visible)] == indices


def test_detect_recognises_the_device_and_keeps_the_measured_memory(four_h200):
    machine = hardware.detect()
    assert (machine.name, machine.num_devices, machine.compute_capability) == ("h200-sxm-141gb", 4, "9.0")
    assert machine.memory_bytes == GPUS[0].memory_bytes
    assert machine.peak_flops["bf16"] == 989e12
    assert machine.is_present and usable_devices(machine) == 4


def test_what_the_driver_measured_wins_over_the_file(four_h200, monkeypatch):
    monkeypatch.setattr(hardware, "read_nvml", lambda: [replace(gpu, memory_bytes=7) for gpu in GPUS[:2]])
    for machine in (hardware.detect(), resolve(config("h200-sxm-141gb", num_devices=8))):
        assert (machine.name, machine.memory_bytes, machine.num_devices) == ("h200-sxm-141gb", 7, 2)


def test_the_libraries_and_compilers_of_this_machine_are_told(four_h200, monkeypatch):
    found = {("CC", "gcc", "clang", "cc"): "/bin/cc", ("CXX", "g++", "clang++"): "/bin/c++"}
    monkeypatch.setattr(hardware, "find_compiler", lambda *words: found[words])
    monkeypatch.setattr(hardware, "package_version", {"torch": "2.11.0", "lightning-thunder": "0.2"}.get)
    monkeypatch.setattr(hardware, "has_python_headers", lambda: True)
    machine = hardware.detect()
    assert (machine.cc, machine.cxx, machine.python_headers) == ("/bin/cc", "/bin/c++", True)
    assert machine.packages == dict.fromkeys(hardware.PACKAGES) | {"thunder": "0.2"}
    assert hardware.machine_facts(machine)["cc"] == "/bin/cc"


def test_the_headers_of_python_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert not hardware.has_python_headers()
    (tmp_path / "Python.h").write_text("")
    assert hardware.has_python_headers()


def test_an_unknown_gpu_has_no_peaks(four_h200, monkeypatch):
    odd = Gpu(index=0, uuid="GPU-x", name="NVIDIA H200 NVL", memory_bytes=1, compute_capability="9.0")
    monkeypatch.setattr(hardware, "read_nvml", lambda: [odd])
    machine = hardware.detect()
    assert machine.name == "unknown" and machine.peak_flops == {} and machine.compute_capability == "9.0"
    assert machine.device_type == "cuda"
    assert machine.memory_bandwidth_bytes_per_second is None


def test_a_cpu_build_of_torch_cannot_use_the_gpus(four_h200, monkeypatch):
    monkeypatch.setattr(hardware, "package_version", lambda name: "2.13.0+cpu")
    machine = hardware.detect()
    assert machine.device_type == "cpu" and usable_devices(machine) == 2
    assert machine.num_devices == 1 and machine.source


def test_auto_with_a_changed_peak(four_h200):
    machine = resolve(replace(BLANK, peak_flops={"bf16": 1.0}, memory_bytes=5))
    assert machine.name == "h200-sxm-141gb"
    assert machine.peak_flops == {"bf16": 1.0} and machine.memory_bytes == 5


def test_naming_what_is_here_is_this_machine(four_h200):
    machine = resolve(config("h200-sxm-141gb"))
    assert machine.is_present and machine.num_devices == 4 and machine.torch == "2.11.0+cu130"


def test_cpu_can_be_chosen_where_there_are_gpus(four_h200):
    machine = resolve(config("cpu"))
    assert machine.device_type == "cpu" and machine.is_present and machine.memory_bytes


def test_a_planned_machine_is_not_present(four_h200):
    machine = resolve(config("b200-sxm-180gb"))
    assert not machine.is_present and machine.num_devices == 8 and machine.packages == {}
    assert machine.memory_bytes == 192265846784 and machine.compute_capability == "10.0"
    assert machine.device_type == "cuda"
    assert resolve(config("b200-sxm-180gb", memory_bytes=None)).memory_bytes is None
    assert resolve(config("l4"), devices=4).num_devices == 4
    assert resolve(config("l4")).num_devices == 1
    assert resolve(config("h100-sxm-80gb", num_devices=4), devices=8).num_devices == 4


@pytest.mark.parametrize(
    ("driver_name", "option"),
    [
        ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm-80gb"),
        ("NVIDIA B200", "b200-sxm-180gb"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA H100 PCIe", "h100-pcie-80gb"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ],
)
def test_device_names(driver_name, option):
    found = find_device(driver_name)
    assert found is not None and found.name == option


@pytest.mark.parametrize(
    "name", ["NVIDIA L40", "NVIDIA A100-PCIE-40GB", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090 D"]
)
def test_lesser_relatives_are_not_mistaken(name):
    assert find_device(name) is None


@pytest.mark.parametrize("path", sorted((config_dir() / "hardware").glob("*.yaml")), ids=lambda path: path.stem)
def test_device_files_are_complete_and_typed(path):
    data = yaml.safe_load(path.read_text())
    assert data["name"] == path.stem
    assert set(data) <= set(vars(BLANK))
    if data.get("match"):
        assert data["source"] and data["device_type"] == "cuda" and isinstance(data["compute_capability"], str)
        numbers = [*data["peak_flops"].values(), data["memory_bandwidth_bytes_per_second"]]
        assert all(isinstance(number, float) and number > 1e11 for number in numbers)
        assert data["memory_bytes"] > 1e10 and data["interconnect_bytes_per_second"] > 1e9


def test_the_container_limit_counts(tmp_path: Path):
    limit = tmp_path / "memory.max"
    limit.write_text("1000\n")
    assert hardware.ram_bytes(limit) == 1000
    limit.write_text("max\n")
    assert hardware.ram_bytes(limit) > 1e8


def test_cpu_name(tmp_path: Path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Some CPU @ 3 GHz\n")
    assert hardware.cpu_name(info) == "Some CPU @ 3 GHz"
    assert hardware.cpu_name(tmp_path / "absent") == "CPU"
    info.write_bytes(b"processor : 0\nvendor : \xff\n")
    assert hardware.cpu_name(info) == "CPU"


def test_free_memory_of_a_cpu():
    machine = Hardware(name="cpu", device_type="cpu", device_name="x", num_devices=1, memory_bytes=7)
    assert hardware.free_memory_bytes(machine) == 7


def test_memory_of_a_cpu_of_unknown_size_is_what_is_available():
    machine = Hardware(name="cpu", device_type="cpu", device_name="x", num_devices=1, memory_bytes=None)
    assert hardware.free_memory_bytes(machine) > 2**20


def test_compiler_by_variable_then_by_name(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler-here -O2")
    assert hardware.find_compiler("CXX", "sh").endswith("/sh")
    assert hardware.find_compiler("CXX", "neither-this") is None
    monkeypatch.setenv("CXX", "sh -O2")
    assert hardware.find_compiler("CXX", "env").endswith("/sh")
    monkeypatch.delenv("CXX")
    assert hardware.find_compiler("CXX", "sh").endswith("/sh")

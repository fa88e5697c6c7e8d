"""What `bench doctor` finds, and the traps that it names."""

import json
import sys
from dataclasses import replace

import pytest

from benchrunner.core.paths import config_dir
from benchrunner.machine import environment
from benchrunner.machine.hardware import Gpu
from benchrunner.plan import doctor
from benchrunner.plan.rules import load_rules
from samples import CPU, H200

RULES = load_rules(config_dir() / "compat.yaml")


@pytest.fixture(scope="module")
def here():
    return doctor.Combinations(CPU, RULES)


def test_every_value_gets_an_answer_and_every_no_a_reason(here):
    assert {value for _, value, _ in here["compile"]} == {"eager", "inductor", "thunder"}
    assert all(works == "yes" or reason for works, _, reason in here["compile"])
    assert ("yes", "eager", "") in here["compile"]


def test_a_value_works_if_any_combination_does_and_says_which(here):
    assert here.judge("precision", "nf4") == ("yes", "nf4", "with workload=adapter")


def test_a_missing_compiler_is_the_reason(monkeypatch):
    """Found of this machine, by the rules that every plan is held to."""
    monkeypatch.setattr(doctor, "detect", lambda: replace(CPU, cxx=None))
    found = doctor.examine()
    assert list(found.axes) == list(doctor.EXAMINED)
    (line,) = [line for line in found.axes["compile"] if line[1] == "inductor"]
    assert line[0] == "no" and line[2].startswith("missing.cxx: ")
    assert dict(found.facts)["Compilers"] == "C /usr/bin/gcc, C++ missing, Python headers yes"


def test_warnings_are_of_the_machine_that_is_examined(monkeypatch):
    monkeypatch.setattr(doctor, "warnings", lambda machine: [machine.name])
    assert doctor.examine(H200).warnings == ["h200-sxm-141gb"]


def test_the_document_is_json(here):
    document = doctor.diagnosis_document(doctor.Diagnosis([("Device", "x")], {"compile": here["compile"]}, ["a trap"]))
    assert json.loads(json.dumps(document)) == document
    assert document["axes"]["compile"][0] == {"value": "eager", "works": True, "note": None}
    assert (document["facts"], document["warnings"]) == ({"Device": "x"}, ["a trap"])


def test_facts_are_never_blank():
    assert all(label and text for label, text in doctor.machine_facts(CPU))


def test_facts_are_those_of_the_machine(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory_bytes", lambda machine: machine.num_devices * 2**29)
    facts = dict(doctor.machine_facts(replace(H200, source="data sheet", packages=H200.packages | {"thunder": None})))
    assert facts["Device"] == "4 × NVIDIA H200 (h200-sxm-141gb)"
    assert facts["Memory"] == "140.4 GiB each, 2.0 GiB free"
    assert facts["Peak TFLOP/s"] == "bf16 989 (data sheet)"
    assert (facts["Compute capability"], facts["torch"]) == ("9.0", "2.11.0+cu130")
    assert "transformer_engine 2.9" in facts["Libraries"] and "thunder missing" in facts["Libraries"]
    assert facts["Compilers"] == "C /usr/bin/gcc, C++ /usr/bin/g++, Python headers yes"
    assert {label for label, _ in environment.summary_lines(environment.collect())[1:]} < set(facts)


def test_facts_that_are_unknown_say_so(monkeypatch):
    monkeypatch.setattr(doctor, "free_memory_bytes", lambda machine: None)
    bare = {"memory_bytes": None, "torch": None, "cc": None, "cxx": None, "python_headers": False}
    facts = dict(doctor.machine_facts(replace(CPU, **bare)))
    assert facts["Memory"] == "unknown each, unknown free"
    assert facts["Peak TFLOP/s"].startswith("unknown")
    assert (facts["Compute capability"], facts["torch"]) == ("none", "not installed")
    assert facts["Compilers"] == "C missing, C++ missing, Python headers no"


def test_gpus_that_torch_cannot_use(monkeypatch):
    gpu = Gpu(index=0, uuid="GPU-1", name="NVIDIA H200", memory_bytes=1, compute_capability="9.0")
    monkeypatch.setattr(doctor, "read_nvml", lambda: [gpu])
    assert "built without CUDA" in doctor.warnings(CPU)[0]
    assert doctor.warnings(replace(H200, packages={})) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES=''" in doctor.warnings(replace(CPU, torch="2.11.0+cu130"))[0]


def test_a_second_cudnn_beside_transformer_engine(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDNN_HOME", raising=False)
    monkeypatch.setattr(doctor, "torch_cudnn", lambda: tmp_path / "own")
    (tmp_path / "libcudnn_graph.so.9").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert "undefined symbol" in doctor.warnings(H200)[0]
    monkeypatch.setenv("CUDNN_HOME", str(tmp_path / "own"))
    assert doctor.warnings(H200) == []
    assert doctor.warnings(replace(H200, packages={})) == []


def test_a_cudnn_that_nothing_loads_is_no_trap(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDNN_HOME", raising=False)
    monkeypatch.setattr(doctor, "torch_cudnn", lambda: tmp_path / "own")
    monkeypatch.setattr(doctor, "system_cudnn", lambda: [tmp_path / "other"])
    assert doctor.warnings(replace(H200, packages={})) == []
    monkeypatch.setattr(doctor, "torch_cudnn", lambda: None)
    assert doctor.warnings(H200) == []


def test_where_the_cudnn_of_torch_is(monkeypatch, tmp_path):
    (tmp_path / "nvidia" / "cudnn" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    assert doctor.torch_cudnn() is None
    (tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9").touch()
    assert doctor.torch_cudnn() == tmp_path / "nvidia" / "cudnn" / "lib"


def test_where_the_loader_finds_a_cudnn(monkeypatch, tmp_path):
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    (tmp_path / "with" / "libcudnn_graph.so.9").touch()
    places = [str(tmp_path / name) for name in ("without", "gone", "with", "with")]
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    usual = doctor.system_cudnn()
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(["", *places]))
    assert doctor.system_cudnn() == [tmp_path / "with", *usual]

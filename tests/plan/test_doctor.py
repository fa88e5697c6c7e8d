"""What `bench doctor` finds, and the traps that it names."""

import json
from dataclasses import replace

import pytest

from benchrunner.core.paths import config_dir
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


def test_a_missing_compiler_is_the_reason():
    works, _, reason = doctor.Combinations(replace(CPU, cxx=None), RULES).judge("compile", "inductor")
    assert works == "no" and reason.startswith("missing.cxx: ")


def test_the_document_is_json(here):
    document = doctor.diagnosis_document(doctor.Diagnosis([("Device", "x")], {"compile": here["compile"]}, ["a trap"]))
    assert json.loads(json.dumps(document)) == document
    assert document["axes"]["compile"][0] == {"value": "eager", "works": True, "note": None}


def test_facts_are_never_blank():
    assert all(label and text for label, text in doctor.machine_facts(CPU))


def test_gpus_that_torch_cannot_use(monkeypatch):
    gpu = Gpu(index=0, uuid="GPU-1", name="NVIDIA H200", memory_bytes=1, compute_capability="9.0")
    monkeypatch.setattr(doctor, "read_nvml", lambda: [gpu])
    assert "built without CUDA" in doctor.warnings(CPU)[0]
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

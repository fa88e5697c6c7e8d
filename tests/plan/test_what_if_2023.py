"""A cell in the formula's terms; the formulas themselves are held in test_formula_2023."""

from dataclasses import asdict, replace

import pytest

from benchrunner.plan import formula_2023 as formula
from benchrunner.plan import what_if_2023
from benchrunner.plan.formula_2023 import Bits, Device, Setup, Shape
from samples import CPU, H200, make_cell

DEBUG = Shape(num_layers=4, num_heads=4, width=64, vocab_size=512)
A100 = replace(H200, name="a100-sxm-80gb")
CUT = {"predict.tensor": 2, "predict.pipeline": 2, "predict.sequence": 2}
SLOW = {"predict.flops_efficiency": 0.5, "predict.memory_efficiency": 0.8}


def on_a100(**settings):
    return Setup(shape=DEBUG, device=formula.DEVICES["a100-sxm-80gb"], **settings)


@pytest.mark.parametrize(
    ("visible_devices", "strategy", "leaves", "expected"),
    [
        (8, "single", {}, {}),
        (8, "ddp", CUT | SLOW, {"data": 2, "zero": 0}),
        (8, "fsdp_stage2", CUT | SLOW, {"data": 2, "zero": 2}),
        (8, "fsdp_stage3", CUT | SLOW, {"data": 2, "zero": 3}),
        (2, "ddp", CUT | SLOW, {"data": 1}),
    ],
)
def test_replicas_are_what_tensor_and_pipeline_leave(visible_devices, strategy, leaves, expected):
    cell = make_cell(visible_devices, leaves, strategy=strategy)
    given = {key.removeprefix("predict."): value for key, value in leaves.items()}
    assert what_if_2023.setup_of(cell, A100) == on_a100(**given, **expected)


@pytest.mark.parametrize(
    ("precision", "leaves", "bits"),
    [
        ("bf16", {}, (16, 16, 16)),
        ("fp16-mixed", {}, (16, 16, 16)),
        ("fp32", {}, (32, 32, 32)),
        ("fp8", {}, (8, 8, 16)),
        ("nf4", {}, (4, 16, 16)),
        ("nf4", {"predict.scheme": "w4a8e16"}, (4, 8, 16)),
    ],
)
def test_bits_are_those_of_the_scheme_or_of_the_precision(precision, leaves, bits):
    found = what_if_2023.setup_of(make_cell(precision=precision, leaves=leaves), A100).bits
    assert found == Bits(weight=bits[0], activation=bits[1], embedding=bits[2])


@pytest.mark.parametrize(
    ("given", "peaks"),
    [
        ({"bf16": 2.0, "fp16": 3.0, "fp32": 1.0, "fp8": 4.0, "int8": 5.0, "int4": 8.0}, (1.0, 2.0, 4.0, 8.0)),
        ({"fp16": 3.0, "int8": 5.0}, (0.0, 3.0, 5.0, 5.0)),
        ({"bf16": 2.0}, (0.0, 2.0, 2.0, 2.0)),
        ({}, (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_a_device_that_the_formula_does_not_know_is_that_of_its_file(given, peaks):
    known = {"memory_bandwidth_bytes_per_second": 4e12, "interconnect_bytes_per_second": 9e11}
    found = what_if_2023.setup_of(make_cell(), replace(H200, peak_flops=given, **known)).device
    expected = dict(zip((32, 16, 8, 4), peaks, strict=True))
    assert found == Device(memory_bytes=150754820096.0, bandwidth=4e12, link=9e11, peaks=expected)


def test_what_is_unknown_of_a_device_costs_nothing():
    found = what_if_2023.setup_of(make_cell(), replace(CPU, memory_bytes=None)).device
    assert (found.memory_bytes, found.bandwidth, found.link) == (0.0, float("inf"), float("inf"))


def predicted(hardware=A100, visible_devices=2, **given):
    return what_if_2023.predict(make_cell(visible_devices, **given), hardware)


def exactly(value):
    return pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("checkpointing", "every", "recompute"),
    [("none", "1/2", "none"), ("selective", "per_op", "selective"), ("full", "1/2", "full")],
)
def test_a_step_of_training(checkpointing, every, recompute):
    """Of 2 × 2 devices, one replica: three micro-batches of 5 samples of 100 tokens."""
    leaves = CUT | {"micro_batch_size": 5, "global_batch_size": 15, "seq_len": 100}
    leaves |= {"activation_checkpointing.every": every} if every == "per_op" else {}
    found = predicted(activation_checkpointing=checkpointing, leaves=leaves)
    setup = on_a100(tensor=2, pipeline=2, sequence=2)
    seconds = 3 * formula.training_flops(DEBUG, 5, 100, recompute) / (4 * 312e12)
    assert found["step_time_s"] == exactly(seconds)
    assert found["tokens_per_second_per_device"] == exactly(3 * 5 * 100 / seconds / 4)
    assert found["parts"] == {
        "weight_bytes": formula.weight_bytes(setup),
        "gradient_bytes": formula.gradient_bytes(setup),
        "optimizer_bytes": formula.optimizer_bytes(setup),
        "activation_bytes": formula.training_activation_bytes(setup, 5, 100, recompute),
    }
    assert found["peak_memory_bytes"] == round(sum(found["parts"].values()))
    assert (found["method"], found["bound"]) == ("llm-analysis-2023", "estimate")


def test_without_a_peak_training_has_memory_alone():
    for tokens in ({}, {"predict.tokens": 1e9}):
        found = predicted(precision="fp32", leaves=tokens)
        assert found["step_time_s"] is found["tokens_per_second_per_device"] is None
        assert found["peak_memory_bytes"] > 0 and "gpu_hours" not in found["parts"]


def test_a_run_of_so_many_tokens_is_in_the_micro_batch_that_the_formula_chooses():
    leaves = CUT | {"global_batch_size": 12, "seq_len": 100, "predict.tokens": 1e9}
    found = predicted(visible_devices=8, leaves=leaves, strategy="ddp", activation_checkpointing="full")
    setup = on_a100(tensor=2, pipeline=2, sequence=2, data=2)
    run = formula.train(setup, length=100, global_batch=12, tokens=1e9, recompute="full")
    assert (run.micro_batch_size, run.accumulation_steps, run.iterations) == (6, 1, 833333)
    parts = found["parts"]
    assert {name: parts[name] for name in asdict(run)} == asdict(run)
    memory = [parts[f"{name}_bytes"] for name in ("weight", "gradient", "optimizer", "activation")]
    assert memory[3] == formula.training_activation_bytes(setup, 6, 100, "full")
    assert found["peak_memory_bytes"] == round(sum(memory))
    assert found["step_time_s"] == exactly(run.micro_batch_s)
    assert found["tokens_per_second_per_device"] == exactly(12 * 100 / run.micro_batch_s / 8)
    assert parts["forward_s"] == exactly(formula.prefill_s(setup, 6, 100))


def test_a_step_of_a_run_has_all_its_micro_batches():
    """Memory for two sequences beside 20 bytes a weight of the layers and 2 of the embedding: not for five."""
    needed = 20 * 12 * 4 * 64**2 + 2 * 512 * 64 + 2 * (100 * 64 * 2 * 4)
    leaves = {"global_batch_size": 5, "seq_len": 100, "predict.tokens": 1e9}
    small = replace(A100, name="small", memory_bytes=needed, peak_flops={"bf16": 312e12})
    found = predicted(small, leaves=leaves, activation_checkpointing="full")
    assert (found["parts"]["micro_batch_size"], found["parts"]["accumulation_steps"]) == (1, 5)
    seconds = 5 * formula.training_flops(DEBUG, 1, 100, "full") / 312e12
    assert found["step_time_s"] == exactly(seconds)
    none = predicted(replace(small, memory_bytes=1000), leaves=leaves)
    assert none["refused"] == "not even one sequence fits beside weights, gradients and optimizer state"
    assert none["note"].endswith(none["refused"]) and none["method"] == "llm-analysis-2023"


def test_a_forward_pass_has_no_cache():
    setup = on_a100(tensor=2)
    found = predicted(workload="forward", leaves={"micro_batch_size": 5, "seq_len": 100, "predict.tensor": 2})
    parts = found["parts"]
    assert parts["cache_bytes"] == 0 and "decode_s" not in parts
    assert parts["activation_bytes"] == formula.inference_activation_bytes(setup, 5, 100)
    assert found["peak_memory_bytes"] == round(formula.weight_bytes(setup) + parts["activation_bytes"])
    assert found["step_time_s"] == parts["prefill_s"] == exactly(formula.prefill_s(setup, 5, 100))
    a_pass = asdict(formula.forward_pass(setup, 5, 100))
    assert {name: parts[f"prefill_{name}"] for name in a_pass} == a_pass


def test_a_generation_is_a_prompt_and_a_token_at_a_time():
    leaves = {"micro_batch_size": 5, "generate.prompt_length": 30, "generate.new_tokens": 50, "seq_len": 128}
    found, setup = predicted(workload="generate", leaves=leaves), on_a100()
    parts = found["parts"]
    assert parts["cache_bytes"] == formula.kv_cache_bytes(setup, 5, 80)
    assert parts["activation_bytes"] == formula.inference_activation_bytes(setup, 5, 30)
    memory = formula.weight_bytes(setup) + parts["activation_bytes"] + parts["cache_bytes"]
    assert found["peak_memory_bytes"] == round(memory)
    a_token = formula.decode_s(setup, 5, 30, 50)
    assert (parts["decode_s"], parts["decode_cache_s"]) == (a_token, formula.cache_s(setup, 5, 80))
    assert found["step_time_s"] == exactly(formula.prefill_s(setup, 5, 30) + 50 * a_token)
    assert parts["decode_mlp_s"] == formula.forward_pass(setup, 5, 1).mlp_s
    largest = formula.largest_prefill_batch(setup, 30), formula.largest_decode_batch(setup, 30, 50)
    assert (parts["largest_prefill_batch"], parts["largest_decode_batch"]) == largest
    timeless = predicted(replace(A100, name="another"), workload="generate", precision="fp32", leaves=leaves)
    assert timeless["step_time_s"] is None and timeless["peak_memory_bytes"] == round(sum(timeless["parts"].values()))


@pytest.mark.parametrize(("key", "whole"), [("tensor", 4), ("pipeline", 4)])
def test_degrees_may_be_as_many_as_there_are_parts(key, whole):
    assert "refused" not in predicted(leaves={f"predict.{key}": whole})
    assert predicted(leaves={f"predict.{key}": whole + 1})["refused"].startswith(f"predict.{key}=5 is more than model.")

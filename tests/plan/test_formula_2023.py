"""The published vectors to 1e-9, and the formulas away from them."""

from dataclasses import replace

import pytest

from benchrunner.plan import formula_2023 as formula
from benchrunner.plan.formula_2023 import Bits, Setup, Shape

LLAMA_7B = Shape(num_layers=32, num_heads=32, width=4096, vocab_size=32000)
LLAMA_33B = Shape(num_layers=60, num_heads=52, width=6656, vocab_size=32000)
OPT_13B = Shape(num_layers=40, num_heads=40, width=5120, vocab_size=50272)


def on_a100(shape, device="a100-sxm-80gb", **settings):
    return Setup(shape=shape, device=formula.DEVICES[device], **settings)


def exactly(value):
    return pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("shape", "settings", "prefill", "decode"),
    [
        (LLAMA_7B, {}, 0.022407014939885367, 0.006730704805422467),
        (LLAMA_7B, {"flops_efficiency": 0.7, "memory_efficiency": 0.9}, 0.03188561941644569, 0.0074788276267005824),
        (LLAMA_33B, {}, 0.10774221937666177, 0.032357300595716856),
        (LLAMA_7B, {"bits": Bits(weight=4)}, 0.022407014939885367, 0.0019912852782032423),
    ],
)
def test_latencies(shape, settings, prefill, decode):
    setup = on_a100(shape, **settings)
    assert formula.prefill_s(setup, 1, 512) == exactly(prefill)
    assert formula.decode_s(setup, 1, 512, 32) == exactly(decode)


@pytest.mark.parametrize(
    ("shape", "bits", "weights", "cache", "activation", "batches"),
    [
        (LLAMA_7B, Bits(), 13147045888, 285212672, 3221225472, (20, 230)),
        (LLAMA_33B, Bits(), 64221347840, 869007360, 9814671360, (1, 17)),
        (LLAMA_7B, Bits(weight=4), 3483369472, 285212672, 3221225472, None),
    ],
)
def test_bytes_of_inference(shape, bits, weights, cache, activation, batches):
    setup = on_a100(shape, bits=bits)
    assert formula.weight_bytes(setup) == exactly(weights)
    assert formula.kv_cache_bytes(setup, 1, 544) == exactly(cache)
    assert formula.inference_activation_bytes(setup, 1, 512) == exactly(activation)
    found = formula.largest_prefill_batch(setup, 512), formula.largest_decode_batch(setup, 512, 32)
    assert batches is None or found == batches


def trained(shape, device="a100-sxm-80gb", efficiency=0.5, tokens=1e12):
    setup = on_a100(
        shape, device, tensor=8, pipeline=8, sequence=8, data=32, flops_efficiency=efficiency, memory_efficiency=0.9
    )
    return setup, formula.train(setup, length=2048, global_batch=4_000_000, tokens=tokens, recompute="selective")


def test_training_of_7b():
    setup, run = trained(LLAMA_7B)
    assert (run.micro_batch_size, run.largest_micro_batch, run.accumulation_steps) == (50, 62, 2500)
    assert (run.flops, run.micro_batch_s) == (exactly(4478577147904000), exactly(0.4485754354871795))
    parts = formula.weight_bytes(setup), formula.gradient_bytes(setup), formula.optimizer_bytes(setup)
    assert parts == (234094592, 201326592, 1610612736)
    assert formula.training_activation_bytes(setup, 1, 2048, "selective") == 1241513984


def test_layers_that_do_not_divide_over_the_stages_are_left_out_of_breakdowns_alone():
    """As published: 60 layers over 8 stages are 7 on each."""
    setup, run = trained(LLAMA_33B, tokens=1.4e12)
    parts = formula.weight_bytes(setup), formula.gradient_bytes(setup), formula.optimizer_bytes(setup)
    assert parts == (983597056, 930349056, 7442792448)
    found = formula.forward_pass(setup, run.micro_batch_size, 2048)
    assert (found.attention_s, found.mlp_s) == (exactly(0.046976204800000004), exactly(0.08142542165333333))
    assert (found.norm_s, found.communication_s) == (exactly(0.0005199739305759904), exactly(0.02226476373333333))
    assert (found.embedding_s, found.head_s) == (exactly(0.0018224714856738052), exactly(0.006990506666666667))
    assert found.seconds == exactly(0.15999934226958315)


@pytest.mark.parametrize(
    ("shape", "device", "efficiency", "tokens", "hours"),
    [
        (LLAMA_7B, "a100-sxm-80gb", 0.5, 1e12, 77832.82222853106),
        (LLAMA_7B, "a100-sxm-80gb", 1.0, 1e12, 38916.41111426553),
        (LLAMA_7B, "h100-sxm-80gb", 0.5, 1e12, 24553.933807180678),
        (LLAMA_33B, "a100-sxm-80gb", 0.5, 1.4e12, 510213.7799111111),
        (LLAMA_33B, "a100-sxm-80gb", 1.0, 1.4e12, 255106.88995555555),
        (LLAMA_33B, "h100-sxm-80gb", 0.5, 1.4e12, 160957.2288496124),
    ],
)
def test_gpu_hours(shape, device, efficiency, tokens, hours):
    _, run = trained(shape, device, efficiency, tokens)
    assert run.gpu_hours == exactly(hours)
    assert shape is LLAMA_7B or (run.micro_batch_size, run.largest_micro_batch, run.accumulation_steps) == (
        10,
        18,
        12500,
    )


@pytest.mark.parametrize(
    ("settings", "prefill_ms", "decode_ms", "total_ms"),
    [
        ({}, 43.701, 17.071, 214.41),
        ({"flops_efficiency": 0.7, "memory_efficiency": 0.9}, 62.154, 18.969, 251.84),
        ({"tensor": 2}, 23.702, 9.350, 117.20),
    ],
)
def test_tensor_parallel_latencies(settings, prefill_ms, decode_ms, total_ms):
    setup = on_a100(OPT_13B, "a100-sxm-40gb", **settings)
    prefill, decode = 1e3 * formula.prefill_s(setup, 1, 512), 1e3 * formula.decode_s(setup, 1, 512, 10)
    assert (round(prefill, 3), round(decode, 3)) == (prefill_ms, decode_ms)
    assert round(prefill + 10 * decode, 2) == total_ms


def test_zero_spreads_state_then_gradients_then_layers():
    sizes = []
    for zero in (0, 1, 2, 3):
        setup = on_a100(LLAMA_7B, data=4, zero=zero)
        sizes.append((formula.optimizer_bytes(setup), formula.gradient_bytes(setup), formula.weight_bytes(setup)))
    layers, embedding = 12 * 32 * 4096**2, 2 * 32000 * 4096
    assert sizes[0] == (16 * layers, 2 * layers, 2 * layers + embedding)
    assert sizes[3] == (4 * layers, layers / 2, layers / 2 + embedding)
    assert sizes[1] == (4 * layers, *sizes[0][1:]) and sizes[2] == (4 * layers, layers / 2, sizes[0][2])


def test_full_recomputation_keeps_inputs_and_repeats_the_forward_pass():
    setup = on_a100(LLAMA_7B)
    assert formula.training_activation_bytes(setup, 2, 128, "full") == 2 * 128 * 4096 * 2 * 32
    forward = formula.forward_flops(LLAMA_7B, 2, 128)
    assert formula.training_flops(LLAMA_7B, 2, 128, "full") == 4 * forward
    assert formula.training_flops(LLAMA_7B, 2, 128, "none") == 3 * forward


def test_without_recomputation_scores_are_kept():
    """Two matrices of 2 bytes an element, of every layer, head and sample."""
    setup = on_a100(LLAMA_7B)
    everything = formula.training_activation_bytes(setup, 2, 128, "none")
    assert everything - formula.training_activation_bytes(setup, 2, 128, "selective") == 2 * 2 * 32 * 32 * 2 * 128**2


def test_full_recomputation_keeps_a_part_of_the_inputs_under_tensor_parallelism():
    whole, half = (formula.training_activation_bytes(on_a100(LLAMA_7B, tensor=t), 1, 128, "full") for t in (1, 2))
    assert whole == 2 * half


def test_the_cache_grows_with_the_batch():
    setup = on_a100(LLAMA_7B)
    assert (
        formula.kv_cache_bytes(setup, 3, 64) == 3 * formula.kv_cache_bytes(setup, 1, 64) == 3 * 2 * 64 * 4096 * 2 * 32
    )


def test_one_sequence_that_fits_is_enough():
    """2 + 2 + 16 bytes a weight of the layers, 2 of the embedding, and the inputs of 32 layers."""
    needed = 20 * 12 * 32 * 4096**2 + 2 * 32000 * 4096 + 2048 * 4096 * 2 * 32
    device = formula.DEVICES["a100-sxm-80gb"]
    enough, less = (Setup(shape=LLAMA_7B, device=replace(device, memory_bytes=needed - short)) for short in (0, 1))
    run = {"length": 2048, "global_batch": 3, "tokens": 1e9, "recompute": "full"}
    found = formula.train(enough, **run)
    assert (found.micro_batch_size, found.largest_micro_batch, found.accumulation_steps) == (1, 1, 3)
    with pytest.raises(ValueError, match="not even one sequence"):
        formula.train(less, **run)
    four = Setup(shape=LLAMA_7B, device=replace(device, memory_bytes=needed + 3 * 2048 * 4096 * 2 * 32))
    found = formula.train(four, **run | {"global_batch": 9})
    assert (found.micro_batch_size, found.largest_micro_batch, found.accumulation_steps) == (3, 4, 3)


def test_where_weights_do_not_fit_no_batch_does():
    setup = on_a100(LLAMA_33B, "a100-sxm-40gb")
    assert (formula.largest_prefill_batch(setup, 512), formula.largest_decode_batch(setup, 512, 32)) == (0, 0)


def test_what_cannot_be_trained_is_said():
    with pytest.raises(ValueError, match="not even one sequence"):
        formula.train(on_a100(LLAMA_33B), length=2048, global_batch=4, tokens=1e9, recompute="none")
    with pytest.raises(ValueError, match="does not divide by 3"):
        formula.train(on_a100(LLAMA_7B, data=3), length=2048, global_batch=4, tokens=1e9, recompute="none")

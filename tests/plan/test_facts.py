"""What rules may ask of a cell, by number."""

from dataclasses import replace

import pytest

from benchrunner.core.errors import ConfigError
from benchrunner.plan.facts import check_key, look_up
from samples import CPU, H200, make_cell

LEARNED = {"model.positions": "learned"}
FP8 = {"precision": "fp8"}


@pytest.mark.parametrize(
    ("key", "axes", "leaves", "value"),
    [
        ("strategy", {"strategy": "ddp"}, {}, "ddp"),
        ("compile.mode", {}, {"compile.mode": "max-autotune"}, "max-autotune"),
        ("launcher", {}, {"launcher.name": "slurm"}, "slurm"),
        ("micro_batch_size", {}, {"micro_batch_size": 3}, 3),
        ("micro_batch_size", {}, {"micro_batch_size": "max"}, None),
        ("micro_batch_search", {}, {"micro_batch_size": "max"}, "max"),
        ("accumulation_remainder", {"strategy": "ddp"}, {"micro_batch_size": 2, "global_batch_size": 7}, 3),
        ("tokens_per_micro_batch", {}, {"micro_batch_size": 3, "seq_len": 100}, 300),
        ("rotary_remainder", {}, {"model.rotary_fraction": 0.22}, 1),
        ("rotary_remainder", {}, {"model.rotary_fraction": 0.25}, 0),
        ("rotary_remainder", {}, {**LEARNED, "model.rotary_fraction": 0.22}, 0),
        ("seq_len_excess", {}, {**LEARNED, "seq_len": 200}, 72),
        ("seq_len_excess", {}, {**LEARNED, "seq_len": 100}, 0),
        ("seq_len_excess", {}, {"seq_len": 200}, 0),
        ("seq_len_excess", {"workload": "generate"}, {**LEARNED, "seq_len": 20}, 78),
        ("positions_needed", {"workload": "generate"}, {"generate.prompt_length": 7, "generate.new_tokens": 30}, 37),
        ("positions_needed", {}, {"seq_len": 100}, 100),
        ("fp8_size_remainder", FP8, {}, 0),
        ("fp8_size_remainder", FP8, {"model.d_ff": 351}, 15),
        ("fp8_size_remainder", FP8, {"model.d_model": 72, "model.d_ff": 351}, 8),
        ("fp8_size_remainder", FP8, {"model.d_model": 48, "model.num_kv_heads": 1}, 12),
        ("fp8_size_remainder", FP8, {"model.vocab_size": 67}, 3),
        ("fp8_size_remainder", FP8, {"model.vocab_size": 67, "model.tie_embeddings": True}, 0),
        ("fp8_size_remainder", FP8, {"model.vocab_size": 67, "precision.scope": "blocks"}, 0),
        ("fp8_token_multiple", FP8, {}, 16),
        ("fp8_token_multiple", {**FP8, "workload": "forward"}, {}, 8),
        ("fp8_token_multiple", {"precision": "fp8-torchao", "workload": "forward"}, {}, 1),
        ("fp8_token_remainder", FP8, {"micro_batch_size": 3, "seq_len": 7}, 5),
        ("fp8_decode_remainder", {}, {"micro_batch_size": 11}, 3),
        ("top_k_excess", {}, {"generate.top_k": 515}, 3),
        ("top_k_excess", {}, {"generate.top_k": 512}, 0),
        ("top_k_excess", {}, {}, 0),
        ("num_adapter_layers", {}, {"workload.adapter_start_layer": 1}, 3),
        ("longest_excess", {}, {"workload.longest": 130}, 2),
        ("min_length_excess", {}, {"workload.min_length": 130}, 2),
    ],
)
def test_what_a_cell_is(key, axes, leaves, value):
    assert look_up(key, make_cell(leaves=leaves, **axes), CPU) == value


@pytest.mark.parametrize("key", ["package.torchao", "torch", "cc", "cxx"])
def test_libraries_are_those_of_the_machine_and_assumed_where_it_is_elsewhere(key):
    here = {"package.torchao": "0.18.0", "torch": "2.11.0+cu130", "cc": "/usr/bin/gcc", "cxx": "/usr/bin/g++"}
    assert look_up(key, make_cell(), H200) == here[key]
    assert look_up(key, make_cell(), replace(H200, is_present=False)) == "assumed"


def test_a_library_that_is_not_there_has_no_version():
    assert look_up("package.thunder", make_cell(), CPU) is look_up("package.other", make_cell(), CPU) is None


def test_an_unknown_key_is_named_with_the_nearest_and_its_place():
    check_key("world_size", "here")
    with pytest.raises(ConfigError, match=r"^here: unknown key world_sise.*world_size"):
        check_key("world_sise", "here")
    for key in ("launcher.jobs", "hardware.name", "sweep.expect"):
        with pytest.raises(ConfigError, match="unknown key"):
            check_key(key, "here")

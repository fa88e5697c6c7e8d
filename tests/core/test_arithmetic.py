import math
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from benchrunner.core import arithmetic
from benchrunner.core.cell import Sizes
from benchrunner.core.errors import ConfigError
from benchrunner.core.paths import config_dir
from benchrunner.core.schema import (
    CheckpointingConfig,
    Config,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    StrategyConfig,
    WorkloadConfig,
)
from samples import make_cell

NUM_PARAMETERS = {
    "gpt2-125m": 124_475_904,
    "gpt2-1.5b": 1_557_686_400,
    "gpt2-xl-char": 1_475_974_400,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "open-llama-3b": 3_426_473_600,
    "open-llama-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "llama3-70b-proxy": 2_957_008_896,
    "llama3-70b-proxy2": 3_812_663_296,
    "llama3-70b-proxy4": 5_523_972_096,
    "codellama-34b": 33_743_970_304,
    "phi-1.5": 1_418_270_720,
    "stablelm-3b": 3_637_321_728,
    "falcon-7b": 7_217_189_760,
    "falcon-40b": 41_835_970_560,
}
"""What model cards and published tables say (docs/metrics.md names them)."""

MODELS = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))


PRECISIONS = {path.stem: yaml.safe_load(path.read_text()) for path in (config_dir() / "precision").glob("*.yaml")}


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_precision_has_formats_of_known_size(name):
    """What is unknown counts 2 bytes, which no number would tell."""
    option, floats = PRECISIONS[name], arithmetic.DTYPE_BYTES.keys()
    assert option["param_dtype"] in floats | arithmetic.QUANTIZED_BYTES.keys()
    assert option["compute_dtype"] in floats | {"float8"}
    assert option["reduce_dtype"] in floats


def load_model(name: str, **changes: Any) -> ModelConfig:
    shape = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text())
    return ModelConfig(**(shape | changes))


def make_workload(name: str, **changes: Any) -> WorkloadConfig:
    return WorkloadConfig(name=name, **changes)


BF16 = PrecisionConfig(name="bf16", param_dtype="bfloat16", compute_dtype="bfloat16", reduce_dtype="bfloat16")
MIXED = replace(BF16, param_dtype="float32")
FP8 = replace(BF16, compute_dtype="float8", backend="transformer_engine")
NF4 = replace(BF16, param_dtype="nf4", backend="bitsandbytes")
NF4_DQ = replace(NF4, param_dtype="nf4-dq")

ONE = Sizes(
    micro_batch_size=1, global_batch_size=1, accumulation_steps=1, seq_len=128, devices=1, nodes=1, world_size=1
)
FOUR = replace(ONE, global_batch_size=4, devices=4, world_size=4)


def make_config(**changes: Any) -> Config:
    base = Config(
        model=load_model("llama2-7b"),
        workload=make_workload("train"),
        strategy=StrategyConfig(name="single", kind="single"),
        precision=BF16,
        optimizer=OptimizerConfig(name="adamw", lr=1e-4),
        activation_checkpointing=CheckpointingConfig(name="none"),
    )
    return replace(base, **changes)


SHAPES = st.fixed_dictionaries(
    {
        "num_layers": st.integers(1, 5),
        "num_kv_heads": st.integers(1, 3),
        "groups": st.integers(1, 3),
        "head_size": st.sampled_from([4, 8, 16]),
        "d_ff": st.integers(1, 64),
        "vocab_size": st.integers(1, 99),
        "max_seq_len": st.integers(1, 32),
        "tie_embeddings": st.booleans(),
        "norm": st.sampled_from(["rmsnorm", "layernorm"]),
        "mlp": st.sampled_from(["swiglu", "gelu", "gelu_tanh"]),
        "positions": st.sampled_from(["rotary", "learned"]),
        "bias": st.booleans(),
        "head_bias": st.booleans(),
        "parallel_residual": st.booleans(),
        "shared_norm": st.booleans(),
    }
).map(
    lambda shape: ModelConfig(
        name="any",
        num_heads=shape["num_kv_heads"] * shape["groups"],
        d_model=shape["num_kv_heads"] * shape["groups"] * shape["head_size"],
        **{key: value for key, value in shape.items() if key not in ("groups", "head_size")},
    )
)


# --- Parameters


def test_every_model_has_a_known_count_or_is_made_up():
    assert set(MODELS) == {*NUM_PARAMETERS, "debug"}


@pytest.mark.parametrize("name", MODELS)
def test_counts_equal_the_published_ones(name: str):
    model = load_model(name)
    assert model.num_parameters == NUM_PARAMETERS.get(name)
    if name == "debug":
        assert arithmetic.num_parameters(model) < 2_000_000
    else:
        assert arithmetic.num_parameters(model) == NUM_PARAMETERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_options_are_described_and_well_formed(name: str):
    model = load_model(name)
    assert model.name == name
    assert model.description
    assert model.source
    assert model.d_model % model.num_heads == 0
    assert model.num_heads % model.num_kv_heads == 0


def test_falcon_with_a_tied_head_is_the_count_of_transformers():
    assert arithmetic.num_parameters(load_model("falcon-40b", tie_embeddings=True)) == 41_303_293_952
    assert arithmetic.num_parameters(load_model("falcon-7b", tie_embeddings=True)) == 6_921_720_704


@settings(deadline=None)
@given(SHAPES)
def test_parameters_are_matrices_tables_norms_and_biases(model: ModelConfig):
    parts = arithmetic.norm_parameters(model) + arithmetic.bias_parameters(model)
    parts += arithmetic.matmul_parameters(model) + arithmetic.embedding_parameters(model)
    tied = model.vocab_size * model.d_model * model.tie_embeddings
    assert arithmetic.num_parameters(model) == parts - tied
    added = arithmetic.num_parameters(replace(model, num_layers=model.num_layers + 1))
    more = arithmetic.num_parameters(replace(model, num_layers=model.num_layers + 2))
    assert more - added == added - arithmetic.num_parameters(model) > arithmetic.block_matmul_parameters(model)


@pytest.mark.parametrize(
    ("model", "rank", "expected"),
    [("phi-1.5", 8, 1_572_864), ("llama2-7b", 8, 4_194_304), ("llama2-70b", 8, 80 * (16 * 8192 + 9216 * 8))],
)
def test_lora_parameters(model: str, rank: int, expected: int):
    lora = make_workload("lora", lora_rank=rank)
    assert arithmetic.num_trainable_parameters(load_model(model), lora) == expected
    assert arithmetic.num_added_parameters(load_model(model), lora) == expected


@pytest.mark.parametrize(
    ("model", "adapter", "linears", "norms"),
    [
        ("llama2-7b", 30 * (10 * 4096 + 32), 32 * (3 * 4096 + 4096 + 2 * 11008 + 4096) + 32000, 65 * 4096),
        ("stablelm-3b", 14 * (10 * 4096 + 32), 16 * (3 * 4096 + 4096 + 16384 + 4096) + 50688, 33 * 8192),
    ],
)
def test_adapter_parameters(model: str, adapter: int, linears: int, norms: int):
    shape, v2 = load_model(model), make_workload("adapter_v2")
    assert arithmetic.num_trainable_parameters(shape, make_workload("adapter")) == adapter
    assert arithmetic.num_trainable_parameters(shape, v2) == adapter + 2 * linears + norms
    assert arithmetic.num_added_parameters(shape, v2) == adapter + 2 * linears


def test_an_adapter_that_starts_past_the_last_layer_adds_nothing():
    workload = make_workload("adapter", adapter_start_layer=6)
    assert arithmetic.num_trainable_parameters(load_model("debug"), workload) == 0


@pytest.mark.parametrize("workload", ["train", "forward", "generate", "parity"])
def test_without_a_finetuning_method_all_parameters_count(workload: str):
    model = load_model("debug")
    assert arithmetic.num_trainable_parameters(model, make_workload(workload)) == arithmetic.num_parameters(model)
    assert arithmetic.num_added_parameters(model, make_workload(workload)) == 0


# --- FLOPs


@pytest.mark.parametrize("name", ["llama2-7b", "llama2-70b", "open-llama-3b", "llama3-8b", "falcon-7b"])
def test_training_flops_are_six_n_without_the_embedding_plus_attention(name: str):
    model = load_model(name)
    layers, width, seq_len = model.num_layers, model.d_model, model.max_seq_len
    no_lookup = arithmetic.num_parameters(model) - model.vocab_size * width
    full = arithmetic.train_flops_per_token(model, seq_len, causal=False)
    assert full == pytest.approx(6 * no_lookup + 12 * layers * width * seq_len, rel=3e-4)  # norms are no matrices
    half = arithmetic.train_flops_per_token(model, seq_len)
    assert full - half == 6 * layers * width * seq_len


def test_a_tied_head_is_computed_all_the_same():
    tied, untied = (load_model("gpt2-125m", tie_embeddings=tie) for tie in (True, False))
    assert arithmetic.matmul_parameters(tied) == arithmetic.matmul_parameters(untied)
    assert arithmetic.matmul_parameters(tied) == 12 * 12 * 768**2 + 50304 * 768


@settings(deadline=None)
@given(SHAPES, st.integers(1, 64), st.booleans())
def test_training_is_three_forward_passes_and_lora_in_between(model: ModelConfig, seq_len: int, causal: bool):
    forward = arithmetic.forward_flops_per_token(model, seq_len, causal=causal)
    train = arithmetic.train_flops_per_token(model, seq_len, causal=causal)
    attention = arithmetic.attention_flops_per_token(model, seq_len, causal=causal)
    assert train == 3 * forward
    lora = arithmetic.peft_flops_per_token(model, make_workload("lora"), seq_len, causal=causal)
    trainable = arithmetic.num_trainable_parameters(model, make_workload("lora"))
    assert lora == 4 * arithmetic.matmul_parameters(model) + 6 * trainable + 3 * attention
    adapter = arithmetic.peft_flops_per_token(model, make_workload("adapter"), seq_len, causal=causal)
    prompts = 4 * max(0, model.num_layers - 2) * 10 * model.d_model
    assert adapter == 4 * arithmetic.matmul_parameters(model) + 3 * (attention + prompts)


def test_generated_tokens_cost_what_their_forward_passes_cost():
    model = load_model("llama2-7b")
    prefill = arithmetic.generate_flops_per_sample(model, 6, 1)
    assert prefill == 6 * arithmetic.forward_flops_per_token(model, 6)
    third = arithmetic.generate_flops_per_sample(model, 6, 3) - arithmetic.generate_flops_per_sample(model, 6, 2)
    assert third == arithmetic.forward_flops_per_token(model, 8, causal=False)  # position 7 attends to 8 keys


def test_flops_of_a_step_follow_batch_length_and_workload():
    config = make_config()
    model = config.model
    a_token = arithmetic.train_flops_per_token(model, 128)
    assert arithmetic.train_flops_per_step(config, ONE) == 128 * a_token
    assert arithmetic.train_flops_per_step(config, FOUR) == 4 * 128 * a_token
    forward = make_config(workload=make_workload("forward"))
    assert 3 * arithmetic.train_flops_per_step(forward, ONE) == arithmetic.train_flops_per_step(config, ONE)
    lora = make_config(workload=make_workload("lora"))
    assert arithmetic.train_flops_per_step(lora, ONE) == 128 * arithmetic.peft_flops_per_token(
        model, lora.workload, 128
    )
    generate = make_config(workload=make_workload("generate"))
    assert arithmetic.train_flops_per_step(generate, FOUR) == 4 * arithmetic.generate_flops_per_sample(model, 6, 200)


def test_hardware_flops_add_what_is_recomputed():
    model = load_model("llama2-7b")
    attention, down = 2 * 4096 * 128, 2 * 4096 * 11008
    a_block = 2 * arithmetic.block_matmul_parameters(model) - down + attention

    def extra(**changes: Any) -> float:
        config = make_config(**changes)
        return arithmetic.hardware_flops_per_step(config, ONE) - arithmetic.train_flops_per_step(config, ONE)

    assert extra() == 0
    assert extra(activation_checkpointing=CheckpointingConfig(name="full")) == 128 * 32 * a_block
    assert extra(activation_checkpointing=CheckpointingConfig(name="selective", every="1/4")) == 128 * 8 * a_block
    assert extra(activation_checkpointing=CheckpointingConfig(name="selective", every="per_op")) == 0
    assert extra(workload=make_workload("train", loss_chunk_tokens=64)) == 128 * 2 * 32000 * 4096
    prompted = make_workload("adapter", adapter_start_layer=2)
    assert extra(workload=prompted, activation_checkpointing=CheckpointingConfig(name="full")) == 128 * 30 * a_block
    full_forward = make_config(
        workload=make_workload("forward"), activation_checkpointing=CheckpointingConfig(name="full")
    )
    assert arithmetic.recomputed_flops_per_step(full_forward, ONE) == 0


def test_the_whole_block_is_recomputed_by_transformer_engine():
    model = load_model("llama2-7b")
    whole = 2 * arithmetic.block_matmul_parameters(model) + 2 * 4096 * 128
    config = make_config(precision=FP8, activation_checkpointing=CheckpointingConfig(name="full"))
    assert arithmetic.recomputed_flops_per_step(config, ONE) == 128 * 32 * whole


@pytest.mark.parametrize(
    ("workload", "products"), [("train", 3), ("parity", 3), ("forward", 1), ("lora", 2), ("adapter_v2", 2)]
)
def test_fp8_flops_are_the_products_with_converted_matrices(workload, products):
    model = load_model("llama2-7b")
    for scope, matrices in {"all": 32 * 202_375_168 + 131_072_000, "blocks": 32 * 202_375_168}.items():
        config = make_config(workload=make_workload(workload), precision=replace(FP8, scope=scope))
        split = arithmetic.flops_by_dtype(config, FOUR)
        assert split["fp8"] == 4 * 128 * products * 2 * matrices
        assert split["bf16"] > 0 and sum(split.values()) == arithmetic.train_flops_per_step(config, FOUR)
    tied = make_config(model=replace(model, tie_embeddings=True), precision=FP8)
    assert arithmetic.fp8_matmul_parameters(tied.model, FP8) == 32 * 202_375_168


def test_fp8_flops_of_a_generated_sample():
    config = make_config(workload=make_workload("generate"), precision=FP8)
    assert arithmetic.flops_by_dtype(config, ONE)["fp8"] == (6 + 199) * 2 * (32 * 202_375_168 + 131_072_000)


@pytest.mark.parametrize(("dtype", "name"), [("float32", "fp32"), ("bfloat16", "bf16"), ("float16", "fp16")])
def test_other_formats_compute_in_one_dtype(dtype, name):
    config = make_config(precision=replace(BF16, compute_dtype=dtype))
    assert arithmetic.flops_by_dtype(config, ONE) == {name: arithmetic.train_flops_per_step(config, ONE)}


def test_dropout_after_the_last_linear_makes_it_run_again():
    model = load_model("debug")
    dry, wet = (arithmetic.recomputed_flops_per_block(replace(model, dropout=p), 128) for p in (0.0, 0.1))
    assert wet - dry == 2 * 64 * 192


# --- Checkpointed blocks


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 12).flatmap(lambda p: st.tuples(st.integers(1, p), st.just(p))))
def test_fraction_of_blocks(num_layers: int, fraction: tuple[int, int]):
    taken, period = fraction
    blocks = arithmetic.checkpointed_blocks(
        num_layers, CheckpointingConfig(name="selective", every=f"{taken}/{period}")
    )
    assert blocks == [index for index in range(num_layers) if index % period < taken]
    if num_layers % period == 0:
        assert len(blocks) == num_layers * taken // period


def test_all_or_no_blocks():
    assert arithmetic.checkpointed_blocks(3, CheckpointingConfig(name="none")) == []
    assert arithmetic.checkpointed_blocks(3, CheckpointingConfig(name="full")) == [0, 1, 2]
    assert arithmetic.checkpointed_blocks(3, CheckpointingConfig(name="selective", every="1/1")) == [0, 1, 2]
    assert arithmetic.checkpointed_blocks(3, CheckpointingConfig(name="selective", every="per_op")) == [0, 1, 2]


@pytest.mark.parametrize("every", [None, "half", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "0.5"])
def test_a_fraction_that_is_none_names_its_key(every: str | None):
    with pytest.raises(ConfigError, match=r"activation_checkpointing\.every"):
        arithmetic.checkpointed_blocks(4, CheckpointingConfig(name="selective", every=every))


# --- Bytes


def test_resident_bytes_of_plain_and_quantised_weights():
    model = load_model("llama2-7b")
    assert arithmetic.resident_weight_bytes(model, BF16) == 2 * 6_738_415_616
    assert arithmetic.resident_weight_bytes(model, MIXED) == 4 * 6_738_415_616
    packed, rest = 6_607_077_376, 131_072_000 + 65 * 4096
    assert packed + rest == 6_738_415_616
    assert arithmetic.resident_weight_bytes(model, NF4) == packed * 0.5625 + rest * 2
    assert arithmetic.resident_weight_bytes(model, NF4_DQ) == pytest.approx(packed * 0.515869 + rest * 2, rel=1e-6)
    head = 32000 * 4096
    blocks_only = arithmetic.resident_weight_bytes(model, replace(NF4, scope="blocks"))
    assert blocks_only == (packed - head) * 0.5625 + (rest + head) * 2


def test_seventy_billion_doubly_quantised_weights_are_the_published_size():
    """37.21 GB peak were published for inference; weights are all of it but cache, workspace and transient."""
    weights = arithmetic.resident_weight_bytes(load_model("llama2-70b"), NF4_DQ)
    assert 35.8e9 < weights < 37.21e9 - 4 * 32000 * 8192
    assert arithmetic.resident_weight_bytes(load_model("llama2-70b"), NF4) > 39e9


def test_a_quantised_tied_head_is_kept_beside_the_embedding():
    model = load_model("gpt2-125m")
    head = 50304 * 768
    both = arithmetic.resident_weight_bytes(model, NF4)
    assert both - arithmetic.resident_weight_bytes(model, replace(NF4, scope="blocks")) == head * 0.5625


def test_a_decode_reads_every_matrix_and_the_cache_so_far():
    """The published yardstick: 60 % of 4.8 TB/s is about 218 tokens a second for Llama 2 7B in bf16."""
    config = make_config(model=load_model("llama2-7b"), workload=make_workload("generate"), precision=BF16)
    read = arithmetic.decode_bytes_per_token(config, ONE)
    cache = [arithmetic.kv_cache_bytes(config.model, 1, 6 + index, 2) for index in range(1, 200)]
    assert read == pytest.approx(2 * arithmetic.matmul_parameters(config.model) + sum(cache) / len(cache))
    assert 0.6 * 4.8e12 / read == pytest.approx(218, rel=0.01)


def test_quantised_matrices_are_read_packed():
    model = load_model("llama2-7b")
    matrices, head = arithmetic.matmul_parameters(model), arithmetic.head_matmul_parameters(model)
    assert arithmetic.linear_weight_bytes(model, NF4) == matrices * 0.5625
    blocks_only = arithmetic.linear_weight_bytes(model, replace(NF4, scope="blocks"))
    assert blocks_only == (matrices - head) * 0.5625 + head * 2


def test_kv_cache_bytes():
    assert arithmetic.kv_cache_bytes(load_model("llama2-7b"), 1, 544, 2) == 285_212_672
    grouped, full = load_model("llama2-70b"), load_model("llama2-70b", num_kv_heads=64)
    assert arithmetic.kv_cache_bytes(full, 2, 10, 2) == 8 * arithmetic.kv_cache_bytes(grouped, 2, 10, 2)


@pytest.mark.parametrize(
    ("precision", "optimizer", "bytes_per_parameter"),
    [(BF16, "adamw", 8), (MIXED, "adamw", 16), (BF16, "sgd", 4), (MIXED, "sgd", 8), (BF16, "paged-adamw", 4)],
)
def test_lower_bound_of_training(precision: PrecisionConfig, optimizer: str, bytes_per_parameter: int):
    total = 6_738_415_616 * bytes_per_parameter
    config = make_config(precision=precision, optimizer=OptimizerConfig(name=optimizer, lr=1e-4))
    assert arithmetic.memory_lower_bound_bytes(config, ONE) == total
    assert (
        arithmetic.memory_lower_bound_bytes(replace(config, strategy=StrategyConfig(name="ddp", kind="ddp")), FOUR)
        == total
    )
    for stage in (2, 3):
        sharded = replace(config, strategy=StrategyConfig(name="fsdp", kind="fsdp", stage=stage))
        assert arithmetic.memory_lower_bound_bytes(sharded, FOUR) == total // 4


def test_lower_bound_of_finetuning_trains_only_what_is_added():
    config = make_config(workload=make_workload("lora"), precision=NF4)
    weights = arithmetic.resident_weight_bytes(config.model, NF4)
    assert arithmetic.memory_lower_bound_bytes(config, ONE) == math.ceil(weights + 8 * 4_194_304)
    v2 = make_config(workload=make_workload("adapter_v2"))
    added = arithmetic.num_added_parameters(v2.model, v2.workload)
    trainable = arithmetic.num_trainable_parameters(v2.model, v2.workload)
    assert trainable > added
    assert arithmetic.memory_lower_bound_bytes(v2, ONE) == 2 * 6_738_415_616 + 2 * added + 6 * trainable


def test_lower_bound_without_gradients():
    weights = 2 * 6_738_415_616
    assert arithmetic.memory_lower_bound_bytes(make_config(workload=make_workload("forward")), ONE) == weights
    generate = make_config(workload=make_workload("generate"))
    cache = arithmetic.kv_cache_bytes(generate.model, 1, 206, 2)
    assert arithmetic.memory_lower_bound_bytes(generate, ONE) == weights + cache


def test_paged_state_is_fp32_wherever_it_lives():
    assert arithmetic.optimizer_state_bytes_per_parameter(OptimizerConfig(name="paged-adamw"), 2) == 8


# --- What one-line changes would get past the rest


def test_a_block_has_four_matrices_by_name():
    llama, gpt = load_model("llama2-7b"), load_model("gpt2-125m")
    assert arithmetic.linear_shapes(llama) == {
        "qkv": (4096, 3 * 4096), "out": (4096, 4096), "gate_up": (4096, 2 * 11008), "down": (11008, 4096),
    }  # fmt: skip
    assert list(arithmetic.linear_shapes(gpt)) == ["qkv", "out", "up", "down"]
    assert type(arithmetic.kv_width(load_model("llama3-8b", d_model=4095))) is int


def test_a_causal_prefill_attends_to_half():
    model = load_model("llama2-7b")
    for causal in (True, False):
        prefill = arithmetic.generate_flops_per_sample(model, 6, 1, causal=causal)
        assert prefill == 6 * arithmetic.forward_flops_per_token(model, 6, causal=causal)
    assert arithmetic.peft_flops_per_token(model, make_workload("lora"), 64) < arithmetic.peft_flops_per_token(
        model, make_workload("lora"), 64, causal=False
    )


def test_contexts_of_a_long_generation_add_up():
    model = load_model("llama2-7b")
    whole = arithmetic.generate_flops_per_sample(model, 6, 50)
    decodes = sum(arithmetic.forward_flops_per_token(model, 6 + index, causal=False) for index in range(1, 50))
    assert whole == 6 * arithmetic.forward_flops_per_token(model, 6) + decodes
    assert type(whole) is float


def test_a_sample_of_no_new_tokens_is_its_prefill():
    config = make_config(workload=make_workload("generate"), precision=FP8)
    only = replace(config, generate=replace(config.generate, new_tokens=1))
    assert arithmetic.flops_by_dtype(only, ONE)["fp8"] == 6 * 2 * (32 * 202_375_168 + 131_072_000)


def test_a_chunked_head_is_computed_again_beside_the_blocks():
    full = CheckpointingConfig(name="full")
    at_once = make_config(activation_checkpointing=full)
    chunks = make_config(activation_checkpointing=full, workload=make_workload("train", loss_chunk_tokens=64))
    more = arithmetic.recomputed_flops_per_step(chunks, ONE) - arithmetic.recomputed_flops_per_step(at_once, ONE)
    assert more == 128 * 2 * 32000 * 4096


def test_a_fraction_that_is_none_is_quoted():
    for text in ("half", "1/2/3"):
        with pytest.raises(ConfigError) as caught:
            arithmetic.parse_fraction(text)
        expected = f"activation_checkpointing.every: '{text}' is neither q/p with 0 < q <= p nor per_op"
        assert str(caught.value) == expected


def test_what_is_not_packed_rests_in_the_compute_dtype():
    model = load_model("llama2-7b")
    half, full = (replace(NF4, compute_dtype=dtype) for dtype in ("bfloat16", "float32"))
    rest = 131_072_000 + 65 * 4096
    assert arithmetic.resident_weight_bytes(model, full) - arithmetic.resident_weight_bytes(model, half) == 2 * rest


@pytest.mark.parametrize(
    ("model", "workload", "checkpointing", "spared"),
    [
        ("phi-1.5", "lora", "full", 1), ("stablelm-3b", "adapter", "full", 1), ("phi-1.5", "adapter_v2", "full", 0),
        ("phi-1.5", "train", "full", 0), ("llama2-7b", "lora", "full", 0), ("phi-1.5", "lora", "none", 0),
    ],
)  # fmt: skip
def test_an_mlp_that_no_gradient_passes_is_not_recomputed(model, workload, checkpointing, spared):
    cell = make_cell(model=model, workload=workload, activation_checkpointing=checkpointing)
    assert arithmetic.num_spared_mlps(cell.config.model.num_layers, cell.config) == spared


def test_an_adapter_spares_the_mlp_of_its_first_block_alone():
    leaves = {"activation_checkpointing.every": "1/2", "workload.adapter_start_layer": 3}
    cell = make_cell(model="phi-1.5", workload="adapter", activation_checkpointing="selective", leaves=leaves)
    assert arithmetic.num_spared_mlps(24, cell.config) == 0


@pytest.mark.parametrize(
    ("inputs", "outputs", "rows"),
    [
        (4096, 32000, 64),
        (4096, 22016, 48),
        (4096, 12288, 32),
        (22016, 8192, 16),
        (11008, 4096, 5),  # six or seven are unpacked for
        (4096, 4096, 7),
        (5120, 5120, 5),
        (4096, 4608, 16),
        (8192, 2048, 7),
        (2048, 8192, 16),
    ],
)
def test_bitsandbytes_unpacks_for_more_rows_than_these(inputs, outputs, rows):
    """Read from its release 0.50; peaks of five models' generations with it are in test_memory.py."""
    assert arithmetic.most_fused_rows(inputs, outputs) == rows

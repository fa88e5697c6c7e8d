"""The walk through a step against peaks that were measured on H200s (docs/results), and how terms move."""

import pytest

from benchrunner.core import arithmetic
from benchrunner.core.units import GIB
from benchrunner.plan.live_memory import Tape
from benchrunner.plan.memory import peak_memory
from samples import make_cell

LAYERS_OF_7B = {
    "model.num_layers": 2, "model.d_model": 4096, "model.d_ff": 11008, "model.num_heads": 32, "model.num_kv_heads": 32,
    "model.vocab_size": 32000, "model.max_seq_len": 4096, "seq_len": 4096,
}  # fmt: skip


LAYERS_OF_3B = {
    "model.num_layers": 26, "model.d_model": 3200, "model.d_ff": 8640, "seq_len": 2048, "micro_batch_size": 2,
}  # fmt: skip


def peak_gib(devices=1, leaves=None, **axes):
    cell = make_cell(visible_devices=devices, leaves=LAYERS_OF_7B | (leaves or {}), **axes)
    return peak_memory(cell).total_bytes / GIB


@pytest.mark.parametrize(
    ("strategy", "precision", "compile", "checkpointing", "measured_gib"),
    [
        ("single", "bf16", "eager", "none", 6.62),
        ("single", "bf16", "eager", "full", 5.38),
        ("single", "bf16", "inductor", "none", 5.47),
        ("single", "bf16-mixed", "eager", "none", 11.50),
        ("single", "bf16-mixed", "inductor", "none", 10.29),
        ("single", "bf16-mixed", "inductor", "full", 10.13),
        ("single", "bf16-mixed", "eager", "selective", 10.47),
        ("single", "fp8", "eager", "none", 7.46),
        ("single", "fp8", "inductor", "none", 6.59),
        ("single", "fp8-torchao", "eager", "full", 5.97),
        ("single", "fp8-torchao", "inductor", "none", 5.27),
        ("ddp", "bf16", "eager", "none", 7.86),
        ("ddp", "bf16", "inductor", "full", 5.91),
        ("ddp", "bf16-mixed", "eager", "none", 13.98),
        ("ddp", "bf16-mixed", "inductor", "none", 12.78),
        ("ddp", "bf16-mixed", "inductor", "full", 11.25),
        ("ddp", "bf16-mixed", "inductor", "selective", 11.86),
        ("fsdp_stage2", "bf16", "eager", "none", 6.00),
        ("fsdp_stage2", "bf16-mixed", "inductor", "full", 6.88),
        ("fsdp_stage3", "bf16", "eager", "none", 5.62),
        ("fsdp_stage3", "bf16-mixed", "eager", "none", 7.48),
        ("fsdp_stage3", "fp8", "eager", "none", 5.47),
        ("fsdp_stage3", "fp8-torchao", "eager", "selective", 5.16),
    ],
)
def test_published_peaks(strategy, precision, compile, checkpointing, measured_gib):
    predicted = peak_gib(
        1 if strategy == "single" else 2,
        strategy=strategy, precision=precision, compile=compile, activation_checkpointing=checkpointing,
    )  # fmt: skip
    assert predicted == pytest.approx(measured_gib, rel=0.01)


def test_each_block_that_keeps_its_casts_counts_under_a_compiler():
    """Four layers of fp16-mixed: 16.76 GiB were measured, 0.38 of them casts of a block."""
    predicted = peak_gib(leaves={"model.num_layers": 4}, precision="fp16-mixed", compile="inductor")
    assert predicted == pytest.approx(16.76, rel=0.011)


GPT2 = {
    "model.num_layers": 12, "model.d_model": 768, "model.d_ff": 3072, "model.num_heads": 12, "model.num_kv_heads": 12,
    "model.vocab_size": 50257, "model.max_seq_len": 1024, "model.norm": "layernorm", "model.mlp": "gelu_tanh",
    "model.positions": "learned", "model.tie_embeddings": True, "model.bias": True, "seq_len": 1024,
    "micro_batch_size": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "precision", "compile", "measured_gib"),
    [
        ("single", "bf16-mixed", "eager", 9.36),
        ("ddp", "bf16-mixed", "eager", 9.83),
        ("fsdp_stage3", "bf16-mixed", "inductor", 4.24),
        ("single", "fp8", "eager", 7.74),
        ("single", "fp8", "inductor", 3.98),
        ("ddp", "fp8", "inductor", 4.21),
    ],
)
def test_published_peaks_with_accumulation_and_a_tied_head(strategy, precision, compile, measured_gib):
    devices = 1 if strategy == "single" else 2
    leaves = GPT2 | {"global_batch_size": 64 * devices}
    predicted = peak_gib(devices, leaves, strategy=strategy, precision=precision, compile=compile)
    assert predicted == pytest.approx(measured_gib, rel=0.01)


@pytest.mark.parametrize(
    ("workload", "precision", "compile", "measured_gib"),
    [
        ("lora", "bf16", "eager", 2.58),
        ("lora", "nf4", "eager", 1.87),
        ("adapter", "bf16", "eager", 2.50),
        ("adapter", "nf4", "eager", 1.78),
        ("adapter_v2", "bf16", "inductor", 2.39),
        ("adapter_v2", "nf4-dq", "eager", 2.30),
        ("generate", "bf16", "eager", 1.28),
        ("generate", "nf4", "eager", 0.65),
    ],
)
def test_published_peaks_of_finetuning_and_generation(workload, precision, compile, measured_gib):
    leaves = {"seq_len": 2048, "workload.adapter_start_layer": 0}
    predicted = peak_gib(workload=workload, precision=precision, compile=compile, leaves=leaves)
    assert predicted == pytest.approx(measured_gib, rel=0.012)


@pytest.mark.parametrize(("precision", "measured_gib"), [("bf16", 2.40), ("nf4", 1.12), ("nf4-dq", 1.09)])
def test_published_peaks_of_sharded_generation(precision, measured_gib):
    predicted = peak_gib(2, workload="generate", strategy="fsdp_stage3", precision=precision)
    assert predicted == pytest.approx(measured_gib, rel=0.01)


STABLELM_3B = {
    "model.num_layers": 16, "model.d_model": 4096, "model.d_ff": 16384, "model.num_heads": 32,
    "model.num_kv_heads": 32, "model.vocab_size": 50688, "model.mlp": "gelu", "model.norm": "layernorm",
    "model.bias": True, "model.parallel_residual": True, "seq_len": 1034, "global_batch_size": 256,
}  # fmt: skip


def test_finetuning_in_shards_peaks_where_the_first_block_is_gathered_beside_the_root():
    """Frozen parameters leave little but them: 5.76 GiB were measured, 5.77 dry run."""
    axes = {"workload": "lora", "strategy": "fsdp_stage3", "activation_checkpointing": "full", "precision": "bf16"}
    leaves = STABLELM_3B | {"workload.loss_chunk_tokens": 128}
    assert peak_gib(2, leaves=leaves, **axes) == pytest.approx(5.763, rel=0.003)


@pytest.mark.parametrize(
    ("workload", "compile", "dry_run_gib"), [("adapter_v2", "eager", 4.94), ("lora", "inductor", 3.81)]
)
def test_finetuning_in_shards_peaks_where_two_blocks_are_copied_from_buffers(workload, compile, dry_run_gib):
    seq_len = 1024 if workload == "adapter_v2" else 512
    leaves = {"model.num_layers": 8, "seq_len": seq_len}
    predicted = peak_gib(2, leaves=leaves, workload=workload, compile=compile, strategy="fsdp_stage3", precision="bf16")
    assert predicted == pytest.approx(dry_run_gib, rel=0.005)


@pytest.mark.parametrize("workload", ["forward", "generate"])
def test_stage_2_keeps_every_block_of_an_inference(workload):
    """And one is copied out of its buffer; under stage 3 the root is, too, beside the first block."""
    stages = [
        peak_gib(2, leaves={"model.num_layers": 6, "seq_len": 128}, workload=workload, strategy=f"fsdp_stage{stage}")
        for stage in (2, 3)
    ]
    model = make_cell(leaves=LAYERS_OF_7B | {"model.num_layers": 6}).config.model
    block = arithmetic.block_matmul_parameters(model)
    root = arithmetic.num_parameters(model) - 6 * block
    assert stages[0] - stages[1] == pytest.approx(2 * (root + 7 * block - 2 * (root + block)) / GIB, rel=0.001)


FAMILIES = {
    "llama": ({}, 1075.1),
    "gpt2": ({"model.d_model": 1600, "model.d_ff": 6400, "model.num_heads": 25, "model.num_kv_heads": 25,
              "model.mlp": "gelu_tanh", "model.norm": "layernorm", "model.positions": "learned", "model.bias": True,
              "model.max_seq_len": 1024, "model.tie_embeddings": True}, 237.8),
    "falcon": ({"model.d_model": 4544, "model.d_ff": 18176, "model.num_heads": 71, "model.num_kv_heads": 1,
                "model.mlp": "gelu", "model.norm": "layernorm", "model.parallel_residual": True,
                "model.shared_norm": True, "model.tie_embeddings": True}, 1036.5),
    "stablelm": ({"model.d_ff": 16384, "model.mlp": "gelu", "model.norm": "layernorm", "model.bias": True,
                  "model.parallel_residual": True}, 1011.3),
}  # fmt: skip
"""What differs from Llama-2-7B → MiB that the dry run says of two samples of 1024 tokens."""


@pytest.mark.parametrize(("leaves", "dry_run_mib"), FAMILIES.values(), ids=FAMILIES)
def test_a_forward_pass_holds_what_its_family_makes(leaves, dry_run_mib):
    small = {"model.vocab_size": 1024, "seq_len": 1024, "micro_batch_size": 2}
    assert 1024 * peak_gib(workload="forward", precision="bf16", leaves=small | leaves) == pytest.approx(
        dry_run_mib, rel=0.01
    )


@pytest.mark.parametrize(
    ("workload", "precision", "samples", "measured_gib"),
    [
        ("lora", "bf16", 1, 18.33),
        ("lora", "nf4", 1, 9.65),
        ("lora", "bf16", 4, 35.37),
        ("adapter", "bf16", 1, 17.80),
        ("adapter_v2", "nf4", 1, 12.81),
    ],
)
def test_peaks_of_finetuning_are_those_of_the_longest_sample(workload, precision, samples, measured_gib):
    """Llama-2-7B at full depth, lengths like Alpaca's with a sample of 1,304 tokens, measured over the whole run."""
    lengths = {"workload.lengths": "alpaca", "workload.longest": 1304, "workload.loss_chunk_tokens": 128}
    leaves = {"model.num_layers": 32, "global_batch_size": 128, "micro_batch_size": samples, **lengths}
    assert peak_gib(workload=workload, precision=precision, leaves=leaves) == pytest.approx(measured_gib, rel=0.012)


@pytest.mark.parametrize(
    ("axes", "leaves", "measured_gib"),
    [
        ({"workload": "forward"}, {}, 2.52),
        ({"workload": "forward", "compile": "inductor"}, {}, 2.34),
        ({"activation_checkpointing": "selective"}, {"activation_checkpointing.every": "per_op"}, 9.13),
        ({"optimizer": "paged-adamw"}, {}, 6.18),
    ],
)
def test_published_peaks_of_options(axes, leaves, measured_gib):
    predicted = peak_gib(leaves={"model.num_layers": 4} | leaves, precision="bf16", **axes)
    assert predicted == pytest.approx(measured_gib, rel=0.015)


@pytest.mark.parametrize(
    ("ranks", "axes", "leaves", "measured_gib"),
    [
        (1, {}, {}, 5.67),
        (1, {"workload": "lora"}, {}, 2.93),
        (2, {"strategy": "ddp"}, {}, 6.91),
        (2, {"strategy": "fsdp_stage3"}, {}, 4.75),
        (1, {"optimizer": "sgd"}, LAYERS_OF_3B, 16.10),
    ],
)
def test_published_peaks_of_thunder_block_by_block(ranks, axes, leaves, measured_gib):
    """It makes the norms' outputs and the MLP's product anew, and keeps the logits in fp32 (saved tensors on a CPU)."""
    predicted = peak_gib(ranks, leaves=leaves, precision="bf16", compile="thunder", **axes)
    assert predicted == pytest.approx(measured_gib, rel=0.02)


def test_thunder_s_own_ddp_has_no_buckets():
    own = {"leaves": {"compile.scope": "model"}, "precision": "bf16", "compile": "thunder"}
    assert peak_gib(2, strategy="ddp", **own) == peak_gib(**own)


def test_the_terms_are_the_peak_and_hold_the_lower_bound():
    cell = make_cell(visible_devices=2, leaves=LAYERS_OF_7B, strategy="ddp")
    peak = peak_memory(cell)
    assert sum(peak.terms.values()) == pytest.approx(peak.total_bytes, abs=len(peak.terms))
    resident = sum(peak.terms[name] for name in ("parameters", "gradients", "optimizer"))
    assert resident == arithmetic.memory_lower_bound_bytes(cell.config, cell.sizes)


def test_accumulation_keeps_gradients_between_micro_steps():
    once, often = (peak_gib(leaves={"global_batch_size": size}) for size in (1, 4))
    gradients = arithmetic.num_parameters(make_cell(leaves=LAYERS_OF_7B).config.model) * 2 / GIB
    assert often - once == pytest.approx(gradients, rel=1e-6)


def test_a_chunked_loss_needs_less():
    whole, chunked = peak_gib(), peak_gib(leaves={"workload.loss_chunk_tokens": 512})
    assert whole - chunked > 0.5


def test_every_second_block_lies_between_all_and_none():
    none, half, full = (
        peak_gib(activation_checkpointing=name, leaves={"model.num_layers": 8})
        for name in ("none", "selective", "full")
    )
    assert full < half < none


def test_deep_models_are_walked_in_full():
    depths = [peak_gib(leaves={"model.num_layers": layers}) for layers in (8, 9, 10)]
    assert depths[2] - depths[1] == pytest.approx(depths[1] - depths[0], rel=1e-9)


def test_a_tape_remembers_what_was_alive_at_its_peak():
    tape = Tape()
    tape.take("parameters", 5)
    tape.phase = "loss"
    tape.take("logits", 7)
    tape.drop("logits", 7)
    tape.take("gradients", 6)
    assert (tape.peak, tape.peak_phase, tape.total) == (12, "loss", 11)
    assert (tape.at_peak["parameters"], tape.at_peak["logits"], tape.at_peak["gradients"]) == (5, 7, 0)


def test_an_adapter_keeps_nothing_below_its_first_prompt():
    """Four layers of Llama-2-7B with prompts in two of them: 4.45 GiB on an H200."""
    four = {"model.num_layers": 4, "model.rope_base": 10000.0}
    above = {**four, "workload.adapter_start_layer": 2}
    all_of_them = {**four, "workload.adapter_start_layer": 0}
    assert peak_gib(workload="adapter", leaves=above) == pytest.approx(4.45, rel=0.03)
    assert peak_gib(workload="adapter", leaves=all_of_them) > 1.15 * peak_gib(workload="adapter", leaves=above)


def counted(leaves=None, **axes):
    """The peak without weights and workspaces, which are those of an inference; in elements of 2 bytes."""
    cell = make_cell(visible_devices=1, leaves=LAYERS_OF_7B | (leaves or {}), precision="bf16", **axes)
    peak = peak_memory(cell)
    assert peak.terms["parameters"] == arithmetic.num_parameters(cell.config.model) * 2
    assert peak.terms["workspaces"] == 33 * 2**20
    return (peak.total_bytes - peak.terms["parameters"] - peak.terms["workspaces"]) / 2, peak.phase


FEW_WORDS = {"model.vocab_size": 512}
GELU = {**FEW_WORDS, "model.mlp": "gelu"}


@pytest.mark.parametrize(
    ("leaves", "compiler", "inputs", "wide"),
    [
        (FEW_WORDS, "eager", 5, 4),
        (FEW_WORDS, "inductor", 3, 3),
        (GELU, "eager", 5, 2),
        (GELU | {"model.parallel_residual": True}, "eager", 4, 2),
        (GELU | {"model.parallel_residual": True, "model.shared_norm": True}, "eager", 3, 2),
    ],
)
def test_a_forward_pass_is_widest_in_an_mlp(leaves, compiler, inputs, wide):
    assert counted(leaves, workload="forward", compile=compiler) == (4096 * (inputs * 4096 + wide * 11008), "forward")


def test_with_many_words_a_forward_pass_is_largest_at_its_end():
    words = 128000
    found = counted({"model.vocab_size": words}, workload="forward")
    assert found == (4096 * (2 * 4096 + words), "loss")


def test_generation_holds_its_cache_and_two_rows_of_logits_in_float32():
    leaves = {"generate.prompt_length": 1, "generate.new_tokens": 205, "micro_batch_size": 3}
    many = leaves | {"model.vocab_size": 128000}
    cache, logits = 2 * 2 * 3 * 206 * 4096, 2 * 3 * 128000 * 2
    assert counted(many, workload="generate") == (cache + logits + 2 * 3 * 4096, "prefill")
    few = leaves | FEW_WORDS
    assert counted(few, workload="generate") == (cache + 3 * (5 * 4096 + 4 * 11008), "prefill")


def test_a_long_prompt_has_its_way_through_a_block_beside_the_cache():
    leaves = FEW_WORDS | {"generate.prompt_length": 4096, "generate.new_tokens": 4, "micro_batch_size": 2}
    cache = 2 * 2 * 2 * 4100 * 4096
    assert counted(leaves, workload="generate") == (cache + 8192 * (5 * 4096 + 4 * 11008), "prefill")


PROMPT, LONG_PROMPT = {"generate.prompt_length": 32}, {"generate.prompt_length": 512}
EIGHT = {"micro_batch_size": 8} | LONG_PROMPT
LONG = {"micro_batch_size": 8, "generate.prompt_length": 2048, "generate.new_tokens": 32}
GRAPHS = {"compile.mode": "reduce-overhead", "compile.scope": "model"}


@pytest.mark.parametrize(
    ("axes", "leaves", "layers", "gib"),
    [
        # What the dry run says of three blocks of Llama-2-7B.
        ({"workload": "generate", "precision": "bf16"}, EIGHT, 3, 2.41),
        ({"workload": "generate", "precision": "nf4"}, EIGHT, 3, 1.45),
        ({"workload": "generate", "precision": "nf4-dq"}, {"micro_batch_size": 2} | PROMPT, 3, 0.827),
        ({"workload": "generate", "precision": "nf4"}, {"micro_batch_size": 1}, 3, 0.759),
        # Measured on H200s (docs/results/2026-11-29-h200-predictions.md).
        ({"workload": "generate", "precision": "bf16"}, LONG, 2, 3.753),
        ({"workload": "generate", "precision": "nf4"}, LONG, 2, 3.035),
        ({"workload": "generate", "precision": "bf16-mixed"}, LONG, 2, 5.495),
        ({"workload": "forward", "precision": "bf16-mixed"}, {"micro_batch_size": 2, "seq_len": 1024}, 3, 3.716),
        ({"workload": "forward", "precision": "nf4"}, {"micro_batch_size": 2, "seq_len": 1024}, 3, 1.062),
        # Graphs are recorded while kernels are tuned.
        ({"workload": "generate", "precision": "bf16", "compile": "inductor"}, GRAPHS, 4, 2.269),
        ({"workload": "generate", "precision": "bf16", "compile": "inductor"}, GRAPHS, 32, 12.91),
        ({"workload": "generate", "precision": "bf16", "compile": "inductor"}, GRAPHS | LONG_PROMPT, 2, 1.391),
    ],
)  # fmt: skip
def test_a_pass_without_gradients_holds_what_it_unpacks_casts_and_tunes(axes, leaves, layers, gib):
    leaves = LAYERS_OF_7B | {"model.num_layers": layers} | leaves
    assert peak_gib(leaves=leaves, **axes) == pytest.approx(gib, rel=0.01)


DYNAMIC = {"compile.dynamic": True}
STEPS = {"measure.warmup_steps": 24, "measure.steps": 8}


@pytest.mark.parametrize(
    ("model", "precision", "measured_gb"),
    [
        ("phi-1.5", "nf4", 0.9957), ("stablelm-3b", "nf4", 2.540), ("llama2-7b", "nf4", 4.140),
        ("llama2-13b", "nf4-dq", 7.216), ("codellama-34b", "nf4", 19.43), ("falcon-40b", "nf4", 24.34),
        ("llama2-70b", "nf4-dq", 36.08), ("llama2-13b", "bf16", 26.16), ("phi-1.5", "bf16", 2.884),
    ],
)  # fmt: skip
def test_published_peaks_of_generations(model, precision, measured_gb):
    """docs/results/2026-11-29-h200-litgpt-resources.md: Lit-GPT's prompt of six tokens, and 50 after it."""
    leaves = {"generate.new_tokens": 50, "micro_batch_size": 1}
    cell = make_cell(model=model, workload="generate", precision=precision, leaves=leaves)
    assert peak_memory(cell).total_bytes / 1e9 == pytest.approx(measured_gb, rel=0.006)


@pytest.mark.parametrize(
    ("axes", "leaves", "measured_gib"),
    [
        ({"compile": "thunder"}, {"compile.scope": "model", "seq_len": 2048}, 5.569),
        ({"compile": "thunder"}, {"compile.scope": "model"}, 5.906),
        ({"compile": "inductor", "workload": "lora"}, {"workload.lengths": "alpaca"} | DYNAMIC, 1.738),
        ({"compile": "inductor", "workload": "lora"}, {"workload.lengths": "uniform"} | DYNAMIC | STEPS, 2.506),
    ],
)  # fmt: skip
def test_peaks_of_steps_that_were_looked_into(axes, leaves, measured_gib):
    """Snapshots of the allocator at the peak, 1 December 2026 (docs/results/2026-11-29-h200-predictions.md)."""
    leaves = LAYERS_OF_7B | {"model.num_layers": 2, "micro_batch_size": 1} | leaves
    assert peak_gib(leaves=leaves, precision="bf16", **axes) == pytest.approx(measured_gib, rel=0.012)


LLAMA_3 = {"model.num_kv_heads": 8, "model.d_ff": 14336, "model.vocab_size": 128256, "model.num_layers": 2,
           "seq_len": 2048, "micro_batch_size": 1}  # fmt: skip


@pytest.mark.parametrize(
    ("compiler", "length", "measured_gib"),
    [("eager", 2048, 22.735), ("inductor", 2048, 22.254), ("eager", 4096, 31.110), ("inductor", 4096, 27.204)],
)
def test_no_kernel_takes_fp32_in_groups_of_heads(compiler, length, measured_gib):
    leaves = LAYERS_OF_7B | LLAMA_3 | {"seq_len": length}
    assert peak_gib(leaves=leaves, precision="fp32", compile=compiler) == pytest.approx(measured_gib, rel=0.006)


@pytest.mark.parametrize(("compiler", "measured_gib", "rel"), [("eager", 15.280, 0.005), ("inductor", 11.446, 0.03)])
def test_scores_of_torch_s_own_formula_are_in_fp32(compiler, measured_gib, rel):
    leaves = LAYERS_OF_7B | {"model.num_layers": 2, "micro_batch_size": 1, "attention": "math"}
    assert peak_gib(leaves=leaves, precision="bf16", compile=compiler) == pytest.approx(measured_gib, rel=rel)


@pytest.mark.parametrize("workload", ["lora", "adapter", "adapter_v2"])
def test_what_finetuning_adds_lies_beside_the_weights(workload):
    cell = make_cell(visible_devices=1, leaves=LAYERS_OF_7B, precision="bf16", workload=workload)
    config = cell.config
    added = arithmetic.num_added_parameters(config.model, config.workload)
    assert peak_memory(cell).terms["parameters"] == 2 * (arithmetic.num_parameters(config.model) + added)

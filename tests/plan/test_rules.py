"""Rule files, and what the shipped rules decide."""

import pytest

from benchrunner.core.errors import ConfigError
from benchrunner.core.paths import config_dir
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.rules import find_rule, load_rules
from samples import CPU, H200, make_cell

RULES = load_rules(config_dir() / "compat.yaml")


def decide(hardware=CPU, leaves=None, **axes):
    cell = make_cell(leaves=leaves, visible_devices=2 if hardware is CPU else 4, **axes)
    ruling = find_rule(cell, hardware, RULES)
    return (ruling.code, ruling.reason_for(cell)) if ruling else (None, None)


@pytest.mark.parametrize("hardware", [CPU, H200], ids=["cpu", "h200"])
@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp_stage2", "fsdp_stage3"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16-mixed"])
@pytest.mark.parametrize("compiler", ["eager", "inductor"])
@pytest.mark.parametrize("checkpointing", ["none", "full", "selective"])
def test_the_spine_is_ruled_in(hardware, strategy, precision, compiler, checkpointing):
    axes = {"strategy": strategy, "precision": precision, "compile": compiler}
    assert decide(hardware, activation_checkpointing=checkpointing, **axes) == (None, None)


@pytest.mark.parametrize("hardware", [CPU, H200], ids=["cpu", "h200"])
@pytest.mark.parametrize("workload", ["forward", "generate"])
@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp_stage3"])
@pytest.mark.parametrize("compiler", ["eager", "inductor"])
def test_inference_is_ruled_in(hardware, workload, strategy, compiler):
    assert decide(hardware, workload=workload, strategy=strategy, compile=compiler) == (None, None)


@pytest.mark.parametrize(
    ("code", "axes", "leaves", "hardware"),
    [
        ("rule.single_device", {}, {"devices": 2}, CPU),
        ("rule.steps_kept", {}, {"measure.steps": 174763}, CPU),
        (None, {}, {"measure.steps": 174762}, CPU),
        ("rule.steps_kept", {"strategy": "ddp"}, {"measure.steps": 87382}, H200),
        (None, {"workload": "parity"}, {"measure.steps": 174763}, CPU),
        ("rule.samples_kept", {"workload": "generate"}, {"generate.num_samples": 200_000}, CPU),
        ("rule.batch_divides", {"strategy": "ddp"}, {"global_batch_size": 3}, CPU),
        ("rule.seq_len", {}, {"model.positions": "learned", "seq_len": 129}, CPU),
        (None, {}, {"model.positions": "rotary", "seq_len": 129}, CPU),
        ("rule.seq_len", {"workload": "generate"}, {"model.positions": "learned"}, CPU),
        ("rule.head_size", {}, {"model.num_heads": 3}, CPU),
        ("rule.kv_heads", {}, {"model.num_kv_heads": 3}, CPU),
        ("rule.rotary_size", {}, {"model.rotary_fraction": 0.22}, CPU),
        ("rule.longest", {}, {"workload.lengths": "alpaca", "workload.longest": 129}, CPU),
        (None, {}, {"workload.lengths": "alpaca", "workload.longest": 128}, CPU),
        ("rule.adapter_layers", {"workload": "adapter"}, {"workload.adapter_start_layer": 4}, CPU),
        (None, {"workload": "adapter"}, {"workload.adapter_start_layer": 3}, CPU),
        (None, {"workload": "adapter_v2"}, {"workload.adapter_start_layer": 4}, CPU),
        ("rule.lengths_static", {"compile": "inductor"}, {"workload.lengths": "uniform"}, CPU),
        (None, {"compile": "inductor"}, {"workload.lengths": "uniform", "compile.dynamic": None}, CPU),
        ("rule.paged_adamw_cpu", {"optimizer": "paged-adamw"}, {}, CPU),
        ("rule.paged_adamw_sharded", {"optimizer": "paged-adamw", "strategy": "fsdp_stage2"}, {}, H200),
        (None, {"optimizer": "paged-adamw", "strategy": "ddp"}, {}, H200),
        (None, {"precision": "nf4", "workload": "lora"}, {}, CPU),
        ("rule.nodes", {"strategy": "ddp"}, {"nodes": 2}, H200),
        ("rule.backward_prefetch", {"strategy": "fsdp_stage3"}, {"strategy.backward_prefetch": "pre"}, H200),
        ("rule.policy_is_fsdp", {"precision": "bf16-mixed"}, {"strategy.mixed_precision_by": "policy"}, CPU),
        ("rule.mixed_precision_by", {"precision": "bf16"}, {"strategy.mixed_precision_by": "autocast"}, CPU),
        ("rule.scope_is_low_precision", {"precision": "bf16"}, {"precision.scope": "blocks"}, CPU),
        (None, {"precision": "nf4", "workload": "lora"}, {"precision.scope": "blocks"}, CPU),
        ("rule.mode_is_inductor", {}, {"compile.mode": "max-autotune"}, CPU),
        ("rule.dynamic_is_inductor", {}, {"compile.dynamic": True}, CPU),
        ("rule.dynamic_is_inductor", {}, {"compile.dynamic": None}, CPU),
        (None, {}, {"compile.dynamic": False}, CPU),
        ("rule.fullgraph_is_inductor", {}, {"compile.fullgraph": True}, CPU),
        ("rule.scope_is_compiled", {}, {"compile.scope": "model"}, CPU),
        ("rule.unit_is_compiled", {"workload": "generate"}, {"generate.unit": "token"}, CPU),
        (None, {"workload": "generate", "compile": "inductor"}, {"generate.unit": "token"}, CPU),
        ("rule.no_backward", {"workload": "forward", "activation_checkpointing": "full"}, {}, CPU),
        ("rule.no_optimizer", {"workload": "generate", "optimizer": "sgd"}, {}, CPU),
        ("rule.no_loss", {"workload": "forward"}, {"workload.loss_chunk_tokens": 128}, CPU),
        ("rule.no_samples", {"workload": "generate"}, {"workload.lengths": "uniform"}, CPU),
        ("rule.stage2_inference", {"workload": "forward", "strategy": "fsdp_stage2"}, {}, CPU),
        ("rule.generate_accumulation", {"workload": "generate"}, {"global_batch_size": 4}, CPU),
        ("rule.top_k", {"workload": "generate"}, {"generate.top_k": 513}, CPU),
        (
            "rule.cuda_graphs_fsdp_inference",
            {"workload": "generate", "strategy": "fsdp_stage3", "compile": "inductor"},
            {"compile.mode": "max-autotune"},
            H200,
        ),
        (
            "rule.attention_flash_mask",
            {"workload": "generate", "compile": "inductor"},
            {"attention": "flash"},
            H200,
        ),
        ("rule.cuda_graphs_cpu", {"compile": "inductor"}, {"compile.mode": "reduce-overhead"}, CPU),
        (None, {"compile": "inductor"}, {"compile.mode": "reduce-overhead"}, H200),
        ("rule.attention_cuda", {}, {"attention": "cudnn"}, CPU),
        (None, {}, {"attention": "flash"}, CPU),
        ("rule.attention_16bit", {"precision": "fp32"}, {"attention": "flash"}, H200),
        ("rule.attention_groups", {"precision": "fp32"}, {"attention": "efficient"}, H200),
        (None, {}, {"attention": "efficient", "model.num_kv_heads": 4}, H200),
        ("missing.thunder", {"compile": "thunder"}, {}, CPU),
        ("rule.fp8_cuda", {"precision": "fp8"}, {}, CPU),
        ("rule.fp8_sizes", {"precision": "fp8"}, {"model.d_ff": 351}, H200),
        ("rule.fp8_tokens", {"precision": "fp8-torchao"}, {"seq_len": 127}, H200),
        ("rule.fp8_decode", {"precision": "fp8", "workload": "generate"}, {}, H200),
        (None, {"precision": "fp8-torchao"}, {"seq_len": 127, "model.d_ff": 351}, CPU),
        (None, {"precision": "fp8"}, {"seq_len": 127, "model.d_ff": 351, "precision.pad": True}, H200),
        (None, {"precision": "fp8"}, {"model.vocab_size": 65, "precision.scope": "blocks"}, H200),
        ("rule.fp8_sizes", {"precision": "fp8"}, {"model.vocab_size": 65}, H200),
        (None, {"precision": "fp8"}, {"model.vocab_size": 65, "model.tie_embeddings": True}, H200),
        ("rule.fp8_lengths", {"precision": "fp8"}, {"workload.lengths": "uniform", "workload.min_length": 1}, H200),
        ("rule.fp8_recipe", {"precision": "fp8"}, {"precision.recipe": "rowwise"}, H200),
        ("rule.fp8_torchao_recipe", {"precision": "fp8-torchao"}, {"precision.recipe": "delayed"}, H200),
        (None, {"precision": "fp8"}, {"precision.recipe": "block"}, H200),
        ("rule.recipe_is_fp8", {}, {"precision.recipe": "delayed"}, H200),
        ("rule.pad_is_fp8", {}, {"precision.pad": True}, CPU),
        ("rule.fp8_loss_chunks", {"precision": "fp8"}, {"workload.loss_chunk_tokens": 64}, H200),
        (None, {"precision": "fp8"}, {"workload.loss_chunk_tokens": 64, "precision.scope": "blocks"}, H200),
        (
            "rule.fp8_compiled_checkpoint",
            {"precision": "fp8", "compile": "inductor", "activation_checkpointing": "full"},
            {"compile.scope": "model"},
            H200,
        ),
        ("rule.fp8_fullgraph", {"precision": "fp8", "compile": "inductor"}, {"compile.fullgraph": True}, H200),
        (
            "rule.fp8_per_op",
            {"precision": "fp8", "activation_checkpointing": "selective"},
            {"activation_checkpointing.every": "per_op"},
            H200,
        ),
        (None, {"activation_checkpointing": "selective"}, {"activation_checkpointing.every": "per_op"}, CPU),
        ("rule.every_is_selective", {}, {"activation_checkpointing.every": "per_op"}, CPU),
        ("rule.wrap_is_fsdp", {"strategy": "ddp"}, {"strategy.wrap": "module"}, CPU),
        (None, {"strategy": "fsdp_stage3"}, {"strategy.wrap": "module"}, CPU),
        (None, {"precision": "fp16-mixed"}, {}, CPU),
        ("rule.nf4_train", {"precision": "nf4-dq"}, {}, H200),
    ],
)
def test_decisions(code, axes, leaves, hardware):
    assert decide(hardware, leaves, **axes)[0] == code


def test_reasons_carry_the_numbers():
    _, reason = decide(CPU, {"global_batch_size": 3}, strategy="ddp")
    assert reason == "global_batch_size=3 is no multiple of micro_batch_size × world size = 1 × 2"
    _, reason = decide(CPU, {"model.positions": "learned", "seq_len": 200})
    assert reason == "debug has 128 learned positions, the workload needs 200"


def test_missing_tools_are_named():
    from dataclasses import replace

    assert decide(replace(CPU, cxx=None), compile="inductor")[0] == "missing.cxx"
    assert decide(replace(CPU, python_headers=False), compile="inductor")[0] == "missing.python_headers"
    assert decide(replace(H200, packages={}), compile="inductor")[0] == "missing.triton"
    assert decide(replace(H200, packages={}), workload="lora", precision="nf4")[0] == "missing.bitsandbytes"
    assert decide(replace(CPU, cxx=None))[0] is None
    assert decide(replace(CPU, loopback=False), strategy="ddp")[0] == "missing.loopback"
    assert decide(replace(CPU, loopback=False, is_present=False), strategy="ddp")[0] is None
    assert decide(replace(CPU, loopback=False))[0] is None


def test_old_devices():
    v100 = Hardware(
        name="v100-sxm2-16gb", device_type="cuda", device_name="V100", num_devices=4, memory_bytes=1,
        compute_capability="7.0", is_present=False,
    )  # fmt: skip
    assert decide(v100, precision="bf16", compile="inductor")[0] == "rule.inductor_bf16"
    assert decide(v100, precision="fp32", compile="inductor")[0] is None
    assert decide(v100, precision="fp8")[0] == "rule.fp8_capability"


def test_libraries_are_assumed_on_a_planned_machine():
    planned = Hardware(
        name="h200-sxm-141gb", device_type="cuda", device_name="h200", num_devices=8, memory_bytes=1,
        compute_capability="9.0", is_present=False,
    )  # fmt: skip
    assert decide(planned, compile="inductor")[0] is None
    code, _ = decide(planned, precision="fp8")
    assert code is None or not code.startswith("missing.")


def test_what_is_not_there_yet_is_refused_in_words():
    for rule in (rule for rule in RULES if rule.id.startswith("not_yet_")):
        assert rule.reason.startswith("this version of benchrunner"), rule.id


def test_every_shipped_rule_has_evidence_and_a_stable_code():
    for rule in (rule for rule in RULES if not rule.is_silent):
        assert rule.evidence and rule.reason and not rule.reason.endswith("."), rule.id
        assert rule.code.startswith(("rule.", "missing.")), rule.id


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("- {id: a, match: {strategi: x}, reason: r, evidence: e}", "[0] (a)", "did you mean strategy"),
        (
            "- {id: a, match: {strategy: x}, reason: 'r {world_sise}', evidence: e}",
            "[0] (a)",
            "did you mean world_size",
        ),
        ("- {id: a, match: {}, reason: r, evidence: e}", "[0]", "a rule has"),
        ("- {id: a, match: {strategy: x}, reason: r}", "[0]", "a rule has"),
        ("- {id: a, match: {strategy: x}, reason: r, evidence: e, cod: x}", "[0]", "a rule has"),
        ("- &x {id: a, match: {strategy: x}, reason: r, evidence: e}\n- *x", "", "two rules have the id a"),
        ("- {id: a, match: {strategy: x}, unread: [seed]}\n- {id: b}", "[1]", "a rule has"),
        ("- {id: a, match: {strategy: x}, unread: [sed]}", "[0] (a)", "did you mean seed"),
        ("- {id: a, match: {strategy: x}, unread: seed}", "[0]", "unread is a list"),
        ("- {id: a, match: {strategy: x}, unread: [seed], reason: r}", "[0]", "a rule has"),
        ("- [", "", "cannot be read"),
    ],
)
def test_a_bad_rule_file_says_so_and_where(tmp_path, text, place, said):
    path = tmp_path / "compat.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_rules(path)
    assert caught.value.key == f"compat.yaml{place}"


def test_a_rule_may_only_say_what_is_not_read(tmp_path):
    path = tmp_path / "compat.yaml"
    path.write_text("- {id: a, match: {strategy: single}, unread: [seed, devices]}\n")
    (rule,) = rules = load_rules(path)
    assert (rule.unread, rule.is_silent, rule.evidence) == (("seed", "devices"), True, "")
    assert find_rule(make_cell(), CPU, rules) is find_rule(make_cell(), CPU, list(rules)) is None


def test_what_was_decided_of_a_cell_decides_nothing_of_another_with_its_options(tmp_path):
    path = tmp_path / "compat.yaml"
    path.write_text("- {id: a, match: {strategy: single, seq_len: '>99'}, reason: '{seq_len}', evidence: e}\n")
    rules, lengths = load_rules(path), (99, 100, 99, 101)
    found = [find_rule(cell, CPU, rules) for cell in (make_cell(leaves={"seq_len": length}) for length in lengths)]
    assert [ruling is not None for ruling in found] == [False, True, False, True]


def test_the_first_rule_that_fits_decides(tmp_path):
    path = tmp_path / "compat.yaml"
    path.write_text(
        "- {id: one, match: {strategy: ddp, device_type: cuda}, reason: r, evidence: e}\n"
        "- {id: two, match: {strategy: ddp}, reason: r, evidence: e, code: missing.x}\n"
        "- {id: three, match: {strategy: '*'}, reason: r, evidence: e}\n"
    )
    rules = load_rules(path)
    assert find_rule(make_cell(strategy="ddp"), H200, rules).id == "one"
    assert find_rule(make_cell(strategy="ddp"), CPU, rules).code == "missing.x"
    assert find_rule(make_cell(), CPU, rules).id == "three"

"""Every lie changes what its cells do, changes nothing for the reference of parity, and leaves nothing behind."""

import functools
import sys

import pytest
import torch

from benchrunner.core import faults as names
from benchrunner.core.faults import parse_fault
from benchrunner.worker.context import Context
from benchrunner.worker.engines.engine import build
from benchrunner.worker.faults import lies
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.workloads import parity, train
from cells import make_cell, make_context

SMALL = ["model.num_layers=2", "model.d_model=32", "model.d_ff=64", "model.vocab_size=64", "seq_len=16"]
FULL = "activation_checkpointing=full"
TWO = ["strategy=ddp", "devices=2"]

STRUCK: dict[str, list[str]] = {
    "no_reduce": TWO,
    "no_shard": ["strategy=fsdp_stage3", "devices=2"],
    "no_recompute": [FULL],
    "no_convert": ["precision=fp8-torchao"],
    "zero_norm": [],
    "frozen": [],
    "wrong_shape": [],
    "recompile": ["compile=inductor"],
    "short_batch": [],
    "same_data": TWO,
    "half_sequence": [],
    "empty_steps": [],
    "half_blocks": ["workload=forward"],
    "recompute_prefix": ["workload=generate"],
    "other_recipe": ["precision=fp8-torchao"],
    "other_packing": ["precision=nf4", "workload=lora"],
    "other_storage": ["precision=bf16-mixed"],
    "other_reduction": [*TWO, "precision=bf16-mixed"],
    "no_dropout": ["model.dropout=0.1"],
    "eval_mode": [],
    "other_compiler": ["compile=inductor"],
    "compiled_eager": [],
    "one_unit": ["strategy=fsdp_stage3", "devices=2"],
    "other_checkpointing": [FULL],
    "same_batch": [],
    "same_after_first": TWO,
    "one_micro_batch": ["global_batch_size=2", "micro_batch_size=1"],
    "double_reduce": TWO,
    "wrong_scale": ["global_batch_size=2", "micro_batch_size=1"],
    "stale_recompute": [FULL],
    "wrong_linear": ["precision=fp8-torchao"],
    "not_causal": [],
    "no_positions": [],
    "short_window": [],
    "wrong_heads": [],
    "no_attention": [],
    "half_mlp": [],
    "loud_adapter": ["workload=lora"],
    "wrong_adapter": ["workload=adapter"],
    "scaled_loss": [],
    "undivided_loss": ["global_batch_size=2", "micro_batch_size=1"],
    "stopped_keys": [],
    "wrong_lr": [],
    "no_decay": [],
    "wrong_betas": [],
    "no_clipping": ["optimizer.clip_norm=1"],
    "wrong_activation": [],
    "sharp_attention": [],
    "other_rows": ["micro_batch_size=2"],
    "late_cache": ["workload=generate"],
    "half_micro_batches": ["global_batch_size=4", "micro_batch_size=1"],
    "fewer_steps": [],
    "claimed_twice": [],
    "greedy": ["workload=generate"],
    "no_top_k": ["workload=generate", "generate.top_k=5"],
    "first_logits": ["workload=generate"],
    "few_tokens": [],
    "half_lengths": ["workload.lengths=uniform"],
    "coarse_loss": [],
    "kept_weights": ["precision=nf4", "workload=lora"],
    "other_kernel": ["attention=math"],
    "other_engine": ["engine=fabric"],
    "unfused": [],
    "other_sync": [*TWO, "global_batch_size=4"],
    "other_mixing": ["strategy=fsdp_stage3", "devices=2", "precision=bf16-mixed"],
    "head_compiled": ["compile=inductor", "compile.scope=model"],
    "kept_products": [FULL],
    "same_drops": ["model.dropout=0.1"],
    "small_weights": [],
    "counted_twice": ["model.tie_embeddings=true"],
    "piled_gradients": [],
    "seldom_updates": [],
    "idle_window": [],
    "other_optimizer": [],
}
"""Lie → a cell that it is made for."""


@functools.cache
def cell_of(*words):
    return make_cell(*SMALL, *words)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def alone(tmp_path):
    """The last rank of a cell, or another, without its peers: nothing may ask them."""

    def make(*words, rank=None):
        cell = cell_of(*words)
        place = {"rank": cell.sizes.world_size - 1 if rank is None else rank, "world_size": cell.sizes.world_size}
        return Context(cell=cell, hardware={"device_type": "cpu"}, path=tmp_path / "rank.json", **place)

    return make


def namespace():
    """(Where, name) → object, of all that the worker's modules, their classes and their registries hold."""
    found = {}
    for module in [module for name, module in sys.modules.items() if name.startswith("benchrunner.worker")]:
        for name, value in vars(module).items():
            found[module.__name__, name] = value
            is_own = isinstance(value, type) and value.__module__.startswith("benchrunner.")
            inside = vars(value) if is_own else value if isinstance(value, dict) and not name.startswith("__") else {}
            found |= {(f"{module.__name__}.{name}", key): held for key, held in inside.items()}
    return found


def differing(before, after):
    return {where for where in before | after if before.get(where) is not after.get(where)}


def test_every_lie_is_known():
    assert set(lies.LIES) == set(names.LIES) == set(STRUCK)


# --- what is patched


@pytest.mark.parametrize("kind", STRUCK)
def test_a_lie_is_there_inside_and_leaves_nothing_behind(alone, kind):
    before = namespace()
    with pytest.raises(ZeroDivisionError), planted(parse_fault(kind), alone(*STRUCK[kind])):
        struck = differing(before, namespace()) - {("benchrunner.worker.workloads.parity", "reference_loop")}
        assert struck
        raise ZeroDivisionError
    assert differing(before, namespace()) == set()


@pytest.mark.parametrize("text", [None, *(f"{kind}@1" for kind in STRUCK)])
def test_without_a_lie_of_its_own_a_rank_runs_the_code_that_is_read(alone, text):
    before = namespace()
    with planted(parse_fault(text), alone(*TWO, rank=0)):
        assert differing(before, namespace()) == set()


def test_a_lie_hits_the_rank_that_it_names(alone):
    before = namespace()
    with planted(parse_fault("same_data@1"), alone(*TWO, rank=1)):
        assert differing(before, namespace())


@pytest.mark.parametrize("kind", STRUCK)
def test_the_reference_of_parity_is_made_as_without_the_lie(alone, monkeypatch, kind):
    monkeypatch.setattr(parity, "reference_loop", lambda ours: namespace())
    before = namespace()
    with planted(parse_fault(kind), alone(*STRUCK[kind])):
        seen = parity.reference_loop(None)
        assert differing(before, namespace())
    assert differing(before, seen) <= {("benchrunner.worker.workloads.parity", "reference_loop")}


# --- what it does

EFFECTS = {
    "no_recompute": "modules",
    "no_convert": "modules",
    "zero_norm": "norms",
    "frozen": "missing",
    "wrong_shape": "modules",
    "short_batch": "tokens",
    "same_data": "tokens",
    "double_reduce": "gradients",
    "wrong_scale": "gradients",
    "stale_recompute": "gradients",
    "wrong_linear": "losses",
}
"""Lie → the fact of a step in which it shows. Two ranks are told the others in tests/worker/validity/test_checks.py."""


def facts(context, built_for):
    """What the gradients of a step are made of and come to, without the other ranks."""
    loop = train.TrainingLoop(context, build(built_for))
    loop.prepare(range(1))
    loop.backward(0)
    parameters = dict(loop.built.decoder.named_parameters())
    return {
        "tokens": [tokens.tolist() for tokens, _ in loop.consumed],
        "losses": loop.own_losses(),
        "gradients": {name: one.grad.norm().item() for name, one in parameters.items() if one.grad is not None},
        "missing": {name for name, one in parameters.items() if one.grad is None},
        "modules": [type(module).__name__ for module in loop.built.model.modules()],
        "norms": {name: one.detach().norm().item() for name, one in parameters.items() if "norm" in name},
    }


@pytest.mark.parametrize("engine", ["native", "fabric"])
@pytest.mark.parametrize("kind", EFFECTS)
def test_a_lie_shows_where_it_lies(alone, kind, engine):
    words = [*STRUCK[kind], f"engine={engine}"]
    context, single = alone(*words), make_context(cell_of(*(word for word in words if word not in TWO)))
    honest = facts(context, single)
    with planted(parse_fault(kind), context):
        lying = facts(context, single)
    assert honest[EFFECTS[kind]] != lying[EFFECTS[kind]]
    assert facts(context, single) == honest


def test_norms_start_at_zero(alone):
    with planted(parse_fault("zero_norm"), context := alone("model.tie_embeddings=true")):
        norms = [one for name, one in build(context).decoder.named_parameters() if "norm" in name]
    assert len(norms) == 5 and not any(one.any() for one in norms)


def test_every_gradient_of_a_double_reduction_is_as_many_times_too_large_as_there_are_ranks(alone):
    single = make_context(cell_of("precision=fp32"))
    honest = facts(alone(*TWO, "precision=fp32"), single)["gradients"]
    with planted(parse_fault("double_reduce"), context := alone(*TWO, "precision=fp32")):
        lying = facts(context, single)["gradients"]
    assert lying == {name: pytest.approx(2 * norm) for name, norm in honest.items()}


@pytest.mark.parametrize(("kind", "frames"), [(None, 0), ("recompile", 1)])
def test_a_recompilation_is_one_frame_a_step(alone, kind, frames):
    with planted(parse_fault(kind), context := alone("compile=inductor")):
        loop = train.TrainingLoop(context, build(context))
        before = torch._dynamo.utils.counters["frames"]["ok"]
        loop.apply()
    assert torch._dynamo.utils.counters["frames"]["ok"] == before + frames


@pytest.mark.parametrize("precision", ["fp8-torchao", "bf16-mixed", "nf4"])
def test_fabric_is_asked_for_the_precision_of_what_is_stored(alone, precision):
    words = ["engine=fabric", f"precision={precision}", *(["workload=lora"] if precision == "nf4" else [])]
    with planted(parse_fault("no_convert"), context := alone(*words)):
        built = build(context)
    stored = "32-true" if precision == "bf16-mixed" else "bf16-true"
    assert built.choices["fabric"]["precision"] == stored and set(built.choices) == {"fabric"}


# --- what it needs


@pytest.mark.parametrize(
    ("kind", "words", "what"),
    [
        ("no_reduce", [], "other rank"),
        ("no_reduce", ["workload=forward", *TWO], "backward pass"),
        ("no_shard", TWO, "parameters that torch shards"),
        ("no_shard", ["strategy=fsdp_stage3", "devices=1"], "parameters that torch shards"),
        ("no_recompute", [], "checkpointed block"),
        ("no_convert", ["precision=bf16"], "conversion to leave out"),
        ("frozen", ["workload=forward"], "backward pass"),
        ("recompile", [], "compiled function"),
        ("recompile", ["workload=parity", "compile=inductor"], "window of training steps"),
        ("same_data", [], "other rank"),
        ("double_reduce", [], "other rank"),
        ("wrong_scale", ["global_batch_size=1"], "micro-steps to divide by"),
        ("stale_recompute", [], "checkpointed block"),
        ("stale_recompute", [FULL, "compile=inductor"], "eager model"),
        ("wrong_linear", ["precision=bf16-mixed"], "linear that a precision converted"),
        ("half_sequence", ["workload=generate"], "sample that is known beforehand"),
        ("half_blocks", [], "workload without a backward pass"),
        ("recompute_prefix", ["workload=forward"], "generation"),
        ("recompute_prefix", ["workload=generate", "compile=inductor"], "eager model"),
        ("other_recipe", [], "fp8 recipe"),
        ("other_packing", [], "4-bit weights"),
        ("other_storage", [], "mixed precision"),
        ("other_reduction", TWO, "reduction in float32"),
        ("no_dropout", [], "dropout"),
        ("other_compiler", [], "function compiled by Inductor"),
        ("one_unit", TWO, "parameters that torch shards"),
        ("other_checkpointing", ["activation_checkpointing=selective"], "checkpointing of all blocks"),
        ("one_micro_batch", ["global_batch_size=1"], "second micro-step"),
        ("no_positions", ["model=gpt2-125m", "model.num_heads=2"], "rotary positions"),
        ("wrong_heads", ["model.num_kv_heads=1"], "other key-value head"),
        ("loud_adapter", [], "adapter"),
        ("no_clipping", [], "clipping"),
        ("scaled_loss", ["workload=forward"], "backward pass"),
        ("wrong_lr", ["workload=forward"], "backward pass"),
    ],
)
def test_a_lie_that_finds_nothing_to_strike_is_an_error(alone, kind, words, what):
    before = namespace()
    with (
        pytest.raises(RuntimeError, match=f"the fault {kind} found no {what}"),
        planted(parse_fault(kind), alone(*words)),
    ):
        pass
    assert differing(before, namespace()) == set()

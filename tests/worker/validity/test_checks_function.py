"""The formulas agree with every healthy model and with no lying one."""

from contextlib import nullcontext

import pytest

from asking import SHORT, ask
from benchrunner.worker.context import Context
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity import checks_function, function_tolerances, inquiry
from benchrunner.worker.validity.checks_function import function

FAMILIES = ["gpt2-125m", "phi-1.5", "stablelm-3b", "falcon-7b"]
SHAPE = ["model.d_model=64", "model.num_heads=4", "model.num_kv_heads=1", "model.d_ff=128"]
WIDER = ["model.num_layers=4", "model.vocab_size=512", "seq_len=128"]
ADAPTER = "workload.adapter_start_layer=1"
GENERATE = ["workload=generate", *SHORT]
ATTENTION = ["not_causal", "no_positions", "short_window", "wrong_heads", "no_attention", "half_mlp"]
ACCUMULATED = "global_batch_size=4"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_computes_its_formulas(family):
    found = ask(function, None, f"model={family}", *SHAPE, "precision=fp32")
    assert found.ok is True
    assert found.errors["gradient"] < 1e-5 and found.errors["loss"] < 1e-5


@pytest.mark.parametrize(
    "words",
    [
        ["precision=bf16", ACCUMULATED],
        ["precision=bf16-mixed", "workload.loss_chunk_tokens=16", "activation_checkpointing=full"],
        ["precision=fp16-mixed"],
        ["precision=fp32", "model.tie_embeddings=true", "attention=explicit"],
        ["precision=fp32", "workload.lengths=uniform", "global_batch_size=6"],
        ["precision=nf4-dq", "workload=lora"],
        ["precision=fp32", "workload=adapter_v2", ADAPTER],
        ["precision=fp32", "workload=forward"],
        ["precision=fp32", *GENERATE],
    ],
)
def test_a_healthy_cell_passes(words):
    found = ask(function, None, *words)
    assert found.ok is True, found


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["precision=bf16", "compile=inductor"],
        ["precision=bf16", "compile=inductor", "workload=lora"],
        ["precision=nf4", "compile=inductor", "workload=lora", *WIDER, "seed=1"],
        ["precision=bf16", "compile=inductor", "workload=lora", *WIDER, "seed=3"],
        ["precision=fp8-torchao"],
        ["precision=fp32", "engine=fabric"],
        ["precision=fp32", "workload=lora"],
        ["precision=fp32", "workload=adapter", ADAPTER],
        ["precision=fp32", "compile=inductor", *GENERATE, "generate.unit=token", "compile.scope=model"],
        ["precision=nf4", *GENERATE],
        ["precision=nf4", "workload=forward"],
    ],
)
def test_a_healthy_cell_passes_compiled_or_converted(words):
    found = ask(function, None, *words)
    assert found.ok is True, found


SOME = [
    *((kind, []) for kind in ["no_positions", "half_mlp", "undivided_loss", "stopped_keys"]),
    ("wrong_heads", ["workload=forward", "precision=fp32"]),
    ("short_window", GENERATE),
    ("wrong_adapter", ["workload=lora", "precision=nf4"]),
    ("loud_adapter", ["workload=adapter", ADAPTER, "precision=fp32"]),
    ("sharp_attention", ["workload=forward"]),
    ("other_rows", []),
    ("half_micro_batches", ["global_batch_size=8"]),
]
"""One of each kind, quickly; all the others are slow."""
ALL = [
    *((kind, []) for kind in [*ATTENTION, "scaled_loss", "undivided_loss", "stopped_keys", "wrong_scale"]),
    *((kind, ["workload=forward", "precision=fp32"]) for kind in ATTENTION),
    *((kind, GENERATE) for kind in ATTENTION),
    *((kind, ["workload=lora"]) for kind in ["loud_adapter", "wrong_adapter", "not_causal"]),
    *(
        (kind, ["workload=adapter", ADAPTER, precision])
        for kind in ["wrong_adapter", "no_positions"]
        for precision in ["precision=fp32", "precision=bf16"]
    ),
    *((kind, ["workload=forward"]) for kind in [*ATTENTION, "wrong_activation", "other_rows"]),
    *((kind, GENERATE) for kind in ["sharp_attention", "other_rows", "wrong_activation", "late_cache"]),
    *(("half_micro_batches", [f"global_batch_size={size}", "precision=fp32"]) for size in (16, 32, 64)),
    *((kind, ["workload=lora", "precision=nf4"]) for kind in ["loud_adapter", "wrong_adapter", "short_window"]),
]


@pytest.mark.parametrize(
    ("kind", "words"), [*SOME, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL if case not in SOME)]
)
def test_a_lie_fails(kind, words):
    precision = [] if any(word.startswith("precision") for word in words) else ["precision=bf16"]
    found = ask(function, kind, *precision, *([] if words == GENERATE else [ACCUMULATED]), *words)
    assert found.ok is False, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        *((kind, ["compile=inductor"]) for kind in ["no_positions", "half_mlp", "scaled_loss"]),
        *((kind, ["compile=inductor", "workload=lora"]) for kind in ["not_causal", "loud_adapter", "wrong_adapter"]),
        # Float8 is allowed what a large model's gradients have: a small one without positions stays within that.
        *((kind, ["precision=fp8-torchao"]) for kind in ["not_causal", "undivided_loss", "wrong_linear"]),
        *((kind, ["engine=fabric"]) for kind in ["not_causal", "stopped_keys", "wrong_heads"]),
    ],
)
def test_a_lie_fails_compiled_or_converted(kind, words):
    precision = [] if any(word.startswith("precision") for word in words) else ["precision=bf16"]
    found = ask(function, kind, *precision, *([] if words == GENERATE else [ACCUMULATED]), *words)
    assert found.ok is False, found


TRAINED = [*SHAPE, "model.num_kv_heads=4", "model=gpt2-125m", "seq_len=64", ACCUMULATED, "optimizer.lr=0.05"]
"""Two large steps, after which all places have much the same values: what queries and keys learn is nearly nothing."""


def test_other_values_for_the_questions_keep_gradients_from_drowning():
    found = ask(function, None, *TRAINED, "precision=bf16-mixed")
    assert found.ok is True and "rounding" not in found.note, found


@pytest.fixture
def as_it_is(monkeypatch):
    """The questions are asked with the values that the model has."""
    monkeypatch.setattr(checks_function, "louder", lambda *arguments: nullcontext())


def test_a_gradient_that_rounding_drowns_is_no_fault(as_it_is, monkeypatch):
    monkeypatch.setattr(function_tolerances, "FACTOR", 1.5)
    found = ask(function, None, *TRAINED, "precision=bf16-mixed")
    assert found.ok is True and "smaller than what rounding does" in found.note, found


@pytest.mark.parametrize("kind", ["stopped_keys", "wrong_heads"])
def test_a_lie_is_no_rounding(as_it_is, kind):
    found = ask(function, kind, *TRAINED, "precision=bf16-mixed")
    assert found.ok is False, found


def test_where_rounding_drowns_all_queries_and_keys_the_check_abstains(as_it_is, monkeypatch):
    monkeypatch.setattr(inquiry, "EXPLAINED", 1e9)
    found = ask(function, "scaled_loss", *TRAINED, "precision=bf16-mixed")
    assert found.ok is None and "queries and keys" in found.note


def test_a_later_token_that_counts_is_seen_by_that_alone():
    found = ask(function, "not_causal", "precision=fp32")
    assert not found.observed.endswith("moved 0")
    assert ask(function, "no_positions", "precision=fp32").observed.endswith("moved 0")


@pytest.mark.parametrize(
    ("fault", "words", "observed"),
    [("wrong_shape", [], "1 blocks"), ("half_mlp", ["model=gpt2-125m", *SHAPE], "gradient")],
)
def test_what_is_wrong_is_said(fault, words, observed):
    assert observed in ask(function, fault, "precision=fp32", *words).observed


LONG = ["global_batch_size=64", "precision=bf16"]
"""32 micro-batches a step: where a step takes 20 s, the budget has room for eight."""


def test_a_step_that_is_too_long_is_asked_in_part():
    found = ask(function, None, *LONG, step_s=20.0)
    assert found.ok is True and "with 2 of 32 micro-batches" in found.note, found
    assert ask(function, None, "precision=bf16", step_s=20.0).note == "the budget has no room for a step"
    assert "micro-batches" not in ask(function, None, *LONG).note


@pytest.mark.parametrize("kind", ["no_positions", "half_mlp", "stopped_keys", "scaled_loss", "undivided_loss"])
def test_a_lie_fails_where_a_part_of_a_step_is_asked(kind):
    assert ask(function, kind, *LONG, step_s=20.0).ok is False


def passes(monkeypatch, *words, spent_s=0.0, **more):
    """Micro-batches that the check sent through the model, question by question, and its note."""
    asked = []
    answer = TrainingLoop.ask
    monkeypatch.setattr(
        TrainingLoop,
        "ask",
        lambda loop, step, batches, weight: asked.append(len(batches)) or answer(loop, step, batches, weight),
    )
    monkeypatch.setattr(Context, "checking_s", lambda context: spent_s)
    found = ask(function, None, "precision=bf16", *words, **more)
    assert found.ok is True
    return asked, found.note


def test_what_was_left_out_is_said(monkeypatch):
    note = passes(monkeypatch, step_s=1.0, spent_s=3.5)[1]
    assert (
        "other tokens behind: the budget has no room" in note and "after the prefix not asked for: the budget" in note
    )
    assert "budget" not in (passes(monkeypatch)[1] or "")


def test_that_all_micro_batches_count_is_asked_once(monkeypatch):
    assert passes(monkeypatch, "global_batch_size=16")[0] == [8, 2, 2, 2]
    assert passes(monkeypatch, ACCUMULATED)[0][-3:] == [2, 2, 2]


@pytest.mark.parametrize(
    ("words", "step_s", "spent_s", "asked"),
    [
        ((), 1.0, 0.0, [1, 1, 1]),
        ((), 1.0, 3.5, [1]),  # one pass and those of the check `optimizer` do not fit
        ((), 4.0, 4.5, [1]),  # what cannot be asked in part is asked whatever is left
        (("global_batch_size=16",), 1.0, 3.5, [8, 2, 2, 2]),
        (("global_batch_size=16",), 2.0, 3.5, [2, 2, 2]),  # nor is there room for a whole step
        ((), 0.01, 60.0, [1, 1, 1]),  # a slow machine's small steps
    ],
)
def test_what_others_have_spent_is_not_there(monkeypatch, words, step_s, spent_s, asked):
    assert passes(monkeypatch, *words, step_s=step_s, spent_s=spent_s)[0] == asked


def test_dropout_in_a_graph_is_a_reason_to_abstain():
    found = ask(function, None, "model.dropout=0.1", "compile=inductor", "precision=fp32", num_steps=0)
    assert found.ok is None and "model.dropout=0.1" in found.note

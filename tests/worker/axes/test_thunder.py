"""Thunder's programs, where the installed pair of versions lets thunder be imported; what is refused anywhere else."""

import importlib.util

import pytest
import torch

from benchrunner.core.errors import Unsupported
from benchrunner.worker.axes import peft, thunder
from benchrunner.worker.axes.compile import COMPILERS
from benchrunner.worker.axes.thunder import mean_loss
from benchrunner.worker.engines.built import decoder_on_meta, materialise
from benchrunner.worker.model.layers import Attention
from cells import make_cell, make_context
from judged import failed, run_job

SMALL = ["model.num_layers=3", "model.vocab_size=64", "seq_len=16", "precision=fp32"]


def test_repeated_keys_are_grouped_queries():
    model = make_cell("model.num_kv_heads=1", "model.num_heads=4").config.model
    attention = Attention(model, explicit=False)
    q = torch.randn(2, 4, 8, attention.head_size)
    k, v = torch.randn(2, 2, 1, 8, attention.head_size)
    grouped = attention.attend(q, k, v, None)
    attention.repeats_keys = True
    torch.testing.assert_close(attention.attend(q, k, v, None), grouped)


def test_the_mean_loss_ignores_padding():
    logits, targets = torch.randn(2, 4, 9), torch.randint(0, 9, (2, 4))
    targets[0, 2:] = -100
    rows = torch.nn.functional.log_softmax(logits, -1)
    picked = [rows[b, t, targets[b, t]] for b in range(2) for t in range(4) if targets[b, t] != -100]
    torch.testing.assert_close(mean_loss(logits, targets), -torch.stack(picked).mean())


@pytest.mark.parametrize(("words", "own"), [(["strategy=ddp"], False), (["strategy=ddp", "compile.scope=model"], True)])
def test_thunder_spreads_what_it_compiles_as_a_whole(words, own):
    cell = make_cell(*SMALL, "compile=thunder", *words)
    assert COMPILERS["thunder"].distributes(cell) is own
    assert not COMPILERS["inductor"].distributes(cell)


def test_lora_spelled_out_is_lora():
    cell = make_cell(*SMALL, "workload=lora", "workload.lora_dropout=0")
    decoder = decoder_on_meta(cell)
    peft.apply(decoder, cell.config.workload, torch.float32)
    materialise(decoder, cell, torch.device("cpu"))
    qkv = next(peft.attentions(decoder)).qkv
    torch.nn.init.normal_(qkv.lora_b_query)
    torch.nn.init.normal_(qkv.lora_b_value)
    x = torch.randn(2, 4, cell.config.model.d_model)
    expected = qkv(x)
    thunder._speak_thunder(decoder)
    assert qkv.lora_adds_in_product is False
    torch.testing.assert_close(qkv(x), expected)


def fail_in(filename, error):
    """Raise `error` from a source of that name, as generated programs and libraries do."""
    scope = {"error": error}
    exec(compile("def program(): raise error", filename, "exec"), scope)
    scope["program"]()


@pytest.mark.parametrize("filename", ["thunder.backward_fn_8", "/lib/site-packages/thunder/core/jit_ext.py"])
@pytest.mark.parametrize(
    "error", [NotImplementedError("no such operation"), RuntimeError("expected scalar type Float")]
)
def test_what_thunder_cannot_do_is_said_in_its_words(filename, error):
    with pytest.raises(Unsupported, match=f"thunder: {type(error).__name__}: {error}") as refused, thunder.refusals():
        fail_in(filename, error)
    assert refused.value.code == "runtime.thunder"


@pytest.mark.parametrize(
    ("filename", "error"),
    [
        ("thunder.computation_3", torch.OutOfMemoryError("CUDA out of memory")),
        ("thunder.computation_3", RuntimeError("CUDA error: an illegal memory access was encountered")),
        ("thunder.computation_3", FloatingPointError("the loss of step 1 is nan")),
        ("/src/benchrunner/worker/thunder.py", TypeError("ours")),
    ],
)
def test_other_failures_are_no_refusals_of_thunder(filename, error):
    with pytest.raises(type(error)) as raised, thunder.refusals():
        fail_in(filename, error)
    assert raised.value is error


NO_THUNDER = pytest.mark.skipif(
    importlib.util.find_spec("thunder") is None or torch.__version__ >= "2.13", reason="no thunder for this torch"
)


@pytest.mark.slow
@NO_THUNDER
@pytest.mark.parametrize("workload", ["lora", "adapter", "adapter_v2"])
@pytest.mark.parametrize("scope", ["block", "model"])
def test_finetuning_computes_the_same(monkeypatch, workload, scope):
    from benchrunner.worker.workloads import train

    monkeypatch.setattr(thunder, "EXECUTORS", ("sdpa",))
    words = [*SMALL, f"workload={workload}", "workload.lora_dropout=0", "optimizer.lr=0.05", "measure.steps=3"]
    words.append("measure.warmup_steps=1")
    eager = train.run(make_context(make_cell(*words)))["losses"]
    assert max(eager) - min(eager) > 1e-2, "a flat curve would prove nothing"
    jitted = train.run(make_context(make_cell(*words, "compile=thunder", f"compile.scope={scope}")))
    torch.testing.assert_close(torch.tensor(jitted["losses"]), torch.tensor(eager), atol=1e-4, rtol=0)


@pytest.mark.slow
@NO_THUNDER
def test_blocks_share_one_program_and_compute_the_same(monkeypatch):
    from benchrunner.worker.workloads import train

    monkeypatch.setattr(thunder, "EXECUTORS", ("sdpa",))
    words = [*SMALL, "measure.steps=2", "measure.warmup_steps=1", "activation_checkpointing=selective"]
    eager = train.run(make_context(make_cell(*words)))
    jitted = train.run(make_context(make_cell(*words, "compile=thunder")))
    torch.testing.assert_close(torch.tensor(jitted["losses"]), torch.tensor(eager["losses"]), atol=1e-4, rtol=0)
    assert jitted["choices"]["thunder_programs"] == 2
    assert jitted["choices"]["thunder_executors"] == ["sdpa"]


@pytest.mark.slow
@NO_THUNDER
def test_models_that_thunder_spread_are_asked_and_those_that_lie_are_caught(tmp_path_factory):
    words = "model.num_layers=2 model.vocab_size=64 seq_len=16 measure.steps=2 measure.warmup_steps=1 precision=bf16"
    spread = f"{words} global_batch_size=4 compile=thunder compile.scope=model strategy=ddp,fsdp_stage2,fsdp_stage3"
    for results in run_job([f"{fault}|{spread}" for fault in ("", "scaled_loss")], tmp_path_factory):
        for result in results:
            assert failed(result) <= ({"function", "trains"} if result["fault"] else set()), result
            assert (result["checks"]["function"]["ok"], result["checks"]["compiled"]["ok"]) == (
                not result["fault"],
                True,
            )

"""Finetuning methods: what trains, that they start as the base model, and what they compute."""

import pytest
import torch
import torch.nn.functional as F

from benchrunner.core import arithmetic
from benchrunner.core.paths import config_dir
from benchrunner.core.schema import WorkloadConfig
from benchrunner.worker.axes import peft
from benchrunner.worker.engines.built import count_parameters
from benchrunner.worker.engines.engine import build
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.weights import canonical_name
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import make_cell, make_context, make_matrix
from decoders import load_model

METHODS = ("lora", "adapter", "adapter_v2")
MODELS = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))
SMALL = [
    "model.num_layers=3",
    "model.vocab_size=128",
    "seq_len=16",
    "precision=fp32",
    "workload.adapter_start_layer=1",
    "workload.lora_dropout=0",
]


def finetuned(method, *words):
    return build(make_context(make_cell(*SMALL, f"workload={method}", *words)))


def draw(cell_or_built, length=12):
    return torch.randint(0, 128, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_trainable_parameters_are_those_of_the_formula_on_every_model(name):
    model = load_model(name)
    for method in METHODS:
        workload = make_cell(f"workload={method}").config.workload
        with torch.device("meta"):
            decoder = Decoder(model)
        before = count_parameters(decoder)[0]
        assert peft.apply(decoder, workload, torch.bfloat16)
        total, trainable = count_parameters(decoder)
        assert trainable == arithmetic.num_trainable_parameters(model, workload)
        assert total - before == arithmetic.num_added_parameters(model, workload)


def test_the_published_counts():
    counts = {("phi-1.5", "lora"): 1572864, ("llama2-7b", "lora"): 4194304, ("llama2-7b", "adapter"): 1229760}
    for (name, method), expected in counts.items():
        with torch.device("meta"):
            decoder = Decoder(load_model(name))
        peft.apply(decoder, make_cell(f"workload={method}").config.workload, torch.bfloat16)
        assert count_parameters(decoder)[1] == expected


def test_training_all_parameters_changes_no_module():
    with torch.device("meta"):
        decoder = Decoder(load_model("debug"))
    assert not peft.apply(decoder, WorkloadConfig(name="train"), torch.bfloat16)
    assert all(parameter.requires_grad for parameter in decoder.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_every_method_starts_as_the_base_model(method):
    tokens = draw(method)
    base = build(make_context(make_cell(*SMALL, "workload=train"))).decoder.eval()
    start = finetuned(method).decoder.eval()
    assert torch.equal(base(tokens), start(tokens))


@pytest.mark.parametrize("name", ["gpt2-125m", "phi-1.5", "falcon-7b"])
@pytest.mark.parametrize("method", METHODS)
def test_other_families_start_as_their_base_and_train(name, method):
    shape = [
        "model.d_model=32",
        "model.num_heads=4",
        "model.num_kv_heads=2",
        "model.d_ff=64",
        "micro_batch_size=2",
        f"model={name}",
    ]
    base = build(make_context(make_cell(*SMALL, *shape))).decoder.eval()
    cell = make_cell(*SMALL, *shape, f"workload={method}", "optimizer.lr=0.02")
    loop = TrainingLoop(make_context(cell), build(make_context(cell)))
    assert torch.equal(base(draw(name)), loop.built.decoder.eval()(draw(name)))
    loop.built.decoder.train()
    frozen = {key: value.clone() for key, value in loop.built.decoder.named_parameters() if not value.requires_grad}
    trained = {key: value.clone() for key, value in loop.built.decoder.named_parameters() if value.requires_grad}
    loop.prepare(range(3))
    for step in range(3):
        loop.step(step)
    now = dict(loop.built.decoder.named_parameters())
    assert all(torch.equal(now[key], value) for key, value in frozen.items())
    assert all(not torch.equal(now[key], value) for key, value in trained.items())


def test_lora_adds_b_times_a_to_the_rows_of_query_and_value():
    built = finetuned("lora", "model.num_kv_heads=2", "workload.lora_rank=3", "workload.lora_alpha=12")
    attention = next(peft.attentions(built.decoder))
    qkv = attention.qkv
    for parameter in (qkv.lora_b_query, qkv.lora_b_value):
        torch.nn.init.normal_(parameter)
    width, rank = 64, 3
    update = torch.zeros_like(qkv.weight)
    update[:width] = qkv.lora_b_query @ qkv.lora_a[:rank]
    update[-32:] = qkv.lora_b_value @ qkv.lora_a[rank:]
    x = torch.randn(2, 5, width)
    expected = F.linear(x, qkv.weight + 12 / rank * update)
    torch.testing.assert_close(qkv(x), expected, atol=1e-5, rtol=1e-5)
    assert update[width:-32].count_nonzero() == 0


def test_lora_drops_inputs_of_the_update_only():
    built = finetuned("lora", "workload.lora_dropout=0.9")
    qkv = next(peft.attentions(built.decoder)).qkv
    x = torch.randn(4, 64)
    base = F.linear(x, qkv.weight)
    assert torch.equal(qkv(x), base)
    torch.nn.init.normal_(qkv.lora_b_query)
    assert not torch.equal(qkv(x), qkv(x))
    keys = slice(64, 96)
    torch.testing.assert_close(qkv(x)[:, keys], base[:, keys])
    qkv.eval()
    assert torch.equal(qkv(x), qkv(x))


@pytest.mark.parametrize("attention", ["auto", "explicit"])
def test_an_adapter_attends_to_its_prompt_behind_the_gate(attention):
    built = finetuned("adapter", f"attention={attention}")
    first, second = list(peft.attentions(built.decoder))[:2]
    assert not isinstance(first, peft.PromptedAttention)
    assert isinstance(second, peft.PromptedAttention)
    torch.nn.init.normal_(second.adapter_prompt)
    second.adapter_gate.data.copy_(torch.tensor([0.0, 1.0, -2.0, 0.5]))
    q, k, v = (torch.randn(2, heads, 10, 16) for heads in (4, 2, 2))
    mask = torch.ones(10, 10, dtype=torch.bool).tril() if attention == "explicit" else None
    plain = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    rows = F.linear(second.adapter_prompt, second.qkv.weight).view(10, -1, 16).transpose(0, 1)
    keys, values = (part.repeat_interleave(2, 0) for part in (rows[4:6], rows[6:8]))
    prompted = (q @ keys.transpose(1, 2) / 4).softmax(-1) @ values
    expected = plain + second.adapter_gate[:, None, None] * prompted
    torch.testing.assert_close(second.attend(q, k, v, mask), expected, atol=1e-5, rtol=1e-5)


def test_adapter_v2_shifts_and_scales_every_linear():
    decoder = finetuned("adapter_v2").decoder
    adapted = list(peft.linears(decoder))
    assert len(adapted) == 3 * 4 + 1
    for linear in adapted:
        torch.nn.init.normal_(linear.adapter_bias)
        torch.nn.init.normal_(linear.adapter_scale)
        x = torch.randn(3, linear.in_features)
        expected = linear.adapter_scale * (F.linear(x, linear.weight) + linear.adapter_bias)
        torch.testing.assert_close(linear(x), expected)


def test_classes_are_shared_by_layers_and_names_stay():
    base = build(make_context(make_cell(*SMALL)))
    tuned = finetuned("adapter_v2").decoder
    names = {canonical_name(name) for name, _ in tuned.named_parameters()}
    assert {name for name, _ in base.decoder.named_parameters()} <= names
    assert len({type(attention.qkv) for attention in peft.attentions(tuned)}) == 1


def test_checkpointing_replays_the_dropout_of_a_method():
    """Gradients of a checkpointed block equal those of a kept one only if both passes drop the same values."""
    gradients = []
    for cell in make_matrix(*SMALL, "workload=lora", "workload.lora_dropout=0.5", "activation_checkpointing=none,full"):
        built = build(make_context(cell))
        for attention in peft.attentions(built.decoder):
            attention.qkv.lora_b_query.data.fill_(0.1)
        torch.manual_seed(0)
        built.model(draw(cell), draw(cell)).backward()
        gradients.append([p.grad for p in built.decoder.parameters() if p.requires_grad])
    for kept, replayed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, replayed)


def test_the_models_dropout_acts_in_training_only():
    cell = make_cell(*SMALL, "model.dropout=0.5", "workload=train")
    loop = TrainingLoop(make_context(cell), build(make_context(cell)))
    tokens = draw(cell)
    assert not torch.equal(loop.built.model(tokens), loop.built.model(tokens))
    loop.built.model.eval()
    assert torch.equal(loop.built.model(tokens), loop.built.model(tokens))

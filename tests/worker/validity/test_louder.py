"""Other values for a question leave no trace, and are seen by whoever asks."""

import pytest
import torch

from asking import SMALL
from benchrunner.worker.engines.engine import build
from benchrunner.worker.validity.exchange import Exchange
from benchrunner.worker.validity.gathering import weights_of
from benchrunner.worker.validity.louder import louder
from cells import make_cell, make_context


def values(built):
    units = (None, *range(len(built.decoder.blocks)))
    found = {}
    for unit in units:
        with weights_of(built)(unit) as (weights, _):
            found |= {(unit, name): weight.clone() for name, weight in weights.items()}
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["precision=bf16", "model=phi-1.5", "model.d_model=64", "model.num_heads=4", "model.num_kv_heads=4"],
        ["precision=fp32", "model.tie_embeddings=true"],
        ["precision=nf4-dq", "workload=lora"],
        ["precision=nf4", "workload=adapter_v2", "workload.adapter_start_layer=1"],
    ],
)
def test_values_are_larger_for_a_while_and_then_what_they_were(words):
    context = make_context(make_cell(*SMALL, "model.d_ff=128", *words))
    built = build(context)
    before = values(built)
    with louder(built, context.cell, Exchange(context)):
        inside = values(built)
    after = values(built)
    assert all(torch.equal(before[name], after[name]) for name in before)
    factors = {
        round(float(inside[name].norm() / before[name].norm()), 3) for name in before if name[1] == "mlp.down.weight"
    }
    assert factors == {8.0}
    still = {name for name in before if torch.equal(before[name], inside[name])}
    assert {name for _, name in still} <= {"embedding.weight", "attention.qkv.lora_a", "attention.adapter_prompt"}


def test_a_wide_model_keeps_its_matrices():
    context = make_context(make_cell(*SMALL, "model.init_std=0.2"))
    built = build(context)
    before = built.decoder.head.weight.clone()
    with louder(built, context.cell, Exchange(context)):
        assert torch.equal(built.decoder.head.weight, before)


def test_updates_are_smaller_where_a_graph_drops_values():
    norms = []
    for compiler in ("eager", "inductor"):
        context = make_context(make_cell(*SMALL, "workload=lora", f"compile={compiler}"))
        built = build(context)
        with louder(built, context.cell, Exchange(context)):
            norms.append(float(built.decoder.blocks[0].attention.qkv.lora_b_query.detach().norm()))
    assert norms[1] == pytest.approx(0.2 * norms[0], rel=0.02)

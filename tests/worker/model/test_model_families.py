"""The decoder against the implementations that the models were published with, on small random weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from decoders import SMALL, draw_tokens, load_model, make_decoder, randomize


def split_heads(weight: Tensor, counts: tuple[int, int, int], groups: int) -> Tensor:
    """Fused rows as [group, (queries, key, value), head size] → all queries, all keys, all values."""
    rows = weight.unflatten(0, (groups, sum(counts), -1))
    return torch.cat([part.flatten(0, 2) for part in rows.split(counts, 1)])


def fused(*names: str) -> Callable[[dict[str, Tensor], str], Tensor]:
    return lambda state, prefix: torch.cat([state[f"{prefix}{name}"] for name in names])


def transposed(name: str) -> Callable[[dict[str, Tensor], str], Tensor]:
    return lambda state, prefix: state[f"{prefix}{name}"].T


def regrouped(name: str, counts: tuple[int, int, int], groups: int) -> Callable[[dict[str, Tensor], str], Tensor]:
    return lambda state, prefix: split_heads(state[f"{prefix}{name}"], counts, groups)


def both(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in ("weight", "bias")}


Names = dict[str, Any]
"""Our parameter name → theirs, or a function of (their state, prefix) that gives the tensor."""

GPT2 = (
    transformers.GPT2LMHeadModel,
    transformers.GPT2Config(
        vocab_size=96, n_positions=32, n_embd=64, n_layer=2, n_head=4, n_inner=80, bos_token_id=0, eos_token_id=0
    ),
    load_model("gpt2-125m", **SMALL),
    {"embedding.weight": "transformer.wte.weight", "position_embedding.weight": "transformer.wpe.weight"}
    | both("norm", "transformer.ln_f"),
    "transformer.h.",
    both("attention_norm", "ln_1")
    | both("mlp_norm", "ln_2")
    | {
        f"{ours}.{kind}": transposed(f"{theirs}.{kind}") if kind == "weight" else f"{theirs}.{kind}"
        for kind in ("weight", "bias")
        for ours, theirs in {
            "attention.qkv": "attn.c_attn",
            "attention.out": "attn.c_proj",
            "mlp.up": "mlp.c_fc",
            "mlp.down": "mlp.c_proj",
        }.items()
    },
)


def llama(num_kv_heads: int) -> tuple[Any, ...]:
    return (
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(
            vocab_size=96,
            hidden_size=64,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=num_kv_heads,
            max_position_embeddings=32,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        load_model("llama3-8b", **(SMALL | {"num_kv_heads": num_kv_heads})),
        {
            "embedding.weight": "model.embed_tokens.weight",
            "norm.weight": "model.norm.weight",
            "head.weight": "lm_head.weight",
        },
        "model.layers.",
        {
            "attention_norm.weight": "input_layernorm.weight",
            "mlp_norm.weight": "post_attention_layernorm.weight",
            "attention.qkv.weight": fused(*(f"self_attn.{name}_proj.weight" for name in "qkv")),
            "attention.out.weight": "self_attn.o_proj.weight",
            "mlp.gate_up.weight": fused("mlp.gate_proj.weight", "mlp.up_proj.weight"),
            "mlp.down.weight": "mlp.down_proj.weight",
        },
    )


NEOX = (
    transformers.GPTNeoXForCausalLM,
    transformers.GPTNeoXConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        use_parallel_residual=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
        bos_token_id=0,
        eos_token_id=0,
    ),
    load_model("stablelm-3b", **SMALL),
    {"embedding.weight": "gpt_neox.embed_in.weight", "head.weight": "lm_head.weight"}
    | both("norm", "gpt_neox.final_layer_norm"),
    "gpt_neox.layers.",
    both("attention_norm", "input_layernorm")
    | both("mlp_norm", "post_attention_layernorm")
    | both("attention.out", "attention.dense")
    | both("mlp.up", "mlp.dense_h_to_4h")
    | both("mlp.down", "mlp.dense_4h_to_h")
    | {
        f"attention.qkv.{kind}": regrouped(f"attention.query_key_value.{kind}", (1, 1, 1), 4)
        for kind in ("weight", "bias")
    },
)


def falcon(model: dict[str, Any], qkv: Any, norms: Names, **options: Any) -> tuple[Any, ...]:
    return (
        transformers.FalconForCausalLM,
        transformers.FalconConfig(
            vocab_size=96,
            hidden_size=64,
            ffn_hidden_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            bias=False,
            parallel_attn=True,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
            **options,
        ),
        model,
        {"embedding.weight": "transformer.word_embeddings.weight", "head.weight": "lm_head.weight"}
        | both("norm", "transformer.ln_f"),
        "transformer.h.",
        norms
        | {
            "attention.qkv.weight": qkv,
            "attention.out.weight": "self_attention.dense.weight",
            "mlp.up.weight": "mlp.dense_h_to_4h.weight",
            "mlp.down.weight": "mlp.dense_4h_to_h.weight",
        },
    )


FALCON_7B = falcon(
    load_model("falcon-7b", **(SMALL | {"num_kv_heads": 1})),
    "self_attention.query_key_value.weight",
    both("attention_norm", "input_layernorm"),
    multi_query=True,
    new_decoder_architecture=False,
)
FALCON_40B = falcon(
    load_model("falcon-40b", **(SMALL | {"num_kv_heads": 2})),
    regrouped("self_attention.query_key_value.weight", (2, 1, 1), 2),
    both("attention_norm", "ln_attn") | both("mlp_norm", "ln_mlp"),
    new_decoder_architecture=True,
    num_kv_heads=2,
)
PHI = (
    transformers.PhiForCausalLM,
    transformers.PhiConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        bos_token_id=0,
        eos_token_id=0,
    ),
    load_model("phi-1.5", **SMALL),
    {"embedding.weight": "model.embed_tokens.weight"} | both("norm", "model.final_layernorm") | both("head", "lm_head"),
    "model.layers.",
    both("attention_norm", "input_layernorm")
    | both("attention.out", "self_attn.dense")
    | both("mlp.up", "mlp.fc1")
    | both("mlp.down", "mlp.fc2")
    | {
        f"attention.qkv.{kind}": fused(*(f"self_attn.{name}_proj.{kind}" for name in "qkv"))
        for kind in ("weight", "bias")
    },
)

FAMILIES = {
    "gpt2": GPT2,
    "llama": llama(4),
    "llama-gqa": llama(2),
    "gpt-neox": NEOX,
    "falcon-7b": FALCON_7B,
    "falcon-40b": FALCON_40B,
    "phi": PHI,
}


def translate(state: dict[str, Tensor], root: Names, prefix: str, block: Names, num_layers: int) -> dict[str, Tensor]:
    def take(source: Any, at: str) -> Tensor:
        return state[f"{at}{source}"] if isinstance(source, str) else source(state, at)

    weights = {ours: take(theirs, "") for ours, theirs in root.items()}
    for index in range(num_layers):
        at = f"{prefix}{index}."
        weights |= {f"blocks.{index}.{ours}": take(theirs, at) for ours, theirs in block.items()}
    return weights


@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_equal_those_of_transformers(family: str, explicit: bool):
    kind, config, model, root, prefix, block = FAMILIES[family]
    reference = kind(config).eval()
    randomize(reference)
    weights = translate(reference.state_dict(), root, prefix, block, model.num_layers)
    decoder = make_decoder(model, explicit_attention=explicit)
    assert set(dict(decoder.named_parameters())) == set(weights)
    decoder.load_state_dict(weights, strict=not model.tie_embeddings)
    tokens = draw_tokens(2, 32)
    expected = reference(tokens).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(decoder(tokens), expected, atol=1e-5, rtol=1e-5)

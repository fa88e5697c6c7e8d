from typing import Any

import pytest
import torch
from torch import Tensor

from benchrunner.core import arithmetic
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.kv_cache import KVCache
from decoders import CPU, SMALL, draw_tokens, load_model, make_decoder

HEADS = {"falcon-7b": 1, "debug": 2, "llama2-70b": 2}


def make_small(name: str, **options: Any) -> Decoder:
    return make_decoder(load_model(name, **(SMALL | {"num_kv_heads": HEADS.get(name, 4)})), **options)


def make_cache(decoder: Decoder, batch_size: int, length: int) -> KVCache:
    return KVCache(decoder.model, batch_size, length, device=CPU, dtype=torch.float32)


def decode_all(decoder: Any, cache: KVCache, tokens: Tensor, prompt: int) -> Tensor:
    """Logits of all tokens, the first `prompt` by prefill, the others one at a time."""
    parts = [decoder(tokens[:, :prompt], cache=cache)]
    for index in range(prompt, tokens.shape[1]):
        parts.append(decoder(tokens[:, index : index + 1], cache=cache, positions=torch.tensor([index])))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("name", ["debug", "gpt2-125m", "falcon-7b", "phi-1.5"])
@torch.no_grad()
def test_decoding_equals_the_full_forward_pass(name: str, explicit: bool):
    decoder = make_small(name, explicit_attention=explicit)
    tokens = draw_tokens(3, 14)
    logits = decode_all(decoder, make_cache(decoder, 3, 20), tokens, prompt=6)
    torch.testing.assert_close(logits, decoder(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_several_tokens_at_positions_attend_to_the_cache_and_each_other():
    decoder = make_small("debug")
    cache, tokens = make_cache(decoder, 2, 16), draw_tokens(2, 12)
    decoder(tokens[:, :5], cache=cache)
    rest = decoder(tokens[:, 5:], cache=cache, positions=torch.arange(5, 12))
    torch.testing.assert_close(rest, decoder(tokens)[:, 5:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_used_cache_serves_the_next_prompt():
    decoder = make_small("debug")
    cache = make_cache(decoder, 2, 16)
    decode_all(decoder, cache, draw_tokens(2, 16, seed=1), prompt=9)
    tokens = draw_tokens(2, 12)
    torch.testing.assert_close(decode_all(decoder, cache, tokens, prompt=4), decoder(tokens), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_compiled_step_serves_every_position():
    decoder = make_small("debug")
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    compiled = torch.compile(decoder, fullgraph=True, dynamic=False, backend=count)
    tokens = draw_tokens(2, 12)
    logits = decode_all(compiled, make_cache(decoder, 2, 16), tokens, prompt=6)
    torch.testing.assert_close(logits, decoder(tokens), atol=1e-5, rtol=1e-5)
    assert len(graphs) == 2  # one prefill, one decode


def test_cache_size_is_the_closed_form():
    decoder = make_small("llama2-70b")
    cache = make_cache(decoder, 3, 20)
    tensors = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    expected = arithmetic.kv_cache_bytes(decoder.model, 3, 20, 4)
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == expected

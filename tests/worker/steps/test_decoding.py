"""Tokens come out as they should: cached decoding is recomputation, choices follow their distribution."""

import pytest
import torch
from torch import Tensor

from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.data import draw_prompts
from benchrunner.worker.steps.decoding import NOT_YET, Decoding, Progress, choose
from cells import make_cell, make_context
from decoders import CPU

SMALL = ["workload=generate", "precision=fp32", "model.num_layers=2", "model.vocab_size=96", "model.init_std=0.2"]
SHORT = ["generate.prompt_length=5", "generate.new_tokens=12"]


def make_decoding(*words: str) -> tuple[Decoding, Tensor]:
    """The decoding of a small cell, and a batch of prompts."""
    cell = make_cell(*SMALL, *SHORT, *words)
    decoding = Decoding(build(make_context(cell)), cell, CPU)
    return decoding, draw_prompts(cell, 0, 0, CPU)


@torch.inference_mode()
def generate(decoding: Decoding, prompt: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    decoding.prefill(prompt)
    for _ in range(decoding.progress.tokens.shape[1] - 1):
        decoding.step()
    return decoding.progress.tokens.clone()


@torch.inference_mode()
def recompute_greedily(decoding: Decoding, prompt: Tensor) -> Tensor:
    """The same continuation without a cache: the whole sequence again for every token."""
    sequence = prompt
    for _ in range(decoding.progress.tokens.shape[1]):
        sequence = torch.cat((sequence, decoding._root(sequence)[:, -1].argmax(-1, keepdim=True)), 1)
    return sequence[:, prompt.shape[1] :]


@pytest.mark.parametrize("attention", ["auto", "explicit"])
@pytest.mark.parametrize("model", ["debug", "gpt2-125m", "falcon-7b", "phi-1.5"])
def test_greedy_decoding_with_the_cache_is_recomputation(model: str, attention: str):
    shape = ["model.d_model=64", "model.num_heads=4", "model.d_ff=96", "model.max_seq_len=32"]
    heads = {"debug": 2, "falcon-7b": 1}.get(model, 4)
    words = [f"model={model}", *shape, f"model.num_kv_heads={heads}", f"attention={attention}", "micro_batch_size=3"]
    decoding, prompt = make_decoding(*words, "generate.temperature=0")
    tokens = generate(decoding, prompt)
    assert torch.equal(tokens, recompute_greedily(decoding, prompt))
    assert len(tokens.unique()) > 6, "a constant continuation would prove nothing"


def test_the_next_prompt_does_not_see_the_last_one():
    decoding, prompt = make_decoding("generate.temperature=0", "micro_batch_size=2")
    tokens = generate(decoding, prompt)
    generate(decoding, (prompt + 1) % 96)
    assert torch.equal(generate(decoding, prompt), tokens)


def test_attention_to_the_filled_part_is_attention_under_a_mask():
    decoding, prompt = make_decoding("micro_batch_size=2")
    tokens = generate(decoding, prompt)
    decoding.cache.show(None)
    decoding._shows = False
    assert torch.equal(generate(decoding, prompt), tokens)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["block", "model"])
def test_both_units_compiled_choose_the_tokens_of_eager_code(scope: str):
    """The same noise for all three: compiled code draws its own unless it is told not to."""
    expected = generate(*make_decoding("micro_batch_size=2", "generate.top_k=20"))
    for unit in ("model", "token"):
        torch._dynamo.reset()
        words = ["compile=inductor", "compile.fullgraph=true", f"compile.scope={scope}", f"generate.unit={unit}"]
        decoding, prompt = make_decoding("micro_batch_size=2", "generate.top_k=20", *words)
        with torch._inductor.config.patch(fallback_random=True):
            assert torch.equal(generate(decoding, prompt), expected), unit


def test_progress_counts_tokens_where_it_stands():
    progress = Progress(2, 5, 3, CPU)
    progress.restart()
    assert progress.tokens.tolist() == [[NOT_YET] * 3] * 2
    progress.append(torch.tensor([[7], [8]]))
    progress.append(torch.tensor([[1], [2]]))
    assert progress.tokens.tolist() == [[7, 1, NOT_YET], [8, 2, NOT_YET]]
    assert (progress.position.item(), progress.token.tolist()) == (6, [[1], [2]])


def test_choices_follow_the_softmax_of_the_last_logits():
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(20_000, 1, 4)
    logits = torch.cat((-logits, logits), 1)
    shares = torch.bincount(choose(logits, 2.0, None).flatten(), minlength=4) / 20_000
    torch.testing.assert_close(shares, (logits[0, -1] / 2).softmax(-1), atol=0.01, rtol=0)


def test_top_k_and_temperature_zero():
    torch.manual_seed(0)
    logits = torch.randn(500, 1, 64)
    best = logits[:, 0].topk(3).indices
    drawn = choose(logits, 1.0, 3)
    assert (drawn == best).any(-1).all()
    assert (drawn != drawn[:, :1].mode(0).values).any()
    assert torch.equal(choose(logits, 0.0, None), best[:, :1])

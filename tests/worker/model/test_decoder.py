from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.flop_counter import FlopCounterMode

from benchrunner.core import arithmetic
from benchrunner.core.paths import config_dir
from benchrunner.worker.model.decoder import Decoder
from decoders import CPU, SMALL, draw_tokens, load_model, make_decoder, randomize

MODELS = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))

# --- Shapes


@pytest.mark.parametrize("name", MODELS)
def test_parameters_equal_the_closed_form(name: str):
    model = load_model(name)
    with torch.device("meta"):
        decoder = Decoder(model)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == arithmetic.num_parameters(model)
    linears = [module for module in decoder.modules() if isinstance(module, nn.Linear)]
    assert sum(linear.weight.numel() for linear in linears) == arithmetic.matmul_parameters(model)
    shapes = {name: (m.in_features, m.out_features) for name, m in decoder.blocks[0].named_modules() if m in linears}
    assert {name.rsplit(".")[-1]: shape for name, shape in shapes.items()} == arithmetic.linear_shapes(model)


@pytest.mark.parametrize("name", ["debug", "gpt2-125m", "phi-1.5", "falcon-7b"])
def test_parameters_can_be_filled_by_name(name: str):
    """Whoever fills them tells matrices, norm weights and biases apart by dimension and name."""
    with torch.device("meta"):
        decoder = Decoder(load_model(name, num_layers=1))
    vectors = [name for name, parameter in decoder.named_parameters() if parameter.ndim == 1]
    assert all(name.endswith(("norm.weight", ".bias")) for name in vectors)


# --- Loss


def loss_and_gradients(decoder: Decoder, tokens: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    decoder.zero_grad()
    loss = decoder(tokens, targets)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}
    return loss.detach(), gradients


def padded_targets() -> Tensor:
    targets = draw_tokens(3, 24, seed=1)
    targets[0, 10:] = -100
    targets[2, :] = -100
    return targets


def test_loss_is_the_fp32_mean_over_targets_that_count():
    decoder = make_decoder(load_model("debug", **SMALL)).to(torch.bfloat16)
    decoder.reset_buffers(CPU)
    tokens, targets = draw_tokens(3, 24), padded_targets()
    loss = decoder(tokens, targets)
    counted = targets != -100
    logits = decoder(tokens)[counted].float()
    expected = -logits.log_softmax(-1).gather(1, targets[counted][:, None]).mean()
    assert loss.dtype is torch.float32
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["debug", "gpt2-125m", "phi-1.5"])
@pytest.mark.parametrize("chunk", [7, 24, 1000])
def test_loss_in_chunks_equals_the_whole_with_its_gradients(name: str, chunk: int):
    model = load_model(name, **SMALL)
    tokens, targets = draw_tokens(3, 24), padded_targets()
    loss, gradients = loss_and_gradients(make_decoder(model), tokens, targets)
    chunked_loss, chunked = loss_and_gradients(make_decoder(model, loss_chunk_tokens=chunk), tokens, targets)
    torch.testing.assert_close(chunked_loss, loss)
    assert chunked.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(chunked[key], gradient, atol=1e-6, rtol=1e-4)


def test_chunks_keep_no_logits_for_the_backward_pass():
    model = load_model("debug", **SMALL)
    saved = {}
    for chunk in (None, 8):
        sizes: list[int] = []
        decoder = make_decoder(model, loss_chunk_tokens=chunk)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            decoder.head_loss(torch.randn(2, 32, 64, requires_grad=True), draw_tokens(2, 32))
        saved[chunk] = max(sizes)
    assert saved[None] >= 2 * 32 * 96
    assert saved[8] <= 64 * 96  # the head's own matrix


def test_last_only_is_the_last_of_all_logits():
    decoder = make_decoder(load_model("debug", **SMALL))
    tokens = draw_tokens(2, 9)
    torch.testing.assert_close(decoder(tokens, last_only=True), decoder(tokens)[:, -1:])


def test_no_token_sees_a_later_one():
    for name in ("debug", "gpt2-125m", "falcon-40b"):
        decoder = make_decoder(load_model(name, **SMALL))
        tokens = draw_tokens(1, 16)
        changed = tokens.clone()
        changed[0, 10] = (changed[0, 10] + 1) % 96
        before, after = decoder(tokens), decoder(changed)
        torch.testing.assert_close(after[:, :10], before[:, :10])
        assert (after[:, 10:] - before[:, 10:]).abs().amax(-1).min() > 1e-4


def test_dropout_acts_in_training_only():
    decoder = make_decoder(load_model("gpt2-xl-char", **SMALL))
    tokens = draw_tokens(2, 16)
    torch.testing.assert_close(decoder(tokens), decoder(tokens))
    decoder.train()
    assert not torch.equal(decoder(tokens), decoder(tokens))


# --- What wrapping does


def test_a_tied_head_is_one_parameter_and_can_be_tied_again():
    model = load_model("gpt2-125m", **SMALL)
    with torch.device("meta"):
        decoder = Decoder(model)
    assert decoder.head.weight is decoder.embedding.weight
    decoder.to_empty(device=CPU)
    decoder.tie_weights()
    decoder.reset_buffers(CPU)
    randomize(decoder)
    assert decoder.head.weight is decoder.embedding.weight
    assert "head.weight" not in dict(decoder.named_parameters())
    torch.testing.assert_close(decoder(draw_tokens(1, 8)), make_decoder(model)(draw_tokens(1, 8)))


@pytest.mark.parametrize("name", ["llama2-7b", "gpt2-125m", "phi-1.5"])
def test_buffers_made_anew_after_the_meta_device(name: str):
    model = load_model(name, **SMALL)
    with torch.device("meta"):
        decoder = Decoder(model)
    assert not decoder.state_dict().keys() & {"cos", "sin", "positions"}
    decoder.to(torch.bfloat16).to_empty(device=CPU)
    decoder.reset_buffers(CPU, torch.bfloat16)
    fresh = Decoder(model)
    for key, buffer in decoder.named_buffers():
        expected = getattr(fresh, key)
        torch.testing.assert_close(buffer, expected.to(buffer.dtype))
        assert buffer.dtype in (torch.bfloat16, torch.int64)


def test_longer_rotary_tables_on_demand():
    model = load_model("debug", **SMALL)
    decoder = make_decoder(model, num_positions=48)
    assert decoder(draw_tokens(1, 48)).shape == (1, 48, 96)
    torch.testing.assert_close(decoder(draw_tokens(1, 20)), make_decoder(model)(draw_tokens(1, 20)))


def test_blocks_and_root_can_be_sharded_checkpointed_and_tied(one_rank_mesh: Any):
    for name in ("gpt2-125m", "debug"):
        model = load_model(name, **SMALL)
        tokens, targets = draw_tokens(2, 24), draw_tokens(2, 24, seed=1)
        loss, gradients = loss_and_gradients(make_decoder(model), tokens, targets)
        with torch.device("meta"):
            sharded = Decoder(model)
        for index, block in enumerate(sharded.blocks):
            sharded.blocks[index] = checkpoint_wrapper(block)
            fully_shard(sharded.blocks[index], mesh=one_rank_mesh)
        fully_shard(sharded, mesh=one_rank_mesh)
        sharded.to_empty(device=CPU)
        sharded.tie_weights()
        sharded.reset_buffers(CPU)
        for key, parameter in make_decoder(model).named_parameters():
            wrapped = key.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module.")
            wrapped = wrapped.replace("blocks.1.", "blocks.1._checkpoint_wrapped_module.")
            sharded.get_parameter(wrapped).to_local().data.copy_(parameter)
        sharded_loss, sharded_gradients = loss_and_gradients(sharded, tokens, targets)
        torch.testing.assert_close(sharded_loss, loss)
        for (key, gradient), other in zip(gradients.items(), sharded_gradients.values(), strict=True):
            torch.testing.assert_close(other.full_tensor(), gradient, msg=key)


@pytest.fixture
def one_rank_mesh(tmp_path: Any):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("chunk", [None, 16])
def test_the_whole_model_is_one_graph(chunk: int | None):
    model = load_model("debug", **(SMALL | {"num_layers": 1, "num_kv_heads": 2}))
    decoder = make_decoder(model, loss_chunk_tokens=chunk)
    tokens, targets = draw_tokens(2, 16), draw_tokens(2, 16, seed=1)
    loss, gradients = loss_and_gradients(decoder, tokens, targets)
    compiled = torch.compile(decoder, fullgraph=True, backend="aot_eager")
    compiled_loss, compiled_gradients = loss_and_gradients(compiled, tokens, targets)
    torch.testing.assert_close(compiled_loss, loss)
    for gradient, other in zip(gradients.values(), compiled_gradients.values(), strict=True):
        torch.testing.assert_close(other, gradient)


# --- FLOPs


@pytest.mark.parametrize("name", ["debug", "gpt2-xl-char", "falcon-7b"])
@pytest.mark.parametrize("recompute", ["nothing", "blocks", "head"])
def test_flops_counted_by_dispatch_equal_the_closed_form(name: str, recompute: str):
    """Explicit attention, because the counter misses the CPU's fused one; it computes the full square."""
    model = load_model(name, **(SMALL | {"num_kv_heads": 1}))
    decoder = make_decoder(
        model, explicit_attention=True, loss_chunk_tokens=16 if recompute == "head" else None
    ).train()
    expected = arithmetic.train_flops_per_token(model, 32, causal=False)
    if recompute == "blocks":
        decoder.blocks[0] = checkpoint_wrapper(decoder.blocks[0])
        expected += arithmetic.recomputed_flops_per_block(model, 32, causal=False)
    if recompute == "head":
        expected += 2 * arithmetic.head_matmul_parameters(model)
    with FlopCounterMode(display=False) as counter:
        decoder(draw_tokens(2, 32), draw_tokens(2, 32, seed=1)).backward()
    assert counter.get_total_flops() == expected * 2 * 32

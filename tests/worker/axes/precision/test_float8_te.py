"""fp8 by Transformer Engine, as far as it can be seen without CUDA: what is swapped, cached, padded, replayed."""

import pytest
import torch

from benchrunner.core.errors import Unsupported
from benchrunner.worker.axes.activation_checkpointing import LibraryCheckpoint, compiled_part
from benchrunner.worker.axes.precision import float8_te
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import make_cell, make_context
from fake_te import autocast, fake_te, forget  # noqa: F401

FEW = ("model.num_layers=2", "model.vocab_size=256", "seq_len=32", "micro_batch_size=2", "precision=fp8")


def run(*words, steps=2):
    context = make_context(make_cell(*FEW, *words))
    loop = TrainingLoop(context, build(context))
    loop.prepare(range(steps))
    for step in range(steps):
        loop.step(step)
    return loop


def swapped(loop):
    return {name: module for name, module in loop.built.decoder.named_modules() if hasattr(module, "calls")}


def install(tmp_path, monkeypatch, text):
    """A package of that name whose PyTorch part is this text."""
    package = tmp_path / "transformer_engine"
    (package / "pytorch").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "pytorch" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("transformer_engine", "transformer_engine.pytorch"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)


def test_without_the_library_the_reason_is_that_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformer_engine", None)
    with pytest.raises(Unsupported, match="not installed") as caught:
        float8_te.load()
    assert caught.value.code == "missing.transformer_engine"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            "OSError('libcudnn_heuristic.so.9: undefined symbol: _ZN5cudnn')",
            "runtime.cudnn",
            "another cuDNN than PyTorch's.*LD_LIBRARY_PATH.*undefined symbol",
        ),
        (
            "RuntimeError('no device kernels\\nmore')",
            "runtime.transformer_engine",
            "cannot be loaded: no device kernels$",
        ),
        ("ModuleNotFoundError('no onnxscript', name='onnxscript')", "runtime.transformer_engine", "no onnxscript"),
    ],
)
def test_a_library_that_cannot_be_loaded_says_why(tmp_path, monkeypatch, error, code, said):
    install(tmp_path, monkeypatch, f"raise {error}")
    with pytest.raises(Unsupported, match=said) as caught:
        float8_te.load()
    assert caught.value.code == code


def test_linears_are_swapped_and_keep_names_values_and_curve(fake_te):  # noqa: F811
    loop = run()
    assert len(swapped(loop)) == 9
    plain = run("precision=bf16")
    assert loop.mean_losses() == plain.mean_losses()
    assert [name for name, _ in loop.built.decoder.named_parameters()] == [
        name for name, _ in plain.built.decoder.named_parameters()
    ]
    assert loop.choices()["fp8"] == {
        "recipe": "delayed",
        "num_linears": 9,
        "kept": {},
        "padded": {},
        "weight_cache": False,
    }


def test_a_tied_head_stays_and_is_named(fake_te):  # noqa: F811
    loop = run("model.tie_embeddings=true")
    assert "head" not in swapped(loop) and "head" in loop.choices()["fp8"]["kept"]
    assert loop.built.decoder.head.weight is loop.built.decoder.embedding.weight


def test_the_delayed_recipe_is_hybrid_with_a_history_of_16(fake_te):  # noqa: F811
    recipe = float8_te.make_recipe("delayed")
    assert vars(recipe) == {"fp8_format": "hybrid", "amax_history_len": 16, "amax_compute_algo": "max"}
    assert type(float8_te.make_recipe("current")).__name__ == "Float8CurrentScaling"


def test_a_recipe_that_the_device_cannot_compute_is_refused_in_the_library_s_words(fake_te):  # noqa: F811
    with pytest.raises(Unsupported, match=r"needs CUDA 12\.9"):
        float8_te.make_recipe("block")
    fake_te.is_fp8_available = lambda return_reason: (False, "Device compute capability 8.9 or higher required")
    forget()
    with pytest.raises(Unsupported, match=r"8\.9 or higher"):
        float8_te.make_recipe("current")


def test_weights_are_cast_once_an_optimizer_step(fake_te):  # noqa: F811
    loop = run("global_batch_size=6", steps=3)
    assert loop.choices()["fp8"]["weight_cache"]
    for module in swapped(loop).values():
        assert module.calls == [True, False, False] * 3


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_update_makes_the_cached_weight_stale(fake_te, optimizer):  # noqa: F811
    loop = run("global_batch_size=4", f"optimizer={optimizer}", steps=2)
    assert swapped(loop)["head"].calls == [True, False, True, False]


@pytest.mark.parametrize(
    ("words", "caches"),
    [
        (["global_batch_size=2"], False),
        (["global_batch_size=4"], True),
        (["global_batch_size=8", "strategy=ddp"], True),
        (["global_batch_size=8", "strategy=fsdp"], False),
        (["global_batch_size=4", "compile=inductor"], True),
        (["global_batch_size=4", "compile=inductor", "precision.recipe=current"], False),
    ],
)
def test_who_caches_weights(words, caches):
    assert float8_te.caches_weights(make_cell(*FEW, *words)) is caches


def test_sizes_are_refused_before_the_library_is_asked():
    with pytest.raises(Unsupported, match="360"):
        build(make_context(make_cell(*FEW, "model.d_ff=360")))


@pytest.mark.parametrize("words", [["model.d_ff=360", "model.bias=true"], ["model.vocab_size=250"], ["seq_len=27"]])
def test_padding_is_asked_for_named_and_changes_nothing(fake_te, words):  # noqa: F811
    loop = run(*words, "precision.pad=true")
    assert loop.choices()["fp8"]["padded"]
    plain = run(*words, "precision=bf16")
    torch.testing.assert_close(torch.tensor(loop.mean_losses()), torch.tensor(plain.mean_losses()), atol=2e-3, rtol=0)
    shapes = [tuple(parameter.shape) for parameter in loop.built.decoder.parameters()]
    assert shapes == [tuple(parameter.shape) for parameter in plain.built.decoder.parameters()]


@pytest.mark.parametrize("checkpointing", ["full", "selective"])
def test_checkpointing_is_the_library_s_and_updates_scales_once_a_step(fake_te, checkpointing):  # noqa: F811
    loop = run(f"activation_checkpointing={checkpointing}")
    wrapped = [block for block in loop.built.decoder.blocks if isinstance(block, LibraryCheckpoint)]
    assert len(wrapped) == {"full": 2, "selective": 1}[checkpointing]
    assert len(autocast.updates) == 2, "one update of the scales an optimizer step, none for a recomputation"
    assert loop.mean_losses() == run("precision=bf16").mean_losses()
    calls = len(swapped(loop)["blocks.0._checkpoint_wrapped_module.attention.qkv"].calls)
    assert calls == 4, "each of the two steps multiplies once more in its recomputation"


def test_compilers_get_what_is_inside_the_library_s_checkpoint(fake_te):  # noqa: F811
    loop = run("activation_checkpointing=full", steps=0)
    for block in loop.built.decoder.blocks:
        assert compiled_part(block) is block._checkpoint_wrapped_module
    plain = run("precision=bf16", "activation_checkpointing=full", steps=0)
    for block in plain.built.decoder.blocks:
        assert compiled_part(block) is block

"""Number formats that the speed alone would not give away: read off the parameters, the optimizer and the products."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchrunner.core import arithmetic
from benchrunner.worker.axes.precision.nf4 import packed_linears
from benchrunner.worker.validity.finding import Facts, Finding
from benchrunner.worker.validity.profiled import FORMATS
from benchrunner.worker.validity.sampling import floating_parameters

CODE_BOOK = (
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0,
)  # fmt: skip
"""The 16 values of 4-bit NormalFloat (QLoRA, arXiv:2305.14314, appendix E)."""
CODE_TOLERANCE = 1e-5
BLOCK_SIZE, NESTED_BLOCK_SIZE = 64, 256
"""Weights that share a scale, and scales that share one of their own (the same paper, section 3)."""

REDUCED_SHARE = 0.98
"""Of the elements summed over ranks: losses and the magnitudes of Transformer Engine's scales are the rest."""

ROWWISE_SHARE = 0.3
"""Of the float8 products of a rowwise recipe, at least: those of the backward pass go without fast accumulation, and
torchao multiplies their scales in afterwards (its `addmm_float8_unwrapped`)."""

TE_RECIPES = {"delayed": "DelayedScaling", "current": "Float8CurrentScaling", "block": "Float8BlockScaling"}
"""`precision.recipe` → the class of the recipe that the library keeps."""

WIDE_STATE = frozenset({"paged-adamw"})
"""Optimizers whose moments are in fp32 whatever the parameters are in."""

LEAST_LOSSES, GRID_TOLERANCE = 3, 1e-6
"""One in 2,000 lies so near to the grid of bfloat16 by chance, relatively."""

Line = tuple[bool, str, str]
"""Whether it is as the label says, what that is, and what was found."""


def formats(facts: Facts) -> Finding:
    """Stored, summed and kept in the dtypes of the label; scaled by its recipe, packed by its code book."""
    looks: tuple[Callable[[Facts], Line | None], ...] = (
        _parameters,
        _state,
        _reductions,
        _loss,
        _cache,
        _float8,
        _packed,
    )
    lines = [line for look in looks if (line := look(facts)) is not None]
    wrong = [line for line in lines if not line[0]]
    told = wrong or lines
    return Finding(
        ok=not wrong,
        expected="; ".join(wish for _, wish, _ in told),
        observed="; ".join(found for _, _, found in told),
    )


def _parameters(facts: Facts) -> Line:
    """Every parameter that holds numbers, the added ones included."""
    wanted = _stored(facts)
    odd = [(name, one.dtype) for name, one in floating_parameters(facts.built.decoder) if one.dtype != wanted]
    found = f"{odd[0][0]} in {_word(odd[0][1])}" if odd else "all of them"
    return not odd, f"parameters stored in {_word(wanted)}", found


def _state(facts: Facts) -> Line | None:
    """What the optimizer keeps beside a parameter and as large as it."""
    if facts.optimizer is None:
        return None
    wide = facts.cell.axes["optimizer"] in WIDE_STATE
    wanted = torch.float32 if wide else _stored(facts)
    kept = {tensor.dtype for parameter, tensor in _moments(facts) if tensor.shape == parameter.shape}
    if not kept:
        return None
    found = ", ".join(sorted(map(_word, kept)))
    return kept == {wanted}, f"optimizer state in {_word(wanted)}", found


def _moments(facts: Facts) -> Iterator[tuple[Any, Any]]:
    assert facts.optimizer is not None
    for parameter, state in facts.optimizer.state.items():
        for tensor in state.values():
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.is_floating_point():
                yield parameter, tensor


def _reductions(facts: Facts) -> Line | None:
    """What gradients are summed over ranks in."""
    profile = facts.probes.profile
    if profile is None or facts.optimizer is None or not facts.several_ranks:
        return None
    known = {name: count for name, count in profile.reduced_elements.items() if name in FORMATS.values()}
    if not sum(known.values()):
        return None
    wanted = str(facts.cell.config.precision.reduce_dtype)
    share = known.get(wanted, 0) / sum(known.values())
    return share >= REDUCED_SHARE, f"gradients reduced in {wanted}", ", ".join(sorted(known))


def _loss(facts: Facts) -> Line | None:
    """Cross-entropy is computed in float32 whatever the precision: seen by its call, or where it is fused by losses
    that all lie on the grid of bfloat16.
    """
    profile = facts.probes.profile
    if facts.optimizer is None:
        return None
    wish = "the loss computed in float32"
    if profile is not None and profile.softmaxes:
        return set(profile.softmaxes) == {"float32"}, wish, ", ".join(sorted(profile.softmaxes))
    losses = torch.tensor(facts.own_losses, dtype=torch.float64)
    if len(losses) < LEAST_LOSSES:
        return None
    sizes = facts.cell.sizes  # the mean of a sum that was rounded is the sum divided
    is_coarse = any(_is_on_grid(losses * count) for count in (1, sizes.micro_batch_size * sizes.seq_len))
    return not is_coarse, wish, "losses of bfloat16" if is_coarse else "finer losses than of bfloat16"


def _is_on_grid(values: torch.Tensor) -> bool:
    """Whether all are numbers of bfloat16, but for an error of fp32 arithmetic."""
    return bool(((values - values.bfloat16().double()).abs() <= GRID_TOLERANCE * values.abs()).all())


def _cache(facts: Facts) -> Line | None:
    """Keys and values are kept in what is computed in, and as many as the label says."""
    if facts.decoding is None:
        return None
    model, options = facts.cell.config.model, facts.cell.config.generate
    length, head_size = options.prompt_length + options.new_tokens, model.d_model // model.num_heads
    shape = (facts.cell.sizes.micro_batch_size, model.num_kv_heads, length, head_size)
    name = str(facts.cell.config.precision.compute_dtype)
    wanted = getattr(torch, name if name in arithmetic.DTYPE_BYTES else "bfloat16")
    tensors = [one for layer in facts.decoding.cache.layers for one in (layer.keys, layer.values)]
    odd = next((one for one in tensors if (one.dtype, tuple(one.shape)) != (wanted, shape)), None)
    wish = f"{2 * model.num_layers} × {list(shape)} keys and values kept in {_word(wanted)}"
    right = odd is None and len(tensors) == 2 * model.num_layers
    return right, wish, f"{len(tensors)}" if odd is None else f"{list(odd.shape)} in {_word(odd.dtype)}"


def _float8(facts: Facts) -> Line | None:
    """The recipe, from the scales of the products (torchao) or from what the modules keep (Transformer Engine)."""
    precision, profile = facts.cell.config.precision, facts.probes.profile
    if precision.backend == "transformer_engine":
        kept = {type(one).__name__ for module in facts.built.decoder.modules() if (one := _recipe(module))}
        wish = TE_RECIPES[str(precision.recipe)]
        return (kept == {wish}, f"scaled by {wish}", ", ".join(sorted(kept))) if kept else None
    if precision.backend != "torchao" or profile is None or not profile.scales:
        return None
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(profile.scales.items()))
    forward = ROWWISE_SHARE * sum(profile.scales.values()) if precision.recipe == "rowwise" else 0.0
    allowed = {"tensorwise", "rowwise"} if precision.recipe == "rowwise" else {precision.recipe}
    right = set(profile.scales) <= allowed and profile.scales[str(precision.recipe)] >= forward
    return right, f"float8 products scaled {precision.recipe}", found


def _recipe(module: Any) -> Any:
    meta = getattr(module, "fp8_meta", None)
    return meta.get("recipe") if isinstance(meta, dict) else None


def _packed(facts: Facts) -> Line | None:
    """Code book, block size and scales of scales of every packed weight."""
    linears = packed_linears(facts.built.decoder)
    if not linears:
        return None
    nested = facts.cell.config.precision.param_dtype == "nf4-dq"
    wish = f"4-bit NormalFloat in blocks of {BLOCK_SIZE}{_blocks_of_scales(nested, NESTED_BLOCK_SIZE)}"
    seen = {name: _packing(linear.quant_state) for name, linear in linears.items()}
    odd = next(((name, said) for name, said in seen.items() if said != wish), None)
    return odd is None, wish, "all of it" if odd is None else f"{odd[0]}: {odd[1]}"


def _packing(state: Any) -> str:
    code = state.code.float().cpu()
    book = torch.tensor(CODE_BOOK)
    is_normal = code.shape == book.shape and bool((code - book).abs().max() <= CODE_TOLERANCE)
    is_nf4 = is_normal and state.quant_type == "nf4"
    nested = _blocks_of_scales(bool(state.nested), state.state2.blocksize if state.nested else 0)
    kind = "4-bit NormalFloat" if is_nf4 else f"another 4-bit type ({state.quant_type})"
    return f"{kind} in blocks of {state.blocksize}{nested}"


def _blocks_of_scales(nested: bool, size: int) -> str:
    return f", scales in blocks of {size}" if nested else ""


def _stored(facts: Facts) -> torch.dtype:
    """What the label stores what trains in: beside packed weights, what activations are in."""
    precision = facts.cell.config.precision
    names = (precision.param_dtype, precision.compute_dtype, "bfloat16")
    name = next(name for name in names if name in arithmetic.DTYPE_BYTES)
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""Checks of the model itself: its shape, its first values, its number formats, how it is spread over ranks."""

import math

from torch import nn
from torch.distributed.tensor import DTensor

from benchrunner.core import arithmetic
from benchrunner.worker.axes.precision.formats import DTYPES
from benchrunner.worker.axes.precision.nf4 import packed_linears
from benchrunner.worker.validity.finding import Facts, Finding, unknown
from benchrunner.worker.validity.profiled import FLOAT8, StepProfile

LOSS_TOLERANCE = 0.3
FLOPS_TOLERANCE = 0.02
RESIDENT_TOLERANCE = 0.005
"""How far the bytes of a 4-bit model may be from its law."""
NORMS = frozenset({"attention_norm.weight", "mlp_norm.weight", "norm.weight"})
MIN_ELEMENTS = 512
"""A sample smaller than this says little about a standard deviation."""


def shape(facts: Facts) -> Finding:
    """Parameter counts equal the closed forms of the shape, and the model card's when the shape is unmodified."""
    cell, built = facts.cell, facts.built
    model, workload = cell.config.model, cell.config.workload
    expected = arithmetic.num_parameters(model), arithmetic.num_trainable_parameters(model, workload)
    observed = built.num_parameters, built.num_trainable_parameters
    card = None if any(key.startswith("model.") for key in cell.overrides) else model.num_parameters
    agrees = card is None or card == built.num_parameters
    return Finding(
        ok=expected == observed and agrees,
        expected="{} parameters, {} of them trainable".format(*expected) + ("" if agrees else f" (model card: {card})"),
        observed="{} parameters, {} of them trainable".format(*observed),
    )


def first_loss(facts: Facts) -> Finding:
    """From our own init the first loss is ln V + d·σ²/2, and every norm and matrix starts as it should.

    Logits at the start are normal with variance d·σ² (normed activations have unit mean square), so the mean of
    exp(logit) is exp(d·σ²/2). A small head hides dead activations in the loss; the parameters do not.
    """
    model, losses = facts.cell.config.model, facts.result.get("losses") or []
    wrong = _first_wrong_value(facts)
    if wrong is not None:
        return wrong
    if not losses:
        return unknown("this workload has no loss")
    spread = math.sqrt(model.d_model) * model.init_std
    expected = math.log(model.vocab_size) + spread**2 / 2
    if spread**2 > math.log(model.vocab_size):
        return unknown(f"with model.init_std={model.init_std:g} a few logits decide the loss")
    tokens = facts.result["tokens_per_step"]
    tolerance = max(LOSS_TOLERANCE, 5 * spread / math.sqrt(tokens))
    close = abs(losses[0] - expected) <= tolerance
    return Finding(ok=close, expected=f"{expected:.3f} ± {tolerance:.2f}", observed=round(losses[0], 4))


def _first_wrong_value(facts: Facts) -> Finding | None:
    """The first parameter of the base model that does not start as `worker/weights.py` says."""
    std = facts.cell.config.model.init_std
    for name, values in facts.initial.items():
        if "lora" in name or "adapter" in name or not values.numel():
            continue
        is_norm = ".".join(name.rsplit(".", 2)[-2:]) in NORMS
        if is_norm and not bool((values == 1).all()):
            observed = f"mean {values.mean().item():.4g}"
            return Finding(ok=False, expected=f"{name} starts at 1", observed=f"{name}: {observed}")
        is_matrix = name.endswith("weight") and not is_norm and values.numel() >= MIN_ELEMENTS
        if is_matrix and not 0.8 < values.std() / std < 1.25:
            observed = f"{name}: standard deviation {values.std().item():.4g}"
            return Finding(ok=False, expected=f"{name} starts with standard deviation {std:g}", observed=observed)
    return None


def precision(facts: Facts) -> Finding:
    """The linears really computed in the format of the label, and 4-bit weights really are 4-bit."""
    backend = facts.cell.config.precision.backend
    if backend == "bitsandbytes":
        return _resident(facts)
    profile = facts.probes.profile
    if profile is None:
        return unknown(facts.probes.missing)
    if backend == "transformer_engine":
        return _transformer_engine(facts)
    if not sum(profile.product_flops.values()):
        return unknown("matrix products did not pass torch's operators (CUDA graph, or generated kernels)")
    return _plain(facts, profile) if _compute(facts) in DTYPES else _float8(facts, profile)


def _plain(facts: Facts, profile: StepProfile) -> Finding:
    """Every product's operands have the compute dtype."""
    share = profile.product_flops[_compute(facts)] / sum(profile.product_flops.values())
    return Finding(
        ok=share >= 1 - FLOPS_TOLERANCE,
        expected=f"100% of the linears' FLOPs in {_compute(facts)}",
        observed=f"{share:.1%}",
    )


def _float8(facts: Facts, profile: StepProfile) -> Finding:
    """The model's FLOPs are in float8 but for the head's; recomputation may add to both."""
    low, seen = profile.product_flops[FLOAT8], sum(profile.product_flops.values())
    whole = seen if facts.finetunes else _model_flops(facts)
    expected, least = _expected_share(facts), _expected_share(facts) - FLOPS_TOLERANCE
    if facts.finetunes:
        least *= _frozen_share(facts)
    # A chunked head runs once more. Eager per-operation checkpointing shows kept products as calls of their wrapper.
    most = 4 / 3 * (1 - least) if facts.cell.config.activation_checkpointing.every != "per_op" else 1.0
    return Finding(
        ok=low >= least * whole and seen - low <= most * whole,
        expected=f"{expected:.1%} of the linears' FLOPs in float8, {1 - expected:.1%} in others",
        observed=f"{low / whole:.1%} in float8, {(seen - low) / whole:.1%} in others",
        note=_skipped(facts),
    )


def _model_flops(facts: Facts) -> float:
    """FLOPs of the linears in the profiled step, nothing recomputed."""
    passes = 3 if facts.optimizer is not None else 1
    return 2.0 * passes * arithmetic.matmul_parameters(facts.cell.config.model) * facts.probes.num_tokens


def _compute(facts: Facts) -> str:
    return str(facts.cell.config.precision.compute_dtype)


def _head_is_low(facts: Facts) -> bool:
    """Whether a low precision takes the head too; one that is the embedding's matrix stays as it is."""
    return facts.cell.config.precision.scope == "all" and not facts.cell.config.model.tie_embeddings


def _expected_share(facts: Facts) -> float:
    """Share of the linears' FLOPs in the label's format: all, or in fp8 all but the head's."""
    model = facts.cell.config.model
    if _compute(facts) in DTYPES or _head_is_low(facts):
        return 1.0
    return 1 - arithmetic.head_matmul_parameters(model) / arithmetic.matmul_parameters(model)


def _frozen_share(facts: Facts) -> float:
    """Share of a finetuning step's products that belong to the base; what a method adds stays in its own format."""
    config = facts.cell.config
    frozen = 4.0 * arithmetic.matmul_parameters(config.model)
    return frozen / (frozen + 6.0 * arithmetic.num_added_parameters(config.model, config.workload))


def _transformer_engine(facts: Facts) -> Finding:
    """Its products do not pass torch's operators: fp8 kernels are counted, and what torch's own linears computed."""
    profile, model = facts.probes.profile, facts.cell.config.model
    assert profile is not None
    if not profile.gemm_kernels:
        return unknown("the profiler saw no matrix product kernels")
    linears = len(arithmetic.linear_shapes(model)) * model.num_layers + _head_is_low(facts)
    trains = facts.optimizer is not None and not facts.finetunes
    passes = 3 if trains else 1
    expected, seen = passes * linears * facts.probes.num_micro_steps, profile.num_float8_kernels
    share, wanted = 1 - sum(profile.product_flops.values()) / _model_flops(facts), _expected_share(facts)
    return Finding(
        ok=seen >= expected and (facts.finetunes or abs(share - wanted) <= FLOPS_TOLERANCE),
        expected=f"{wanted:.1%} of the linears' FLOPs in fp8, at least {expected} fp8 products",
        observed=f"{share:.1%}, {seen} fp8 products",
        note=_skipped(facts),
    )


def _skipped(facts: Facts) -> str | None:
    """Linears that a low precision left as they were."""
    if _compute(facts) in DTYPES:
        return None
    names = [name for name, module in facts.built.decoder.named_modules() if type(module) is nn.Linear]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"not converted: {', '.join(names[:3])}{more}" if names else "every linear is converted"


def _resident(facts: Facts) -> Finding:
    """The bytes at rest follow the law of the format: scales included, everything else in the compute dtype."""
    config = facts.cell.config
    model, workload = config.model, config.workload
    element = arithmetic.DTYPE_BYTES[config.precision.compute_dtype]
    law = arithmetic.resident_weight_bytes(model, config.precision)
    law += arithmetic.num_added_parameters(model, workload) * element
    ranks = facts.context.world_size if config.strategy.kind == "fsdp" else 1
    held = facts.rest_bytes * ranks + facts.scale_bytes
    reads, wish, found = _unpackings(facts)
    return Finding(
        ok=abs(held / law - 1) <= RESIDENT_TOLERANCE and reads,
        expected=f"{law:.0f} bytes in the whole model (± {RESIDENT_TOLERANCE:.1%}){wish}",
        observed=f"{held} bytes{found}",
        note=_skipped(facts),
    )


def _unpackings(facts: Facts) -> tuple[bool, str, str]:
    """Every packed matrix is read in every forward pass: one that was unpacked and kept is no longer a 4-bit one.

    CUDA graphs replay without a call.
    """
    profile = facts.probes.profile
    if profile is None or (facts.cell.config.compile.replays_graphs and not profile.num_unpacked):
        return True, "", ""
    least = len(packed_linears(facts.built.decoder)) * facts.probes.num_micro_steps
    wish = f", packed weights read {least} times at least in a step"
    return profile.num_unpacked >= least, wish, f", read {profile.num_unpacked} times"


def sharded(facts: Facts) -> Finding:
    """Parameters at rest are the rank's part; after the forward pass whole blocks are there in stage 2 only."""
    if facts.cell.config.strategy.kind != "fsdp":
        return unknown(f"strategy {facts.cell.axes['strategy']} shards nothing")
    total, padding = _whole_bytes(facts)
    expected, stage = total / facts.context.world_size, facts.cell.config.strategy.stage
    at_rest = abs(facts.rest_bytes - expected) <= padding + 0.01 * expected
    wish, seen = f"{expected:.0f} bytes at rest", f"{facts.rest_bytes} bytes at rest"
    gathered, blocks = facts.probes.gathered_blocks
    if unseen := _why_blocks_are_unseen(facts):
        return Finding(ok=at_rest, expected=wish, observed=seen, note=f"{unseen}: only the bytes at rest are judged")
    in_units, wish_units, seen_units = _units(facts)
    return Finding(
        ok=at_rest and gathered == (blocks if stage == 2 else 0) and in_units,
        expected=f"{wish}, {'all' if stage == 2 else 'no'} blocks whole after forward{wish_units}",
        observed=f"{seen}, {gathered} of {blocks} blocks whole after forward{seen_units}",
    )


def _units(facts: Facts) -> tuple[bool, str, str]:
    """Every unit is gathered by a collective of its own: once a micro-step, twice where it was resharded between."""
    profile, config = facts.probes.profile, facts.cell.config
    if profile is None or not facts.several_ranks:
        return True, "", ""
    least = _num_units(facts) * facts.probes.num_micro_steps
    seen = profile.num_collectives["all_gather"]
    right = least <= seen <= 2 * least
    return right, f", {least} to {2 * least} gathers of {config.strategy.wrap}s", f", {seen} gathers"


def _num_units(facts: Facts) -> int:
    """Blocks and the root; or modules with parameters of their own, of which a tied embedding and head are one."""
    decoder, config = facts.built.decoder, facts.cell.config
    if config.strategy.wrap == "block":
        return len(decoder.blocks) + 1
    owners = sum(next(module.parameters(recurse=False), None) is not None for module in decoder.modules())
    return owners - bool(decoder.model.tie_embeddings)


def _why_blocks_are_unseen(facts: Facts) -> str | None:
    if not _has_parts(facts.built.decoder):
        return "parameters are flat (FSDP1)"
    if facts.probes.gathered_blocks[1]:
        return None
    return facts.probes.missing if facts.optimizer else "without a backward pass no block is looked at after forward"


def _has_parts(module: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def _whole_bytes(facts: Facts) -> tuple[float, int]:
    """Bytes of the whole model as stored, and how much more than its share a rank may hold as padding."""
    world, config, parameters = facts.context.world_size, facts.cell.config, facts.built.decoder.parameters()
    rows = [(p.shape[0], math.prod(p.shape[1:]) * p.element_size()) for p in parameters if p.ndim]
    padding = sum(row_bytes for num_rows, row_bytes in rows if num_rows % world)
    model, workload, number_format = config.model, config.workload, config.precision
    added, dtype = arithmetic.num_added_parameters(model, workload), number_format.param_dtype
    if dtype in arithmetic.QUANTIZED_BYTES:
        law = arithmetic.resident_weight_bytes(model, number_format) - facts.scale_bytes
        return law + added * arithmetic.DTYPE_BYTES[number_format.compute_dtype], padding
    return (facts.built.num_parameters + added) * float(arithmetic.DTYPE_BYTES[dtype]), padding

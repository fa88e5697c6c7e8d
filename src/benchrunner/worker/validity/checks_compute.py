"""Checks of how the step was computed: what was recomputed in the backward pass, and what was compiled."""

import functools
from dataclasses import replace

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torch.distributed.fsdp import FullyShardedDataParallel

from benchrunner.core import arithmetic
from benchrunner.worker.axes.activation_checkpointing import keep_products
from benchrunner.worker.axes.compile import compilers_at_work
from benchrunner.worker.validity.finding import Facts, Finding, unknown

PRODUCT_TOLERANCE = 0.02
"""Of the forward pass's FLOPs: by so much the recomputed FLOPs may be off."""


def recompute(facts: Facts) -> Finding:
    """As many blocks are checkpointed as the label says, and the profiled step computed them twice.

    Seen by calls of the fused attention operator (a checkpointed block makes one more) and, where all products pass
    torch's operators, by their FLOPs.
    """
    if facts.optimizer is None:
        return unknown("this workload has no backward pass")
    num_again = arithmetic.num_recomputed_blocks(len(facts.built.decoder.blocks), facts.cell.config)
    looks = (_attention_calls, _activation_calls, _product_flops)
    seen = [line for look in looks if (line := look(facts, num_again)) is not None]
    lines = [_wrappers(facts), *seen]
    return Finding(
        ok=all(right for right, _, _ in lines),
        expected="; ".join(wish for _, wish, _ in lines),
        observed="; ".join(found for _, _, found in lines),
        note=None if seen else "the profiler saw no call that recomputation repeats",
    )


def _wrappers(facts: Facts) -> tuple[bool, str, str]:
    """Blocks that are checkpointed, and those of them that keep their products: all under `per_op`, else none."""
    blocks, options = facts.built.decoder.blocks, facts.cell.config.activation_checkpointing
    num_wanted = len(arithmetic.checkpointed_blocks(len(blocks), options))
    own = [next(block.children()) if isinstance(block, FullyShardedDataParallel) else block for block in blocks]
    num_wrapped, num_keeping = sum(map(is_checkpointed, own)), sum(map(keeps_products, own))
    to_keep = num_wanted if _should_keep_products(facts) else 0
    wish, found = f"{num_wanted} of {len(blocks)} blocks checkpointed", f"{num_wrapped}"
    if to_keep or num_keeping:
        wish, found = f"{wish}, {to_keep} keep their products", f"{found}, {num_keeping}"
    return (num_wrapped, num_keeping) == (num_wanted, to_keep), wish, found


def is_checkpointed(block: nn.Module) -> bool:
    """Whether a block recomputes its activations."""
    return isinstance(block, CheckpointWrapper) or bool(getattr(block, "is_checkpointed", False))


def keeps_products(block: nn.Module) -> bool:
    """Whether a checkpointed block recomputes only what is cheap (`every=per_op`)."""
    function = getattr(block, "checkpoint_fn", None)
    return isinstance(function, functools.partial) and function.keywords.get("context_fn") is keep_products


def _should_keep_products(facts: Facts) -> bool:
    return bool(facts.cell.config.activation_checkpointing.every == "per_op")


def _attention_calls(facts: Facts, num_blocks: int) -> tuple[bool, str, str] | None:
    """Calls of the attention operator: one a layer, one more a checkpointed block unless its output is kept."""
    profile = facts.probes.profile
    if profile is None or not profile.num_attention_calls or _writes_attention_out(facts):
        return None
    num_layers, num_micro_steps = len(facts.built.decoder.blocks), facts.probes.num_micro_steps
    high = (num_layers + num_blocks) * num_micro_steps
    # A call whose kept output is returned instead shows as a call in eager mode.
    low = num_layers * num_micro_steps if _should_keep_products(facts) else high
    calls = profile.num_attention_calls
    return low <= calls <= high, f"{_range(low, high)} attention calls", f"{calls} attention calls"


def _writes_attention_out(facts: Facts) -> bool:
    """Thunder spells attention out in plain operations where no executor of its takes the call."""
    profile, layers = facts.probes.profile, len(facts.built.decoder.blocks)
    few = profile is None or profile.num_attention_calls < layers * facts.probes.num_micro_steps
    return facts.cell.axes["compile"] == "thunder" and few


def _activation_calls(facts: Facts, num_blocks: int) -> tuple[bool, str, str] | None:
    """Calls of the MLP's activation, seen where nothing is fused: one a layer, one more a checkpointed block.

    A block's MLP that no gradient passes is not computed again: its recomputation ends before it.
    """
    profile = facts.probes.profile
    if profile is None or facts.cell.axes["compile"] != "eager" or not profile.num_activation_calls:
        return None
    num_layers, num_micro_steps = len(facts.built.decoder.blocks), facts.probes.num_micro_steps
    high = (num_layers + num_blocks) * num_micro_steps
    low = high - arithmetic.num_spared_mlps(num_layers, facts.cell.config) * num_micro_steps
    calls = profile.num_activation_calls
    return low <= calls <= high, f"{_range(low, high)} activation calls", f"{calls} activation calls"


def _range(low: float, high: float, form: str = "d") -> str:
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _product_flops(facts: Facts, num_blocks: int) -> tuple[bool, str, str] | None:
    """Recomputed FLOPs of the linears, as a share of their forward pass; full training only."""
    profile, config = facts.probes.profile, facts.cell.config
    hidden = config.precision.backend == "transformer_engine" or facts.cell.config.attention == "explicit"
    if profile is None or hidden or config.workload.name != "train":
        return None
    model = replace(config.model, num_layers=len(facts.built.decoder.blocks))
    forward = 2.0 * arithmetic.matmul_parameters(model) * facts.probes.num_tokens
    found = sum(profile.product_flops.values()) / forward - 3
    if found < -PRODUCT_TOLERANCE:  # less than nothing recomputed is for the check `work`
        return None
    spared = _should_keep_products(facts)
    least = 0.0 if spared else num_blocks * arithmetic.recomputed_flops_per_block(model, 0)
    # Eager mode also shows calls that compute nothing: the block's last product, where recomputation stops, and
    # products whose kept result is returned.
    most = num_blocks * 2.0 * arithmetic.block_matmul_parameters(model)
    chunks = config.workload.loss_chunk_tokens is not None
    head = 2.0 * arithmetic.head_matmul_parameters(model) if chunks else 0.0
    low, high = ((again + head) * facts.probes.num_tokens / forward for again in (least, most))
    close = low - PRODUCT_TOLERANCE <= found <= high + PRODUCT_TOLERANCE
    return (
        close,
        f"{_range(low, high, '.0%')} of the forward products again",
        f"{found:.0%} of the forward products again",
    )


def compiled(facts: Facts) -> Finding:
    """Graphs exist and run every block; with static shapes nothing was compiled inside the measured window."""
    if facts.cell.axes["compile"] == "eager":
        return _not_compiled(facts)
    counters, profile = facts.result.get("compile") or {}, facts.probes.profile
    graphs, late = counters.get("num_graphs") or 0, counters.get("num_window_recompiles") or 0
    num_blocks = len(facts.built.decoder.blocks)
    a_block_each = facts.cell.config.compile.scope == "block" and facts.cell.axes["workload"] != "generate"
    regions = num_blocks * facts.probes.num_micro_steps if a_block_each else 1
    # A compiler fuses the activation: one that is called belongs to a block that it did not see.
    left_out = 0 if profile is None or facts.cell.axes["compile"] != "inductor" else profile.num_activation_calls
    covers = profile is None or (profile.num_regions >= regions and not left_out)
    may_recompile = facts.cell.config.compile.dynamic is not False or facts.cell.axes["workload"] == "generate"
    seen = "unknown" if profile is None else str(profile.num_regions)
    compiler, at_work = facts.cell.axes["compile"], compilers_at_work()
    return Finding(
        ok=graphs > 0 and covers and (late == 0 or may_recompile) and compiler in at_work,
        expected=f"graphs by {compiler}, at least {regions} calls of compiled code in a step and no MLP beside it, no "
        "recompilation in the window",
        observed=f"{graphs} graphs by {' and '.join(at_work) or 'no compiler'}, {seen} calls of compiled code"
        f"{f' and {left_out} MLPs beside it' if left_out else ''}, {late} recompilations in the window",
    )


def _not_compiled(facts: Facts) -> Finding:
    """Under compile=eager no compiled code is called, and no compiler works in the window."""
    profile = facts.probes.profile
    late = (facts.result.get("compile") or {}).get("num_window_recompiles") or 0
    if profile is None:
        return unknown(facts.probes.missing)
    if profile.num_regions and facts.cell.config.precision.backend == "transformer_engine":
        return unknown("Transformer Engine compiles parts of its own")
    return Finding(
        ok=profile.num_regions == 0 and late == 0,
        expected="no call of compiled code, no compilation in the window",
        observed=f"{profile.num_regions} calls of compiled code, {late} compilations in the window",
    )

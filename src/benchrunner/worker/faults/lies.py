"""What each lie puts in the place of what the worker would do, and what a cell must have for it to strike.

A lie runs to its end and prints plausible numbers: only a validity check can tell.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecision

from benchrunner.core.rank_result import RankResult
from benchrunner.core.schema import ModelConfig
from benchrunner.worker.axes import activation_checkpointing, peft, strategy
from benchrunner.worker.axes.optimizer import make_optimizer
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.context import Context
from benchrunner.worker.engines import built, fabric_fsdp, fabric_precision
from benchrunner.worker.engines.engine import ENGINES
from benchrunner.worker.faults import (
    lying_choices,
    lying_data,
    lying_functions,
    lying_labels,
    lying_loops,
    lying_work,
    needs,
)
from benchrunner.worker.faults.lying_models import falsify_linears, recompute_otherwise, stop_reducing
from benchrunner.worker.faults.patch import Patch, applied, in_module, spared
from benchrunner.worker.measure import window
from benchrunner.worker.model import decoder, layers, weights
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.steps import data, decoding
from benchrunner.worker.workloads import forward, generate, parity, train
from benchrunner.worker.workloads.result import rank_result

Patches = Callable[[Context], list[Patch]]


@contextmanager
def told(kind: str, context: Context) -> Iterator[None]:
    """Inside, everything in this process tells the lie `kind`, but for the reference that parity compares with.

    Raises:
        RuntimeError: the cell has nothing that the lie could strike.
    """
    lie = LIES[kind]
    for need in lie.wants:
        if not need.is_met(context):
            raise RuntimeError(f"the fault {kind} found no {need.what}")
    patches = lie.patches(context)
    with applied([*patches, spared(parity, "reference_loop", patches)]):
        yield


# --- what a lie does -------------------------------------------------------------------------------------------------


def _after_build(lie: Callable[[nn.Module], None]) -> Patches:
    """Whichever engine builds the model, the lie has the last word on it."""
    return lambda context: [Patch(ENGINES, name, partial(_build_and_lie, lie, make)) for name, make in ENGINES.items()]


def _build_and_lie(
    lie: Callable[[nn.Module], None], build: Callable[[Context], built.Built], context: Context
) -> built.Built:
    made = build(context)
    lie(made.model)
    return made


def _with_attention(lie: type) -> Patches:
    """Every block's attention is another one."""
    return lambda context: [in_module(decoder, "Attention", lie)]


def _in_layers(**lies: type) -> Patches:
    """Other classes in the place of a block's own."""
    return lambda context: [in_module(layers, name, lie) for name, lie in lies.items()]


def _as_decoder(lie: type) -> Patches:
    return lambda context: [in_module(built, "Decoder", lie)]


def _in_decoding(name: str, lie: Any) -> Patches:
    return lambda context: [in_module(decoding, name, lie)]


def _decoding_as(lie: type) -> Patches:
    return lambda context: [in_module(generate, "Decoding", lie)]


def _with_half_mlps(context: Context) -> list[Patch]:
    halves = {"GatedMLP": lying_functions.HalfGatedMLP, "MLP": lying_functions.HalfMLP}
    return [in_module(layers, name, half) for name, half in halves.items()]


def _with_adapters(**lies: type) -> Patches:
    """Other classes in the place of a finetuning method's own."""
    return lambda context: [in_module(peft, name, lie) for name, lie in lies.items()]


def _with_built(lie: Callable[[built.Built, Context], built.Built]) -> Patches:
    """Whichever engine builds, the lie has the last word on what it hands out."""

    def lying(make: Callable[[Context], built.Built], context: Context) -> built.Built:
        return lie(make(context), context)

    return lambda context: [Patch(ENGINES, name, partial(lying, make)) for name, make in ENGINES.items()]


def _with_optimizer(lie: Callable[[lying_functions.MakeOptimizer], lying_functions.MakeOptimizer]) -> Patches:
    return lambda context: [in_module(built, "make_optimizer", lie(make_optimizer))]


def _with_options(**options: Callable[[Any], Any]) -> Patches:
    return _with_optimizer(lambda make: lying_functions.with_options(make, **options))


def _in_training(lie: type) -> Patches:
    """The loops of both workloads that train lie."""
    loops = ((train, "TrainingLoop"), (parity, "ParityLoop"))
    return lambda context: [lying_loops.in_front(lie, module, name) for module, name in loops]


def _shorten(context: Context) -> list[Patch]:
    return [
        *_in_training(lying_loops.ShortTraining)(context),
        lying_loops.in_front(lying_loops.ShortForward, forward, "ForwardLoop"),
        lying_loops.in_front(lying_loops.ShortGeneration, generate, "GenerationLoop"),
    ]


def _keep_whole(context: Context) -> list[Patch]:
    """FSDP over one rank each, with as many replicas as there are ranks; FSDP1 has a word for it."""
    shard = strategy.shard

    def replicate(decoder: Decoder, context: Context, mesh: DeviceMesh | None = None) -> None:
        shape, names = (context.world_size, 1), ("replicas", "parts")
        shard(decoder, context, init_device_mesh(context.device.type, shape, mesh_dim_names=names))

    return [
        Patch(strategy.SHARD, "fsdp", replicate),
        in_module(strategy, "shard", replicate),
        in_module(fabric_fsdp, "SHARDING", dict.fromkeys(fabric_fsdp.SHARDING, "NO_SHARD")),
    ]


def _checkpoint_nothing(context: Context) -> list[Patch]:
    apply = activation_checkpointing.APPLY
    return [Patch(apply, context.cell.axes["activation_checkpointing"], activation_checkpointing.keep_everything)]


def _convert_nothing(context: Context) -> list[Patch]:
    """Neither modules nor autocast nor what FSDP casts, by whichever engine; gradients are scaled as they were."""
    name = context.cell.axes["precision"]
    kept = {"convert": formats.keep_linears, "forward": formats.plain_forward, "packs": False}
    return [
        Patch(formats.PRECISIONS, name, replace(formats.PRECISIONS[name], **kept)),  # type: ignore[arg-type]
        in_module(strategy, "fsdp_policy_dtypes", lambda cell: formats.PolicyDtypes(None, None)),
        in_module(fabric_fsdp, "mixed_precision", lambda cell: MixedPrecision()),
        in_module(fabric_precision, "options", _as_stored),
        in_module(fabric_precision, "prepare", lambda decoder, context, fabric: (decoder, {})),
    ]


def _as_stored(context: Context) -> dict[str, Any]:
    """Fabric's word for a precision that computes in what parameters are stored in."""
    return {"precision": "32-true" if formats.storage_dtype(context.cell) is torch.float32 else "bf16-true"}


def _zero_norms(context: Context) -> list[Patch]:
    """Every norm's weight is zero, as memory that was never written often is."""
    return [in_module(weights, "ZERO_AT_FIRST", (*weights.ZERO_AT_FIRST, "norm.weight"))]


def _leave_out_last_layer(context: Context) -> list[Patch]:
    def make(model: ModelConfig, **options: Any) -> Decoder:
        return Decoder(replace(model, num_layers=model.num_layers - 1), **options)

    return [in_module(built, "Decoder", make)]


def _halve_samples(context: Context) -> list[Patch]:
    return [in_module(built, "Decoder", lying_work.HalfDecoder)]


def _recompute_prefix(context: Context) -> list[Patch]:
    return [in_module(generate, "Decoding", lying_work.RecomputingDecoding)]


def _reduce_otherwise(context: Context) -> list[Patch]:
    return [
        *lying_labels.reduce_otherwise(context),
        *_after_build(lying_work.reduce_in_bfloat16)(context),
    ]


MEASURED = (train, forward, generate)
"""The workloads that have a window."""


def _measure_half(context: Context) -> list[Patch]:
    """Half of the window's steps."""

    def lying(context: Context, steps: window.Steps, **options: Any) -> RankResult:
        length = options.pop("num_steps", None) or context.cell.config.measure.steps
        return window.measure(context, steps, num_steps=-(-length // 2), **options)

    return [in_module(workload, "measure", lying) for workload in MEASURED]


def _claim_twice(context: Context) -> list[Patch]:
    """Twice the tokens in the same time."""

    def lying(context: Context, made: built.Built, measured: RankResult) -> RankResult:
        honest = rank_result(context, made, measured)
        return honest | {"tokens_per_step": 2 * honest["tokens_per_step"]}

    return [in_module(workload, "rank_result", lying) for workload in (train, forward)]


def _repeat_first_step(context: Context) -> list[Patch]:
    return [
        *_in_training(lying_data.SameBatch)(context),
        lying_loops.in_front(lying_data.SameForwardBatch, forward, "ForwardLoop"),
        lying_loops.in_front(lying_data.SamePrompts, generate, "GenerationLoop"),
    ]


@dataclass(frozen=True, slots=True)
class Lie:
    """A lie: the patches by which it is told in a rank, and what it needs there."""

    patches: Patches
    wants: tuple[needs.Need, ...] = ()


LIES: dict[str, Lie] = {
    "no_reduce": Lie(_after_build(stop_reducing), (needs.BACKWARD, needs.RANKS)),
    "no_shard": Lie(_keep_whole, (needs.SHARDS,)),
    "no_recompute": Lie(_checkpoint_nothing, (needs.BACKWARD, needs.CHECKPOINTS)),
    "no_convert": Lie(_convert_nothing, (needs.LOW_PRECISION,)),
    "zero_norm": Lie(_zero_norms),
    "frozen": Lie(_in_training(lying_loops.Frozen), (needs.BACKWARD,)),
    "wrong_shape": Lie(_leave_out_last_layer),
    "recompile": Lie(_in_training(lying_loops.Recompiling), (needs.BACKWARD, needs.WINDOW, needs.COMPILED)),
    "short_batch": Lie(_shorten),
    "same_data": Lie(_in_training(lying_loops.WithSameData), (needs.BACKWARD, needs.RANKS)),
    "half_sequence": Lie(_halve_samples, (needs.NO_GENERATION,)),
    "empty_steps": Lie(_in_training(lying_work.EmptySteps), (needs.BACKWARD, needs.WINDOW)),
    "half_blocks": Lie(_after_build(lying_work.leave_out_blocks), (needs.NO_BACKWARD,)),
    "recompute_prefix": Lie(_recompute_prefix, (needs.GENERATION, needs.EAGER)),
    "other_recipe": Lie(lying_labels.scale_otherwise, (needs.RECIPE,)),
    "other_packing": Lie(lying_labels.pack_fp4, (needs.PACKED,)),
    "other_storage": Lie(lying_labels.store_as_computed, (needs.MIXED,)),
    "other_reduction": Lie(_reduce_otherwise, (needs.BACKWARD, needs.RANKS, needs.REDUCES_FLOAT32)),
    "no_dropout": Lie(_after_build(lying_work.drop_nothing), (needs.BACKWARD, needs.DROPOUT)),
    "eval_mode": Lie(_in_training(lying_work.EvalMode), (needs.BACKWARD,)),
    "other_compiler": Lie(lying_labels.run_graphs_by_torch, (needs.INDUCTOR,)),
    "compiled_eager": Lie(_after_build(lying_work.compile_blocks_anyway), (needs.EAGER, needs.WINDOW)),
    "one_unit": Lie(lying_labels.gather_at_once, (needs.BACKWARD, needs.SHARDS)),
    "other_checkpointing": Lie(lying_labels.checkpoint_every_second, (needs.BACKWARD, needs.ALL_CHECKPOINTED)),
    "same_batch": Lie(_repeat_first_step),
    "same_after_first": Lie(_in_training(lying_data.SameAfterFirst), (needs.BACKWARD, needs.RANKS, needs.WINDOW)),
    "one_micro_batch": Lie(_in_training(lying_data.OneMicroBatch), (needs.BACKWARD, needs.MICRO_STEPS)),
    "double_reduce": Lie(_in_training(lying_loops.DoublyReduced), (needs.BACKWARD, needs.RANKS)),
    "wrong_scale": Lie(_in_training(lying_loops.WronglyScaled), (needs.BACKWARD, needs.SHARES)),
    "stale_recompute": Lie(_after_build(recompute_otherwise), (needs.BACKWARD, needs.EAGER, needs.CHECKPOINTS)),
    "wrong_linear": Lie(_after_build(falsify_linears), (needs.EAGER, needs.CONVERTED)),
    "not_causal": Lie(_with_attention(lying_functions.NotCausal)),
    "no_positions": Lie(_with_attention(lying_functions.WithoutPositions), (needs.ROTARY,)),
    "short_window": Lie(_with_attention(lying_functions.ShortWindow)),
    "wrong_heads": Lie(_with_attention(lying_functions.OtherHeads), (needs.SEVERAL_HEADS,)),
    "no_attention": Lie(_with_attention(lying_functions.WithoutAttention)),
    "half_mlp": Lie(_with_half_mlps),
    "loud_adapter": Lie(
        _with_adapters(LoRA=lying_functions.LouderLoRA, PromptedAttention=lying_functions.LouderPrompt),
        (needs.ADAPTED,),
    ),
    "wrong_adapter": Lie(
        _with_adapters(LoRA=lying_functions.LoRAOnKeys, PromptedAttention=lying_functions.PositionedPrompt),
        (needs.ADAPTED,),
    ),
    "scaled_loss": Lie(_with_built(lying_functions.scale_loss), (needs.BACKWARD,)),
    "undivided_loss": Lie(_with_built(lying_functions.undo_shares), (needs.BACKWARD, needs.SHARES)),
    "stopped_keys": Lie(_with_attention(lying_functions.StoppedGradient), (needs.BACKWARD,)),
    "wrong_lr": Lie(_with_options(lr=lambda lr: lr / 2), (needs.BACKWARD,)),
    "no_decay": Lie(_with_options(weight_decay=lambda decay: 0.0), (needs.BACKWARD,)),
    "wrong_betas": Lie(_with_options(betas=lambda betas: (0.9, 0.95)), (needs.BACKWARD,)),
    "no_clipping": Lie(_with_built(lying_functions.clip_nothing), (needs.BACKWARD, needs.CLIPPED)),
    "wrong_activation": Lie(_in_layers(GatedMLP=lying_functions.BentOtherwise), (needs.GATED,)),
    "sharp_attention": Lie(_with_attention(lying_functions.SharperAttention)),
    "other_rows": Lie(_as_decoder(lying_functions.OtherRows), (needs.SAMPLES,)),
    "late_cache": Lie(_in_decoding("KVCache", lying_choices.LateCache), (needs.GENERATION,)),
    "half_micro_batches": Lie(_in_training(lying_work.HalfMicroBatches), (needs.BACKWARD, needs.MANY_MICRO_STEPS)),
    "fewer_steps": Lie(_measure_half, (needs.WINDOW,)),
    "claimed_twice": Lie(_claim_twice, (needs.WINDOW, needs.NO_GENERATION)),
    "greedy": Lie(_in_decoding("choose", lying_choices.likeliest), (needs.GENERATION, needs.DRAWS)),
    "no_top_k": Lie(_in_decoding("choose", lying_choices.from_all), (needs.GENERATION, needs.DRAWS, needs.TOP_K)),
    "first_logits": Lie(_decoding_as(lying_choices.FirstLogits), (needs.GENERATION,)),
    "few_tokens": Lie(lambda context: [in_module(data, "draw_sample", lying_data.draw_few)]),
    "half_lengths": Lie(lambda context: [in_module(data, "sample_length", lying_data.half_length)], (needs.PADDED,)),
    "coarse_loss": Lie(_as_decoder(lying_functions.CoarseLoss), (needs.BACKWARD, needs.COMPUTES_16_BIT)),
    "kept_weights": Lie(lying_labels.keep_unpacked, (needs.PACKED,)),
    "other_kernel": Lie(lying_labels.attend_by_another, (needs.NAMED_KERNEL,)),
    "other_engine": Lie(lying_labels.build_natively, (needs.FABRIC,)),
    "unfused": Lie(lying_labels.update_one_by_one, (needs.BACKWARD, needs.FUSED)),
    "other_sync": Lie(lying_labels.reduce_at_other_times, (needs.BACKWARD, needs.RANKS, needs.MICRO_STEPS)),
    "other_mixing": Lie(lying_labels.mix_otherwise, (needs.POLICY,)),
    "head_compiled": Lie(lying_labels.run_head_alone, (needs.BACKWARD, needs.INDUCTOR, needs.WHOLE_COMPILED)),
    "kept_products": Lie(lying_labels.keep_some, (needs.BACKWARD, needs.ALL_CHECKPOINTED)),
    "same_drops": Lie(_in_training(lying_loops.SameDrops), (needs.BACKWARD, needs.DROPOUT)),
    "small_weights": Lie(lying_labels.start_smaller),
    "counted_twice": Lie(lying_labels.count_twice, (needs.TIED,)),
    "piled_gradients": Lie(_in_training(lying_loops.PilingUp), (needs.BACKWARD,)),
    "seldom_updates": Lie(_in_training(lying_loops.SeldomUpdating), (needs.BACKWARD,)),
    "idle_window": Lie(_in_training(lying_loops.IdleInWindow), (needs.BACKWARD, needs.WINDOW)),
    "other_optimizer": Lie(_with_optimizer(lying_functions.other_class), (needs.BACKWARD,)),
}
"""Lie → how it is told; a test holds its keys equal to those of `benchrunner.core.faults.LIES`."""

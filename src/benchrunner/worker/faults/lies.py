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

from benchrunner.core.arithmetic import PEFT_WORKLOADS
from benchrunner.core.schema import ModelConfig
from benchrunner.worker.axes import activation_checkpointing, compile, peft, strategy
from benchrunner.worker.axes.optimizer import make_optimizer
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.context import Context
from benchrunner.worker.engines import built, fabric_fsdp, fabric_precision
from benchrunner.worker.engines.engine import ENGINES
from benchrunner.worker.faults import lying_functions, lying_loops
from benchrunner.worker.faults.lying_models import falsify_linears, recompute_otherwise, stop_reducing
from benchrunner.worker.faults.patch import Patch, applied, in_module, spared
from benchrunner.worker.model import decoder, layers, weights
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.steps import data
from benchrunner.worker.workloads import forward, generate, parity, train

Patches = Callable[[Context], list[Patch]]


@contextmanager
def told(kind: str, context: Context) -> Iterator[None]:
    """Inside, everything in this process tells the lie `kind`, but for the reference that parity compares with.

    Raises:
        RuntimeError: the cell has nothing that the lie could strike.
    """
    lie = LIES[kind]
    for need in lie.needs:
        if not need.is_met(context):
            raise RuntimeError(f"the fault {kind} found no {need.what}")
    patches = lie.patches(context)
    with applied([*patches, spared(parity, "reference_loop", patches)]):
        yield


# --- what a lie needs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Need:
    """What a cell must have for a lie to strike it."""

    what: str
    is_met: Callable[[Context], bool]


def _shards(context: Context) -> bool:
    compiler = compile.COMPILERS[context.cell.axes["compile"]]
    by_torch = not compiler.distributes(context.cell)
    return by_torch and context.cell.config.strategy.kind == "fsdp" and context.world_size > 1


def _swaps_linears(context: Context) -> bool:
    return formats.PRECISIONS[context.cell.axes["precision"]].convert is not formats.keep_linears


def _divides(context: Context) -> bool:
    return context.cell.sizes.accumulation_steps > 1 or data.is_padded(context.cell)


def _attends_in_groups(context: Context) -> bool:
    return context.cell.config.model.num_kv_heads > 1


def _clips(context: Context) -> bool:
    return context.cell.config.optimizer.clip_norm is not None


ROTARY = Need("rotary positions", lambda context: context.cell.config.model.positions == "rotary")
SEVERAL_HEADS = Need("other key-value head", _attends_in_groups)
ADAPTED = Need("adapter", lambda context: context.cell.config.workload.name in PEFT_WORKLOADS)
CLIPPED = Need("clipping", _clips)
BACKWARD = Need("backward pass", lambda context: built.has_gradients(context.cell))
RANKS = Need("other rank", lambda context: context.world_size > 1)
SHARDS = Need("parameters that torch shards over ranks", _shards)
CHECKPOINTS = Need("checkpointed block", lambda context: context.cell.axes["activation_checkpointing"] != "none")
LOW_PRECISION = Need(
    "conversion to leave out", lambda context: _swaps_linears(context) or formats.mixed_by(context.cell) is not None
)
CONVERTED = Need("linear that a precision converted", _swaps_linears)
WINDOW = Need("window of training steps", lambda context: context.cell.axes["workload"] != "parity")
COMPILED = Need("compiled function", lambda context: context.cell.axes["compile"] != "eager")
EAGER = Need("eager model", lambda context: context.cell.axes["compile"] == "eager")
SHARES = Need("micro-steps to divide by", _divides)


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


@dataclass(frozen=True, slots=True)
class Lie:
    """A lie: the patches by which it is told in a rank, and what it needs there."""

    patches: Patches
    needs: tuple[Need, ...] = ()


LIES: dict[str, Lie] = {
    "no_reduce": Lie(_after_build(stop_reducing), (BACKWARD, RANKS)),
    "no_shard": Lie(_keep_whole, (SHARDS,)),
    "no_recompute": Lie(_checkpoint_nothing, (BACKWARD, CHECKPOINTS)),
    "no_convert": Lie(_convert_nothing, (LOW_PRECISION,)),
    "zero_norm": Lie(_zero_norms),
    "frozen": Lie(_in_training(lying_loops.Frozen), (BACKWARD,)),
    "wrong_shape": Lie(_leave_out_last_layer),
    "recompile": Lie(_in_training(lying_loops.Recompiling), (BACKWARD, WINDOW, COMPILED)),
    "short_batch": Lie(_shorten),
    "same_data": Lie(_in_training(lying_loops.WithSameData), (BACKWARD, RANKS)),
    "double_reduce": Lie(_in_training(lying_loops.DoublyReduced), (BACKWARD, RANKS)),
    "wrong_scale": Lie(_in_training(lying_loops.WronglyScaled), (BACKWARD, SHARES)),
    "stale_recompute": Lie(_after_build(recompute_otherwise), (BACKWARD, EAGER, CHECKPOINTS)),
    "wrong_linear": Lie(_after_build(falsify_linears), (EAGER, CONVERTED)),
    "not_causal": Lie(_with_attention(lying_functions.NotCausal)),
    "no_positions": Lie(_with_attention(lying_functions.WithoutPositions), (ROTARY,)),
    "short_window": Lie(_with_attention(lying_functions.ShortWindow)),
    "wrong_heads": Lie(_with_attention(lying_functions.OtherHeads), (SEVERAL_HEADS,)),
    "no_attention": Lie(_with_attention(lying_functions.WithoutAttention)),
    "half_mlp": Lie(_with_half_mlps),
    "loud_adapter": Lie(
        _with_adapters(LoRA=lying_functions.LouderLoRA, PromptedAttention=lying_functions.LouderPrompt), (ADAPTED,)
    ),
    "wrong_adapter": Lie(
        _with_adapters(LoRA=lying_functions.LoRAOnKeys, PromptedAttention=lying_functions.PositionedPrompt), (ADAPTED,)
    ),
    "scaled_loss": Lie(_with_built(lying_functions.scale_loss), (BACKWARD,)),
    "undivided_loss": Lie(_with_built(lying_functions.undo_shares), (BACKWARD, SHARES)),
    "stopped_gradient": Lie(_with_attention(lying_functions.StoppedGradient), (BACKWARD,)),
    "wrong_lr": Lie(_with_options(lr=lambda lr: lr / 2), (BACKWARD,)),
    "no_decay": Lie(_with_options(weight_decay=lambda decay: 0.0), (BACKWARD,)),
    "wrong_betas": Lie(_with_options(betas=lambda betas: (0.9, 0.95)), (BACKWARD,)),
    "no_clipping": Lie(_with_built(lying_functions.clip_nothing), (BACKWARD, CLIPPED)),
    "other_optimizer": Lie(_with_optimizer(lying_functions.other_class), (BACKWARD,)),
}
"""Lie → how it is told; a test holds its keys equal to those of `benchrunner.core.faults.LIES`."""

"""What a cell must have for a lie to strike it."""

from collections.abc import Callable
from dataclasses import dataclass

from benchrunner.core.arithmetic import PEFT_WORKLOADS
from benchrunner.core.lengths import is_padded
from benchrunner.worker.axes import compile
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.context import Context
from benchrunner.worker.engines import built


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
    return context.cell.sizes.accumulation_steps > 1 or is_padded(context.cell)


ROTARY = Need("rotary positions", lambda context: context.cell.config.model.positions == "rotary")
SEVERAL_HEADS = Need("other key-value head", lambda context: context.cell.config.model.num_kv_heads > 1)
ADAPTED = Need("adapter", lambda context: context.cell.config.workload.name in PEFT_WORKLOADS)
CLIPPED = Need("clipping", lambda context: context.cell.config.optimizer.clip_norm is not None)
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
NO_BACKWARD = Need("workload without a backward pass", lambda context: not built.has_gradients(context.cell))
GENERATION = Need("generation", lambda context: context.cell.axes["workload"] == "generate")
NO_GENERATION = Need("sample that is known beforehand", lambda context: context.cell.axes["workload"] != "generate")
RECIPE = Need("fp8 recipe", lambda context: context.cell.config.precision.recipe is not None)
PACKED = Need("4-bit weights", lambda context: formats.PRECISIONS[context.cell.axes["precision"]].packs)
MIXED = Need("mixed precision", lambda context: formats.mixed_by(context.cell) is not None)
REDUCES_FLOAT32 = Need("reduction in float32", lambda context: context.cell.config.precision.reduce_dtype == "float32")
DROPOUT = Need(
    "dropout",
    lambda context: bool(
        context.cell.config.model.dropout
        or (context.cell.axes["workload"] == "lora" and context.cell.config.workload.lora_dropout)
    ),
)
INDUCTOR = Need("function compiled by Inductor", lambda context: context.cell.axes["compile"] == "inductor")
ALL_CHECKPOINTED = Need(
    "checkpointing of all blocks", lambda context: context.cell.axes["activation_checkpointing"] == "full"
)
MICRO_STEPS = Need("second micro-step", lambda context: context.cell.sizes.accumulation_steps > 1)
SHARES = Need("micro-steps to divide by", _divides)
GATED = Need("gated MLP", lambda context: context.cell.config.model.mlp == "swiglu")
SAMPLES = Need("second sample in a micro-batch", lambda context: context.cell.sizes.micro_batch_size > 1)
MANY_MICRO_STEPS = Need("third micro-step", lambda context: context.cell.sizes.accumulation_steps > 2)
PADDED = Need("sample of another length", lambda context: is_padded(context.cell))
WHOLE_COMPILED = Need("model compiled as a whole", lambda context: context.cell.config.compile.scope == "model")
NAMED_KERNEL = Need(
    "attention kernel that is named", lambda context: context.cell.config.attention not in ("auto", "explicit")
)
FABRIC = Need("engine of Fabric's", lambda context: context.cell.axes["engine"] != "native")
FUSED = Need("fused optimizer", lambda context: bool(context.cell.config.optimizer.fused))
POLICY = Need("policy that mixes", lambda context: formats.mixed_by(context.cell) == "policy")
DRAWS = Need("token that is drawn", lambda context: context.cell.config.generate.temperature > 0)
TOP_K = Need("choice of some tokens", lambda context: context.cell.config.generate.top_k is not None)
TIED = Need("tied head", lambda context: context.cell.config.model.tie_embeddings)
COMPUTES_16_BIT = Need("loss to round", lambda context: formats.mixed_by(context.cell) != "autocast")

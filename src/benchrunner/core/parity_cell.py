"""What `workload=parity` runs of a cell: the same combination, small enough to be computed twice in seconds.

Kept: everything that chooses code (family of the model, strategy, precision, compiler, checkpointing, engine,
attention, accumulation). Made small: the shape, the batch, the sequence.
"""

from dataclasses import replace
from typing import Any

from benchrunner.core.cell import Cell, derive_sizes
from benchrunner.core.schema import (
    CheckpointingConfig,
    Config,
    EngineConfig,
    ModelConfig,
    OptimizerConfig,
    StrategyConfig,
)

HEAD_SIZE = 32
NUM_HEADS = 4
D_FF = 256
VOCAB_SIZE = 256
SEQ_LEN = 64
MICRO_BATCH_SIZE = 8
MAX_ACCUMULATION_STEPS = 2
MAX_LAYERS = 4
INIT_STD = 0.06
"""Wide enough for a small model to learn in 30 steps."""
LEARNING_RATE = 0.1
QUANTIZED_WORKLOAD = "lora"
"""What trains where the base is packed integers."""


def as_built(cell: Cell) -> Cell:
    """The cell whose model and batch are really built: parity makes them small."""
    return small_scale(cell) if cell.axes["workload"] == "parity" else cell


def small_scale(cell: Cell) -> Cell:
    """The cell that a parity run builds: plain SGD without decay, dropout or clipping, which would hide a scale."""
    config = cell.config
    workload = QUANTIZED_WORKLOAD if config.precision.backend == "bitsandbytes" else "train"
    chunk = config.workload.loss_chunk_tokens
    accumulation = min(max(cell.sizes.accumulation_steps, 1), MAX_ACCUMULATION_STEPS)
    small = replace(
        config,
        model=small_model(config.model, config.activation_checkpointing),
        workload=replace(
            config.workload,
            name=workload,
            lengths="fixed",
            lora_dropout=0.0,
            loss_chunk_tokens=None if chunk is None else SEQ_LEN // 2,
        ),
        optimizer=OptimizerConfig(name="sgd", lr=LEARNING_RATE, weight_decay=0.0, clip_norm=None),
        seq_len=SEQ_LEN,
        micro_batch_size=MICRO_BATCH_SIZE,
        devices=cell.sizes.devices,
        global_batch_size=MICRO_BATCH_SIZE * accumulation * cell.sizes.world_size,
    )
    axes = dict(cell.axes) | {"workload": workload, "optimizer": "sgd"}
    return replace(cell, axes=axes, config=small, sizes=derive_sizes(small, cell.sizes.devices))


def small_model(model: ModelConfig, checkpointing: CheckpointingConfig) -> ModelConfig:
    """The shape made small; grouped-query attention stays grouped, one key-value head stays one."""
    groups = model.num_heads // model.num_kv_heads
    num_kv_heads = NUM_HEADS if groups == 1 else 1 if model.num_kv_heads == 1 else NUM_HEADS // 2
    return replace(
        model,
        num_layers=_num_layers(checkpointing),
        d_model=NUM_HEADS * HEAD_SIZE,
        num_heads=NUM_HEADS,
        num_kv_heads=num_kv_heads,
        d_ff=D_FF,
        vocab_size=VOCAB_SIZE,
        max_seq_len=SEQ_LEN,
        dropout=0.0,
        init_std=INIT_STD,
        num_parameters=None,
    )


def _num_layers(checkpointing: CheckpointingConfig) -> int:
    """Two, or a whole period of the blocks that are checkpointed."""
    _, _, period = str(checkpointing.every or "").partition("/")
    return max(2, min(int(period), MAX_LAYERS)) if period.isdigit() else 2


def reference(small: Cell) -> Cell:
    """The same model and global batch in fp32, eager, on one device, nothing recomputed: what parity compares with."""
    before = small.config
    config = replace(
        before,
        model=replace(before.model, tie_embeddings=before.model.tie_embeddings and not _packs_head(before)),
        workload=replace(before.workload, loss_chunk_tokens=None),
        strategy=StrategyConfig(name="single", kind="single"),
        precision=replace(before.precision, **FP32),
        compile=replace(before.compile, name="eager", mode=None, scope="block"),
        activation_checkpointing=CheckpointingConfig(name="none"),
        engine=EngineConfig(name="native"),
        attention="math",
        devices=1,
        nodes=1,
        micro_batch_size=small.sizes.global_batch_size,
    )
    names = ("strategy", "precision", "compile", "activation_checkpointing", "engine")
    axes = dict(small.axes) | {name: getattr(config, name).name for name in names}
    return replace(small, axes=axes, config=config, sizes=derive_sizes(config, 1))


def _packs_head(config: Config) -> bool:
    """Whether a tied head is packed apart from the embedding: then it is not the embedding's matrix any more."""
    return config.precision.backend == "bitsandbytes" and config.precision.scope == "all"


FP32: dict[str, Any] = {
    "name": "fp32",
    "param_dtype": "float32",
    "compute_dtype": "float32",
    "reduce_dtype": "float32",
    "backend": "torch",
    "recipe": None,
}
"""What the reference changes of a precision."""

"""The shape of the configuration tree: every key, its type and its default.

One schema a group, shared by all its options (null where a key means nothing for an option): Hydra composes a
master configuration first, so a key must exist whatever option is chosen.
"""

from dataclasses import dataclass, field
from typing import Any

REQUIRED: Any = "???"
"""A key that every option file must set (OmegaConf's marker for a missing value)."""


@dataclass
class ModelConfig:
    """Shape of a decoder-only transformer."""

    name: str = REQUIRED
    description: str = ""
    num_layers: int = REQUIRED
    d_model: int = REQUIRED
    num_heads: int = REQUIRED
    num_kv_heads: int = REQUIRED
    d_ff: int = REQUIRED
    vocab_size: int = REQUIRED
    max_seq_len: int = REQUIRED
    tie_embeddings: bool = False
    norm: str = "rmsnorm"
    """rmsnorm | layernorm"""
    norm_eps: float = 1e-5
    mlp: str = "swiglu"
    """swiglu (three matrices) | gelu | gelu_tanh (two matrices)"""
    positions: str = "rotary"
    """rotary | learned"""
    rotary_fraction: float = 1.0
    """Share of each head's channels that is rotated."""
    rope_base: float = 10000.0
    bias: bool = False
    """Biases on the linears of attention and MLP."""
    head_bias: bool = False
    parallel_residual: bool = False
    """Attention and MLP read the same input and are added together."""
    shared_norm: bool = False
    """With `parallel_residual`: one norm a block instead of two."""
    dropout: float = 0.0
    init_std: float = 0.02
    num_parameters: int | None = None
    """Of the model card, tied head once; checked when the shape is unmodified."""
    source: str = ""


@dataclass
class WorkloadConfig:
    """What a step is."""

    name: str = REQUIRED
    description: str = ""
    lengths: str = "fixed"
    """fixed | uniform (drawn from min_length..seq_len, right-padded) | alpaca (near 110 tokens, longest first)"""
    min_length: int = 10
    longest: int | None = None
    """Length of the sample forced into the first iteration when `lengths=alpaca`; null: min(seq_len, 1304)."""
    loss_chunk_tokens: int | None = None
    """Head and loss are computed in chunks of so many tokens; null: at once."""
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.05
    adapter_prompt_length: int = 10
    adapter_start_layer: int = 2


@dataclass
class GenerateConfig:
    """Read by `workload=generate` only."""

    unit: str = "model"
    """model: the decoder is compiled | token: decoder, temperature and sampling are compiled as one step"""
    prompt_length: int = 6
    new_tokens: int = 200
    temperature: float = 1.0
    top_k: int | None = None
    num_samples: int = 10


@dataclass
class StrategyConfig:
    """How parameters, gradients and optimizer state are spread over devices."""

    name: str = REQUIRED
    description: str = ""
    kind: str = REQUIRED
    """single | ddp | fsdp"""
    stage: int | None = None
    """2: parameters stay gathered between forward and backward; 3: they are resharded after forward."""
    wrap: str = "block"
    """block: one FSDP unit a transformer block | module: every submodule is a unit of its own"""
    backward_prefetch: str | None = None
    """none | pre | post (FSDP1 only); null: the library's default"""
    accumulation_sync: str | None = None
    """last: gradients are reduced in the last micro-step only | every; null: last under DDP, every under FSDP (where
    `last` would keep the unsharded gradients)"""
    mixed_precision_by: str | None = None
    """policy | autocast; null: policy under FSDP, autocast elsewhere"""


@dataclass
class PrecisionConfig:
    """Number formats of parameters, compute and reduction."""

    name: str = REQUIRED
    description: str = ""
    param_dtype: str = REQUIRED
    compute_dtype: str = REQUIRED
    reduce_dtype: str = REQUIRED
    backend: str = "torch"
    """torch | transformer_engine | torchao | bitsandbytes"""
    recipe: str | None = None
    """Transformer Engine: delayed | current | block; torchao: tensorwise | rowwise"""
    scope: str = "all"
    """all: every linear | blocks: not the head"""
    pad: bool = False
    """Pad sizes that fp8 cannot take instead of refusing them; shows in the record."""


@dataclass
class CompileConfig:
    """Which compiler, over what."""

    name: str = REQUIRED
    description: str = ""
    mode: str | None = None
    """default | reduce-overhead | max-autotune | max-autotune-no-cudagraphs"""
    scope: str = "block"
    """block: each transformer block in place, and head with loss | model: the whole model after wrapping"""
    dynamic: bool | None = False
    """true, false, or null for torch.compile's automatic choice"""
    fullgraph: bool = False
    cache: str = "cold"
    """cold: an empty cache directory a cell, so that compile time is comparable | shared: one for all"""


@dataclass
class ActivationCheckpointingConfig:
    """Which activations are recomputed in the backward pass."""

    name: str = REQUIRED
    description: str = ""
    every: str | None = None
    """For `selective`: q/p checkpoints block i iff (i mod p) < q; per_op keeps matmul and attention outputs."""


@dataclass
class EngineConfig:
    """Whose code wraps the model."""

    name: str = REQUIRED
    description: str = ""


@dataclass
class OptimizerConfig:
    """The update rule."""

    name: str = REQUIRED
    description: str = ""
    lr: float = REQUIRED
    weight_decay: float = 0.0
    clip_norm: float | None = None
    """Global gradient norm is clipped to this; null: no clipping."""


@dataclass
class LauncherConfig:
    """Where the jobs run."""

    name: str = REQUIRED
    description: str = ""
    partition: str | None = None
    account: str | None = None
    time_min: int | None = None
    cpus_per_task: int | None = None


@dataclass
class HardwareConfig:
    """A device: peaks and sizes, each with its source; `auto` is filled in from the machine."""

    name: str = REQUIRED
    description: str = ""
    device_type: str | None = None
    """cuda | cpu"""
    match: str | None = None
    """Regular expression that finds this device in the name that the driver reports."""
    num_devices: int | None = None
    memory_bytes: int | None = None
    compute_capability: str | None = None
    memory_bandwidth_bytes_per_second: float | None = None
    interconnect_bytes_per_second: float | None = None
    """One direction, a device, to its peers in the node."""
    peak_flops: dict[str, float] = field(default_factory=dict)
    """Dense FLOP/s by dtype: fp32, tf32, bf16, fp16, fp8, int8, int4."""
    source: str = ""


@dataclass
class MeasureConfig:
    """The measured window."""

    warmup_steps: int = 5
    steps: int = 20


@dataclass
class LimitsConfig:
    """Seconds without progress after which a cell is stopped, by phase; null: scaled to the cell's work.

    Progress is a change of phase or one more step of any rank.
    """

    start_s: float | None = None
    """Until the ranks have imported their libraries."""
    build_s: float | None = None
    compile_s: float | None = None
    """The first step, which compiles lazily."""
    warmup_s: float | None = None
    measure_s: float | None = None
    check_s: float | None = None
    teardown_s: float | None = None


@dataclass
class SweepConfig:
    """Rows that a sweep adds to or strikes from its product."""

    include: list[dict[str, Any]] = field(default_factory=list)
    """Each entry is a mapping key → value (or comma list), expanded beside the product."""
    exclude: list[dict[str, Any]] = field(default_factory=list)
    """Each entry is {match: {key: pattern}, reason: text}; the rows stay visible in the plan."""


@dataclass
class Config:
    """The whole tree."""

    model: ModelConfig = field(default_factory=ModelConfig)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    activation_checkpointing: ActivationCheckpointingConfig = field(default_factory=ActivationCheckpointingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    attention: str = "auto"
    """auto | flash | cudnn | efficient | math | explicit"""
    micro_batch_size: int = 1
    """Samples a device a forward pass."""
    global_batch_size: int | None = None
    """Samples an optimizer step over all devices; null: micro_batch_size × world size (no accumulation)."""
    seq_len: int | None = None
    """Tokens a sample; null: the model's max_seq_len."""
    devices: int | None = None
    """Devices a node; null: 1 for `single`, all visible otherwise (2 on CPU)."""
    nodes: int = 1
    seed: int = 0
    timeout_s: float = 1800.0
    """A cell that runs longer is stopped and recorded as timeout, whatever its `limits`."""
    exclusive: bool = False
    """Run each cell alone on the machine instead of beside others on disjoint devices."""
    retries: int = 1
    """How often a cell is tried again whose failure is one of infrastructure (a device lost, a port taken)."""
    brake: int | None = 5
    """The same unexpected failure in so many different cells stops the sweep; null: never."""
    memory_limit_gib: float | None = None
    """Emulate a card with this much memory; null: the whole device."""
    compat: str = "enforce"
    """enforce: ruled-out cells are not launched | probe: they are, and those that pass are reported"""
    predict: str = "analytic"
    """analytic | dry_run (peak memory under fake tensors, seconds a cell)"""
    out_dir: str = "outputs"


CHOICES: dict[str, tuple[str, ...]] = {
    "model.norm": ("rmsnorm", "layernorm"),
    "model.mlp": ("swiglu", "gelu", "gelu_tanh"),
    "model.positions": ("rotary", "learned"),
    "workload.lengths": ("fixed", "uniform", "alpaca"),
    "generate.unit": ("model", "token"),
    "strategy.kind": ("single", "ddp", "fsdp"),
    "strategy.wrap": ("block", "module"),
    "strategy.backward_prefetch": ("none", "pre", "post"),
    "strategy.accumulation_sync": ("last", "every"),
    "strategy.mixed_precision_by": ("policy", "autocast"),
    "precision.backend": ("torch", "transformer_engine", "torchao", "bitsandbytes"),
    "precision.recipe": ("delayed", "current", "block", "tensorwise", "rowwise"),
    "precision.scope": ("all", "blocks"),
    "compile.mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "compile.scope": ("block", "model"),
    "compile.cache": ("cold", "shared"),
    "attention": ("auto", "flash", "cudnn", "efficient", "math", "explicit"),
    "compat": ("enforce", "probe"),
    "predict": ("analytic", "dry_run"),
}
"""Keys whose value is one of a list (null is allowed where the default is null)."""

POSITIVE = (
    "model.num_layers",
    "model.d_model",
    "model.num_heads",
    "model.num_kv_heads",
    "model.d_ff",
    "model.vocab_size",
    "model.max_seq_len",
    "micro_batch_size",
    "global_batch_size",
    "seq_len",
    "devices",
    "nodes",
    "timeout_s",
    "limits.start_s",
    "limits.build_s",
    "limits.compile_s",
    "limits.warmup_s",
    "limits.measure_s",
    "limits.check_s",
    "limits.teardown_s",
    "brake",
    "memory_limit_gib",
    "measure.steps",
    "optimizer.lr",
    "optimizer.clip_norm",
    "generate.prompt_length",
    "generate.new_tokens",
    "generate.num_samples",
    "generate.top_k",
    "workload.lora_rank",
    "workload.min_length",
    "workload.longest",
    "workload.loss_chunk_tokens",
    "workload.adapter_prompt_length",
)
"""Keys that must be greater than zero when set."""

NOT_NEGATIVE = (
    "measure.warmup_steps",
    "retries",
    "model.dropout",
    "model.init_std",
    "workload.lora_dropout",
    "optimizer.weight_decay",
    "generate.temperature",
)
"""Keys that may be zero but not less."""

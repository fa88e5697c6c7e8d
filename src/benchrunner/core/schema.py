"""The configuration: every key with its type, its default and the values that it may have.

One schema a group, shared by all its options (None where a key means nothing for an option): Hydra composes a master
configuration first, so a key must exist whatever option is chosen. Frozen, since cells share their sections.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any

REQUIRED: Any = "???"
"""A key that every option file must set (OmegaConf's marker for a missing value)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The values that a key may have, besides None where its type has that."""

    choices: tuple[str, ...] = ()
    """Empty: any."""
    words: tuple[str, ...] = ()
    """Texts that it may be in place of a number."""
    above: float | None = None
    least: float | None = None
    below: float | None = None


SEARCHES = ("max", "best")
"""What `micro_batch_size` may be in place of a number: the largest that fits, and the fastest."""


def setting(
    default: Any = REQUIRED,
    *,
    choices: tuple[str, ...] = (),
    words: tuple[str, ...] = (),
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
) -> Any:
    """A key that not every value of its type is good for: see `Allowed`."""
    allowed = Allowed(choices=choices, words=words, above=above, least=least, below=below)
    return field(default=default, metadata={ALLOWED: allowed})


ALLOWED = "allowed"
"""Where a field's metadata hold its `Allowed`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder-only transformer."""

    name: str = REQUIRED
    description: str = ""
    num_layers: int = setting(above=0)
    d_model: int = setting(above=0)
    num_heads: int = setting(above=0)
    num_kv_heads: int = setting(above=0)
    d_ff: int = setting(above=0)
    vocab_size: int = setting(above=0)
    max_seq_len: int = setting(above=0)
    tie_embeddings: bool = False
    norm: str = setting("rmsnorm", choices=("rmsnorm", "layernorm"))
    """rmsnorm | layernorm"""
    norm_eps: float = 1e-5
    mlp: str = setting("swiglu", choices=("swiglu", "gelu", "gelu_tanh"))
    """swiglu (three matrices) | gelu | gelu_tanh (two matrices)"""
    positions: str = setting("rotary", choices=("rotary", "learned"))
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
    dropout: float = setting(0.0, least=0, below=1)
    init_std: float = setting(0.02, least=0)
    num_parameters: int | None = None
    """Of the model card, tied head once; checked when the shape is unmodified."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkloadConfig:
    """What a step is."""

    name: str = REQUIRED
    description: str = ""
    lengths: str = setting("fixed", choices=("fixed", "uniform", "alpaca"))
    """fixed | uniform (drawn from min_length..seq_len, right-padded) | alpaca (near 110 tokens, longest first)"""
    min_length: int = setting(10, above=0)
    longest: int | None = setting(None, above=0)
    """Length of the sample forced into the first iteration when `lengths=alpaca`; None: min(seq_len, 1304)."""
    loss_chunk_tokens: int | None = setting(None, above=0)
    """Head and loss are computed in chunks of so many tokens; None: at once."""
    lora_rank: int = setting(8, above=0)
    lora_alpha: float = 16.0
    lora_dropout: float = setting(0.05, least=0, below=1)
    adapter_prompt_length: int = setting(10, above=0)
    adapter_start_layer: int = 2


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Read by `workload=generate` only."""

    unit: str = setting("model", choices=("model", "token"))
    """model: the decoder is compiled | token: decoder, temperature and sampling are compiled as one step"""
    prompt_length: int = setting(6, above=0)
    new_tokens: int = setting(200, above=0)
    temperature: float = setting(1.0, least=0)
    top_k: int | None = setting(None, above=0)
    num_samples: int = setting(10, above=0)


@dataclass(frozen=True, kw_only=True)
class StrategyConfig:
    """How parameters, gradients and optimizer state are spread over devices."""

    name: str = REQUIRED
    description: str = ""
    kind: str = setting(choices=("single", "ddp", "fsdp"))
    """single | ddp | fsdp"""
    stage: int | None = None
    """2: parameters stay gathered between forward and backward; 3: they are resharded after forward."""
    wrap: str = setting("block", choices=("block", "module"))
    """block: one FSDP unit a transformer block | module: every submodule is a unit of its own"""
    backward_prefetch: str | None = setting(None, choices=("none", "pre", "post"))
    """none | pre | post (FSDP1 only); None: the library's default"""
    accumulation_sync: str | None = setting(None, choices=("last", "every"))
    """last: gradients are reduced in the last micro-step only | every; None: last under DDP, every under FSDP (where
    `last` would keep the unsharded gradients)"""
    mixed_precision_by: str | None = setting(None, choices=("policy", "autocast"))
    """policy | autocast; None: policy under FSDP, autocast elsewhere"""


@dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Number formats of parameters, compute and reduction."""

    name: str = REQUIRED
    description: str = ""
    param_dtype: str = REQUIRED
    compute_dtype: str = REQUIRED
    reduce_dtype: str = REQUIRED
    backend: str = setting("torch", choices=("torch", "transformer_engine", "torchao", "bitsandbytes"))
    """torch | transformer_engine | torchao | bitsandbytes"""
    recipe: str | None = setting(None, choices=("delayed", "current", "block", "tensorwise", "rowwise"))
    """Transformer Engine: delayed | current | block; torchao: tensorwise | rowwise"""
    scope: str = setting("all", choices=("all", "blocks"))
    """all: every linear | blocks: not the head"""
    pad: bool = False
    """Pad sizes that fp8 cannot take instead of refusing them; shows in the record."""


@dataclass(frozen=True, kw_only=True)
class CompileConfig:
    """Which compiler, over what."""

    name: str = REQUIRED
    description: str = ""
    mode: str | None = setting(
        None, choices=("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
    )
    """default | reduce-overhead | max-autotune | max-autotune-no-cudagraphs"""
    scope: str = setting("block", choices=("block", "model"))
    """block: each transformer block in place, and head with loss | model: the whole model after wrapping"""
    dynamic: bool | None = False
    """true, false, or None for torch.compile's automatic choice"""
    fullgraph: bool = False
    cache: str = setting("cold", choices=("cold", "shared"))
    """cold: an empty cache directory a cell, so that compile time is comparable | shared: one for all"""

    @property
    def replays_graphs(self) -> bool:
        """Whether CUDA graphs are captured, and replayed in all later steps."""
        return self.name != "eager" and self.mode in ("reduce-overhead", "max-autotune")


@dataclass(frozen=True, kw_only=True)
class CheckpointingConfig:
    """Which activations are recomputed in the backward pass."""

    name: str = REQUIRED
    description: str = ""
    every: str | None = None
    """For `selective`: q/p checkpoints block i iff (i mod p) < q; per_op keeps matmul and attention outputs."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Whose code wraps the model."""

    name: str = REQUIRED
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The update rule."""

    name: str = REQUIRED
    description: str = ""
    lr: float = setting(above=0)
    weight_decay: float = setting(0.0, least=0)
    clip_norm: float | None = setting(None, above=0)
    """Global gradient norm is clipped to this; None: no clipping."""
    fused: bool | None = None
    """AdamW in one kernel a dtype (true) or operation by operation (false); None: the optimizer has no choice."""


@dataclass(frozen=True, kw_only=True)
class LauncherConfig:
    """Where the jobs run."""

    name: str = REQUIRED
    description: str = ""
    plugin: str | None = None
    """`launcher=plugin`: the name of the entry point."""
    jobs: int = setting(1, above=0)
    """Allocations at once; each takes cells until none is left."""
    nodes_per_job: int | None = setting(None, above=0)
    """None: as many as the largest cell takes."""
    gpus_per_node: int | None = setting(None, above=0)
    """None: as many as the largest cell takes on a node."""
    time_min: int | None = setting(None, above=0)
    """Minutes of an allocation; None: from what its share of the cells is expected to take."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    """In place of gpus_per_node, where a cluster wants it said so: gpu:a100:4."""
    mem: str | None = None
    exclusive: bool = False
    """Whole nodes."""
    nodelist: str | None = None
    reservation: str | None = None
    cpus_per_task: int | None = setting(None, above=0)
    """Cores of a node."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the first cell: modules, an environment."""
    sbatch: dict[str, str] = field(default_factory=dict)
    """Any other option of sbatch, by its long name; an empty value makes it a flag."""
    preload: bool = True
    """local: fork the processes of a cell from one that has torch loaded; false: start and import anew for each."""
    pass_env: list[str] = field(default_factory=list)
    """Names of variables that ranks get although they look like secrets; what they hold is in no file all the same."""


@dataclass(frozen=True, kw_only=True)
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
    calibration: dict[str, float] = field(default_factory=dict)
    """Measured efficiencies and additive terms of predictions, as `bench calibrate` writes them."""
    calibrated: str = ""
    """What they were fitted to: sweeps, number of cells, versions."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is said of a cell before it runs."""

    name: str = REQUIRED
    description: str = ""
    formula: str = setting("own", choices=("own", "llm-analysis-2023"))
    """Of the analytic model: own | llm-analysis-2023 (docs/metrics.md)"""
    flops_efficiency: float = setting(1.0, above=0)
    """Of llm-analysis-2023 alone, like those down to `tokens`."""
    memory_efficiency: float = setting(1.0, above=0)
    tensor: int = setting(1, above=0)
    """Tensor-parallel degree: a what-if question, no cell runs so."""
    pipeline: int = setting(1, above=0)
    sequence: int = setting(1, above=0)
    """Sequence-parallel degree."""
    scheme: str | None = setting(None, choices=("w16a16e16", "w8a8e16", "w4a16e16", "w4a8e16", "w4a4e16"))
    """Bits a weight, an activation and an element of the embedding; None: those of the precision."""
    tokens: float | None = setting(None, above=0)
    """Of a whole training run, in GPU-hours: in the largest micro-batch that fits and divides the global batch."""
    skip_oom: bool = False
    """Skip cells that are predicted not to fit beyond the margin, but for a sample that audits the prediction."""
    audit_every: int = setting(10, above=0)
    """One in so many of those cells is run all the same, chosen by its id."""


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """The measured window."""

    warmup_steps: int = setting(5, least=0)
    steps: int = setting(20, above=0)


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """Seconds without progress after which a cell is stopped, by phase; None: scaled to the cell's work.

    Progress is a change of phase or one more step of any rank.
    """

    start_s: float | None = setting(None, above=0)
    """Until the ranks have imported their libraries."""
    build_s: float | None = setting(None, above=0)
    compile_s: float | None = setting(None, above=0)
    """The first step, which compiles lazily."""
    warmup_s: float | None = setting(None, above=0)
    measure_s: float | None = setting(None, above=0)
    check_s: float | None = setting(None, above=0)
    teardown_s: float | None = setting(None, above=0)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Rows that a sweep adds to or strikes from its product."""

    include: list[dict[str, Any]] = field(default_factory=list)
    """Each entry is a mapping key → value (or comma list), expanded beside the product."""
    exclude: list[dict[str, Any]] = field(default_factory=list)
    """Each entry is {match: {key: pattern}, reason: text}; the rows stay visible in the plan."""
    expect: list[dict[str, Any]] = field(default_factory=list)
    """Each entry is {name, less: {key: pattern}, more: {key: pattern}, metric, because} and may have `by`: the cell
    that `less` selects has less of that metric than the one that `more` selects, within the share `by`. In place of
    `less` and `more` {of: {key: pattern}, along: key, begins: metric}: of those cells, in the order of `along`, the
    first whose metric `begins` is above zero has less than the one before it."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The whole tree."""

    model: ModelConfig = field(default_factory=ModelConfig)
    workload: WorkloadConfig = field(default_factory=WorkloadConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    compile: CompileConfig = field(default_factory=CompileConfig)
    activation_checkpointing: CheckpointingConfig = field(default_factory=CheckpointingConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    predict: PredictConfig = field(default_factory=lambda: PredictConfig(name="analytic"))
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    attention: str = setting("auto", choices=("auto", "flash", "cudnn", "efficient", "math", "explicit"))
    """auto | flash | cudnn | efficient | math | explicit"""
    micro_batch_size: int | str = setting(1, words=SEARCHES, above=0)
    """Samples a device a forward pass; max: the largest that fits | best: the fastest, both found by probes."""
    global_batch_size: int | None = setting(None, above=0)
    """Samples an optimizer step over all devices; None: micro_batch_size × world size (no accumulation)."""
    seq_len: int | None = setting(None, above=0)
    """Tokens a sample; None: the model's max_seq_len."""
    devices: int | None = setting(None, above=0)
    """Devices a node; None: 1 for `single`, all visible otherwise (2 on CPU)."""
    nodes: int = setting(1, above=0)
    seed: int = 0
    timeout_s: float = setting(1800.0, above=0)
    """A cell that runs longer is stopped and recorded as timeout, whatever its `limits`."""
    exclusive: bool = False
    """Run each cell alone on the machine instead of beside others on disjoint devices."""
    retries: int = setting(1, least=0)
    """How often a cell is tried again whose failure is one of infrastructure (a device lost, a port taken)."""
    repeats: int = setting(1, above=0)
    """In so many processes each cell is measured, spread over the sweep; comparisons stand on their spread."""
    brake: int | None = setting(5, above=0)
    """After the same unexpected failure in so many different cells none like them is started; None: all are."""
    memory_limit_gib: float | None = setting(None, above=0)
    """Emulate a card with this much memory; None: the whole device."""
    compat: str = setting("enforce", choices=("enforce", "probe"))
    """enforce: ruled-out cells are not launched | probe: they are, and those that pass are reported"""
    out_dir: str = "outputs"


SECTIONS: dict[str, type] = {item.name: item.type for item in fields(Config) if is_dataclass(item.type)}  # type: ignore[misc]
"""Name → the type of a section of the tree; the other keys are scalars."""


def typed_section(name: str, values: Mapping[str, Any] | str) -> Any:
    """A section, from all or some of its keys; those of another version are left out."""
    if isinstance(values, str):  # what is a section today was its name alone in an old plan
        values = {"name": values}
    known = SECTIONS[name].__dataclass_fields__  # type: ignore[attr-defined]
    return SECTIONS[name](**{key: value for key, value in values.items() if key in known})


def typed_config(tree: Mapping[str, Any]) -> Config:
    """A configuration, from plain data as Hydra composes it."""
    return Config(**{key: typed_section(key, value) if key in SECTIONS else value for key, value in tree.items()})


def value_at(config: Config, key: str) -> Any:
    """The value at a dotted key that is only known when it is asked for, e.g. one that a rule names."""
    return attrgetter(key)(config)

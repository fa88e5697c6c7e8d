"""Seconds of a step: what each resource needs at its data-sheet rate, divided by what of that rate is reached.

The shares are named efficiencies: of the device's file where it was calibrated (`bench calibrate`), else typical ones.
Products, attention and memory traffic follow each other; communication counts as far as it is not hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from benchrunner.core import arithmetic
from benchrunner.core.cell import Sizes
from benchrunner.core.schema import Config
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.kept import widths_of

TYPICAL = {
    "clock": 0.8,
    "matmul": 0.8,
    "matmul_fp8": 0.6,
    "attention": 0.5,
    "memory": 0.75,
    "communication": 2.0,
}
"""Of a data-sheet rate. `clock`: the share of the boost clock that the power limit leaves, of everything computed;
`communication` may exceed 1, for most of it is hidden behind computation."""

RESOURCES = ("matmul", "matmul_fp8", "attention", "memory", "communication")

SPREAD = 0.25
"""Half of the 90 % interval where nothing is calibrated, as a share of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """A step's predicted time."""

    seconds: float
    low_s: float
    high_s: float
    """The interval that should hold nine times out of ten."""
    terms_s: dict[str, float]
    """Resource → seconds."""
    limited_by: str


def predict_step(config: Config, sizes: Sizes, hardware: Hardware) -> StepTime | None:
    """The step of a training or forward workload; None where a peak is unknown, or there are no steps."""
    ideal = ideal_seconds(config, sizes, hardware)
    if ideal is None:
        return None
    reached = efficiencies(hardware.calibration)
    terms = {name: ideal[name] / reached[name] for name in RESOURCES if ideal[name]}
    seconds = sum(terms.values())
    spread = hardware.calibration.get("spread", SPREAD)
    return StepTime(
        seconds=seconds,
        low_s=seconds * (1 - spread),
        high_s=seconds * (1 + spread),
        terms_s=terms,
        limited_by=max(terms, key=lambda name: terms[name]),
    )


def efficiencies(calibration: Mapping[str, float]) -> dict[str, float]:
    """Resource → share of its data-sheet rate that is reached; the clock scales all that is computed."""
    chosen = {name: calibration.get(name, default) for name, default in TYPICAL.items()}
    computed = {name: chosen["clock"] * chosen[name] for name in ("matmul", "matmul_fp8", "attention")}
    return {**chosen, **computed}


def ideal_seconds(config: Config, sizes: Sizes, hardware: Hardware) -> dict[str, float] | None:
    """Resource → seconds at the data sheet's rate; None where a peak is unknown or the workload has no steps."""
    if config.workload.name in ("generate", "parity"):
        return None
    peaks = hardware.peak_flops
    compute = arithmetic.SHORT_NAMES.get(config.precision.compute_dtype, "bf16")
    if config.precision.compute_dtype == "float8" and not peaks.get("fp8"):
        return None
    if not peaks.get(compute):
        return None
    flops = flops_by_kind(config, sizes)
    bandwidth, link = hardware.memory_bandwidth_bytes_per_second, hardware.interconnect_bytes_per_second
    return {
        "matmul": flops["matmul"] / peaks[compute],
        "matmul_fp8": flops["matmul_fp8"] / peaks["fp8"] if flops["matmul_fp8"] else 0.0,
        "attention": flops["attention"] / peaks[compute],
        "memory": moved_bytes(config, sizes) / bandwidth if bandwidth else 0.0,
        "communication": sent_bytes(config, sizes) / link if link else 0.0,
    }


def flops_by_kind(config: Config, sizes: Sizes) -> dict[str, float]:
    """FLOPs of one device in a step: products in fp8 and in other formats, and attention; recomputation included."""
    model = config.model
    total = arithmetic.hardware_flops_per_step(config, sizes) / sizes.world_size
    tokens = sizes.global_batch_size * sizes.seq_len / sizes.world_size
    attention = tokens * arithmetic.attention_flops_per_token(model, sizes.seq_len, causal=True)
    attention *= _passes(config)
    skipped = (1 - _share_with_backward(config)) * model.num_layers * arithmetic.block_matmul_parameters(model)
    products = max(total - attention - 2 * tokens * skipped, 0.0)
    fp8 = 0.0
    if config.precision.compute_dtype == "float8":
        converted = arithmetic.fp8_matmul_parameters(model, config.precision)
        fp8 = products * converted / arithmetic.matmul_parameters(model)
    return {"matmul": products - fp8, "matmul_fp8": fp8, "attention": attention}


def _passes(config: Config) -> float:
    """How often the work of a forward pass is done: once without gradients, else three times and what is repeated."""
    if config.workload.name not in arithmetic.GRADIENT_WORKLOADS:
        return 1.0
    num_layers = config.model.num_layers
    return 1.0 + 2.0 * _share_with_backward(config) + arithmetic.num_recomputed_blocks(num_layers, config) / num_layers


def _share_with_backward(config: Config) -> float:
    """Of the blocks: below the first prompt of an adapter nothing trains, and nothing goes backward."""
    start = config.workload.adapter_start_layer if config.workload.name == "adapter" else 0
    return max(config.model.num_layers - start, 0) / config.model.num_layers


def moved_bytes(config: Config, sizes: Sizes) -> float:
    """Bytes that pass the memory outside of products: element-wise work of blocks, logits, optimizer, casts.

    A block's forward pass reads and writes 28·d + 5·f elements a token kernel by kernel, 17·d + 3·f where they are
    fused; its backward pass twice as much. Logits pass 36 bytes each in eager mode, 10 compiled.
    """
    model, width = config.model, widths_of(config)
    fused = config.compile.name != "eager"
    tokens = sizes.global_batch_size * sizes.seq_len / sizes.world_size
    d, f = model.d_model, model.d_ff
    a_block = (17 * d + 3 * f) if fused else (28 * d + 5 * f)
    element = (width.activation + width.residual) / 2
    blocks = tokens * model.num_layers * a_block * element * _passes(config)
    if config.workload.name not in arithmetic.GRADIENT_WORKLOADS:
        return blocks + tokens * model.vocab_size * width.activation
    return blocks + tokens * model.vocab_size * (10 if fused else 36) + _weight_traffic_bytes(config, sizes, tokens)


def _weight_traffic_bytes(config: Config, sizes: Sizes, tokens: float) -> float:
    """The optimizer reads and writes parameters and moments and reads gradients; casts pass every matrix."""
    width = widths_of(config)
    ranks = sizes.world_size if config.strategy.kind == "fsdp" else 1
    trained = arithmetic.num_trainable_parameters(config.model, config.workload) / ranks
    state = arithmetic.optimizer_state_bytes_per_parameter(config.optimizer, width.stored)
    optimizer = trained * (3 * width.stored + 2 * state)
    matrices = arithmetic.matmul_parameters(config.model) * sizes.accumulation_steps
    mixed = width.stored != width.activation
    casts = matrices * (width.stored + width.activation) if mixed else 0.0
    if config.precision.compute_dtype == "float8":
        casts += (
            matrices * 8 + 3 * tokens * config.model.num_layers * (3 * config.model.d_model + config.model.d_ff) * 3
        )
        if config.precision.backend == "torchao" and config.compile.name == "eager":
            casts += 60 * (
                matrices + tokens * config.model.num_layers * (5 * config.model.d_model + 3 * config.model.d_ff)
            )
    if config.precision.backend == "bitsandbytes":
        casts += 5 * matrices
    return optimizer + casts + _copied_bytes(config, sizes)


def _copied_bytes(config: Config, sizes: Sizes) -> float:
    """What wrappers copy: FSDP into and out of the buffers of its collectives, DDP gradients into its buckets."""
    width, strategy = widths_of(config), config.strategy
    trained = arithmetic.num_trainable_parameters(config.model, config.workload)
    if sizes.world_size == 1 or strategy.kind == "single":
        return 0.0
    if strategy.kind == "ddp":
        return 2.0 * trained * width.stored
    gathered = arithmetic.num_parameters(config.model) * width.computed
    num_gathers = 2 if strategy.stage == 3 else 1
    return 2.0 * (num_gathers * gathered + trained * width.reduced) * sizes.accumulation_steps


def sent_bytes(config: Config, sizes: Sizes) -> float:
    """Bytes that a device sends in a step's ring collectives; n ranks, P bytes of what is sent.

    DDP: an all-reduce of the gradients, 2·P·(n−1)/n. FSDP: a reduce-scatter, P·(n−1)/n, and all-gathers of as much:
    one in stage 2, two in stage 3; for every micro-step.
    """
    strategy, ranks = config.strategy, sizes.world_size
    if ranks == 1 or strategy.kind == "single":
        return 0.0
    width, ring = widths_of(config), (ranks - 1) / ranks
    trains = config.workload.name in arithmetic.GRADIENT_WORKLOADS
    trained = arithmetic.num_trainable_parameters(config.model, config.workload) if trains else 0
    if strategy.kind == "ddp":
        return 2.0 * trained * width.stored * ring
    precision = config.precision
    quantized = precision.param_dtype in arithmetic.QUANTIZED_BYTES
    weights = arithmetic.num_parameters(config.model) * width.computed
    gathered = arithmetic.resident_weight_bytes(config.model, precision) if quantized else weights
    num_gathers = 2 if strategy.stage == 3 and trains else 1
    return float((trained * width.reduced + num_gathers * gathered) * ring * sizes.accumulation_steps)

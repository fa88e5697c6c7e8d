"""What a rank says of itself when it has measured or failed: the keys that workers write and the parent reads.

Fields are in the order in which they are written. A key that a workload has nothing for is absent; the numbers are
defined in docs/metrics.md.
"""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

Scalar = str | int | float | bool | None


class Device(TypedDict, total=False):
    """What the rank ran on."""

    type: str
    name: str
    index: int | None
    uuid: str | None
    compute_capability: str | None
    memory_bytes: int | None


class Flops(TypedDict, total=False):
    """Of one optimizer step over all devices."""

    convention: str
    model_per_step: int | float
    hardware_per_step: int | float
    by_dtype: dict[str, int | float]


class Peaks(TypedDict):
    """Of the allocator; on CPU of the process."""

    allocated_bytes: int
    reserved_bytes: int


class Memory(TypedDict):
    """Peaks over the measured window, over the whole run, and over its steps: without what the build alone needed."""

    window: Peaks
    run: Peaks
    steps: NotRequired[Peaks]
    num_alloc_retries: NotRequired[int | None]
    num_ooms: NotRequired[int | None]
    nvml_used_bytes: NotRequired[int | None]
    scope: NotRequired[str]
    """window | capture | replay | process"""


class MemoryCap(TypedDict):
    """Of an emulated card (`memory_limit_gib`)."""

    limit_bytes: int
    cap_bytes: int
    """What the allocator may have: the limit less what is outside of it."""
    outside_bytes: int
    """Context, libraries and NCCL of the process, when its device was up and nothing was built."""


class CompileCounters(TypedDict, total=False):
    """Of the compiler, whole run; under compile=eager the first step alone."""

    compile_s: float
    num_frames: int
    num_graphs: int
    num_graph_breaks: int
    graph_break_reasons: dict[str, int]
    num_window_recompiles: int
    cache_hits: int
    cache_misses: int
    first_step_s: float | None


class MeanSd(TypedDict):
    """Of samples."""

    mean: float
    sd: float


class RankMetrics(TypedDict, total=False):
    """Headline numbers that the workload makes itself."""

    time_to_first_token_s: float
    prefill_tokens_per_second: float
    time_per_output_token_s: float | None
    time_per_output_token_min_s: float | None
    decode_tokens_per_second: float | None
    bandwidth_utilization: float | None
    parity_gradient_error: float
    parity_cosine: float
    parity_curve_error: float


class GenerationTimes(TypedDict):
    """Of one sample."""

    prefill_s: float
    decode_s: float


class GenerationSample(GenerationTimes):
    """With whether it was the first."""

    cold: bool


class TensorDifference(TypedDict):
    """How one tensor's gradient differs from its reference."""

    name: str
    step: int
    error: float
    cosine: float


class ParityCurves(TypedDict):
    """Losses of the combination and of its reference, and the tensors that differ most."""

    losses: list[float]
    reference_losses: list[float]
    worst_tensors: list[TensorDifference]


class Float8Choices(TypedDict, total=False):
    """What was converted to float8."""

    recipe: str | None
    num_linears: int
    kept: dict[str, str]
    """Linear → why it was not converted."""
    padded: dict[str, str]
    weight_cache: bool


class FabricChoices(TypedDict):
    """Whose strategy and plug-in worked."""

    strategy: str
    plugin: str
    precision: str | None


class Choices(TypedDict, total=False):
    """What libraries, precision, compiler and engine decided by themselves."""

    attention: str
    fp8: Float8Choices
    num_linears: int
    """Quantised to 4 bits."""
    kept: dict[str, str]
    thunder_executors: list[str]
    thunder_programs: int
    fabric: FabricChoices
    loss_scale: float
    num_skipped_steps: int


class Check(TypedDict):
    """What a validity check says: ok true, false, or None where it cannot tell."""

    ok: bool | None
    expected: NotRequired[Scalar]
    observed: NotRequired[Scalar]
    note: NotRequired[str]
    errors: NotRequired[dict[str, float]]
    """What was measured against a tolerance: known-good runs fill its table."""
    seconds: NotRequired[float]
    """What it took, after the probes that all checks read."""


Checks = dict[str, Check]


class RankResult(TypedDict, total=False):
    """What a workload measured on one rank, or a part of it."""

    workload: str
    device: Device
    num_parameters: int
    num_trainable_parameters: int
    tokens_per_step: int | float
    padded_tokens_per_step: int | float
    samples_per_step: int
    flops: Flops
    step_times_s: list[float]
    window_s: float
    """From the first mark until this rank was done, by the host's clock."""
    memory: Memory
    memory_cap: MemoryCap
    compile: CompileCounters
    energy_j: float | None
    """The driver's view of the device from here on: None what it does not tell."""
    utilization: MeanSd | None
    """Per cent of time in which some kernel ran."""
    sm_clock_mhz: MeanSd | None
    clock_event_reasons: list[str]
    foreign_processes: int | None
    losses: list[float]
    metrics: RankMetrics
    samples: list[GenerationSample]
    parity: ParityCurves
    choices: Choices
    checks: Checks
    flags: list[str]


class MemoryAtDeath(TypedDict, total=False):
    """Device memory as a failed rank left it, bytes; nothing where torch or the device cannot tell."""

    free_bytes: int
    total_bytes: int
    allocated_bytes: int | None
    reserved_bytes: int | None
    num_alloc_retries: int | None
    num_ooms: int | None
    limit_bytes: int
    cap_bytes: int
    outside_bytes: int
    """Of an emulated card (`MemoryCap`)."""


ErrorKind = Literal["exception", "unsupported", "oom", "nonfinite"]


class RankError(TypedDict):
    """What ended a rank."""

    kind: ErrorKind
    code: NotRequired[str | None]
    """Of an unsupported combination."""
    type: str
    message: str
    traceback: NotRequired[str]
    at: NotRequired[float]
    """Unix time."""
    memory: NotRequired[MemoryAtDeath]

"""The record of a cell: its verdict and its numbers, what the tables are made from."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NotRequired, get_args

from typing_extensions import TypedDict

from benchrunner.core.environment import Environment
from benchrunner.core.paths import place_of
from benchrunner.core.rank_result import Check, Checks, MemoryAtDeath, RankError, RankResult
from benchrunner.core.units import MIB

SCHEMA_VERSION = 1

RECORD_BYTES = 32 * MIB
"""At most, of a record's file; one of eight ranks with a thousand steps each has a quarter of one MiB."""

Status = Literal["ok", "invalid", "oom", "unsupported", "timeout", "failed", "skipped"]

STATUSES: tuple[Status, ...] = get_args(Status)

Phase = Literal["start", "build", "compile", "warmup", "measure", "check", "teardown"]
"""What a rank is doing; `compile` is the first step, which compiles lazily."""

PHASES: tuple[Phase, ...] = get_args(Phase)
"""In their order."""

RankState = Literal["running", "done", "error"]


class Metrics(TypedDict, total=False):
    """The headline numbers, defined in docs/metrics.md; None where unknown."""

    step_time_median_s: float | None
    step_time_p10_s: float | None
    step_time_p90_s: float | None
    step_time_min_s: float | None
    step_time_rank_skew: float | None
    peak_memory_allocated_bytes: int | None
    peak_memory_reserved_bytes: int | None
    run_peak_memory_allocated_bytes: int | None
    steps_peak_memory_allocated_bytes: int | None
    num_alloc_retries: int | None
    memory_scope: str | None
    compile_time_s: float | None
    first_step_s: float | None
    num_graphs: int | None
    num_graph_breaks: int | None
    num_recompiles: int | None
    energy_j_per_step: float | None
    gpu_utilization_mean: float | None
    gpu_utilization_sd: float | None
    sm_clock_mhz_mean: float | None
    tokens_per_second_per_device: float | None
    samples_per_second: float | None
    model_flops_per_second_per_device: float | None
    hardware_flops_per_second_per_device: float | None
    mfu: float | None
    first_loss: float | None
    final_loss: float | None
    attention: str | None
    time_to_first_token_s: float | None
    prefill_tokens_per_second: float | None
    time_per_output_token_s: float | None
    time_per_output_token_min_s: float | None
    decode_tokens_per_second: float | None
    bandwidth_utilization: float | None
    parity_gradient_error: float | None
    parity_cosine: float | None
    parity_curve_error: float | None


class RankEnd(TypedDict):
    """Where a rank was when its job had ended."""

    rank: int
    state: Literal["running", "done", "error", "unreadable", "absent"]
    phase: Phase
    phase_started_at: float | None
    steps: int
    exit: int | None
    error: str | None
    """The exception's type."""


class Tried(TypedDict):
    """What became of one size that a search tried."""

    micro_batch_size: int
    cell: str
    """The probe's slug."""
    status: Status
    num_alloc_retries: int
    tokens_per_second_per_device: float | None
    """Of a generation, what it decodes."""


class SearchGrounds(TypedDict):
    """What a search found, and by which probes, in their order."""

    kind: str
    """max | best"""
    micro_batch_size: int | None
    """None: nothing fits, or the search came to no end."""
    probes: list[Tried]


class Grounds(TypedDict, total=False):
    """What a verdict is founded on: files and lines of a run, a rule, or the smaller cell that it follows from."""

    rank: int | None
    file: str
    lines: list[str]
    stdout: list[str]
    memory: MemoryAtDeath | None
    ranks: list[RankEnd]
    stacks: dict[str, list[str]]
    """Rank → its main thread's frames, innermost first."""
    check: Check
    infrastructure: str
    """Which failure of the machine it was."""
    rule: str
    evidence: str
    """Of the rule."""
    search: SearchGrounds
    inferred_from: str
    cell_id: str


class EarlierAttempt(TypedDict):
    """What became of an attempt that another one followed."""

    attempt: int
    status: Status
    reason_code: str | None
    reason: str | None


class RankHead(TypedDict):
    """How far a rank came."""

    rank: int
    state: RankState
    phase: Phase
    phases_s: dict[str, float]
    error: NotRequired[RankError | None]
    """Without its traceback, which is in the rank's file."""


class RankRow(RankHead, RankResult):
    """One rank in the record: how far it came, and its result, samples included."""


@dataclass(kw_only=True)
class Record:
    """One row of the tables: a cell's verdict and, when it ran, what was measured."""

    schema_version: int = SCHEMA_VERSION
    cell_id: str
    config_digest: str
    slug: str
    axes: dict[str, str]
    overrides: dict[str, Any]
    sizes: dict[str, int]
    status: Status
    reason_code: str | None = None
    """e.g. oom.device, rule.seq_len, failed.exception; None only when ok."""
    reason: str | None = None
    """One sentence that a reader understands without the log."""
    flags: list[str] = field(default_factory=list)
    evidence: Grounds | None = None
    command: str = ""
    """Repeats this cell when pasted into a shell."""
    attempt: int = 0
    """0: never launched."""
    started_at: str | None = None
    """ISO 8601, UTC."""
    wall_s: float | None = None
    """From launch to verdict."""
    earlier_attempts: list[EarlierAttempt] = field(default_factory=list)
    """Oldest first; their files are kept too."""
    phases_s: dict[str, float] = field(default_factory=dict)
    """Seconds by phase, the slowest rank."""
    num_parameters: int | None = None
    num_trainable_parameters: int | None = None
    metrics: Metrics = field(default_factory=Metrics)
    predicted: dict[str, Any] | None = None
    """What the plan said of the cell before it ran: see `bench plan --json`."""
    checks: Checks = field(default_factory=dict)
    num_checks: int | None = None
    num_checks_decided: int | None = None
    """How many of the checks said yes or no: one that abstains is no pass."""
    ranks: list[RankRow] = field(default_factory=list)
    environment: Environment = field(default_factory=Environment)
    """What the numbers were measured with."""
    devices_used: list[int] = field(default_factory=list)
    ran_beside: list[str] = field(default_factory=list)
    """Slugs of the cells that ran on other devices of the machine at the same time."""
    fault: str | None = None
    """The planted fault (BENCH_FAULT), if any: such a record is no measurement."""
    repeat: int = 1
    """Which process of the cell this is, where it is measured in several."""

    @property
    def place(self) -> str:
        """Where it is kept under `cells/`."""
        return place_of(self.slug, self.repeat)


def record_to_dict(record: Record) -> dict[str, Any]:
    """JSON-ready plain data; without the number of the process where it is the first."""
    data = asdict(record)
    if record.repeat == 1:
        del data["repeat"]
    return data

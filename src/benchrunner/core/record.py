"""What is kept of a cell: the rank's own file, and the record that the tables are made from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCHEMA_VERSION = 1

STATUSES = ("ok", "invalid", "oom", "unsupported", "timeout", "failed", "skipped")

PHASES = ("start", "build", "compile", "warmup", "measure", "check", "teardown")
"""What a rank is doing; `compile` is the first step, which compiles lazily."""


@dataclass(kw_only=True)
class RankFile:
    """One rank's status, rewritten at every change of phase, so that it exists however the rank ends."""

    rank: int
    pid: int
    state: str = "running"
    """running | done | error"""
    phase: str = "start"
    phase_started_at: float = 0.0
    """Unix time."""
    phases_s: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each finished phase."""
    error: dict[str, Any] | None = None
    """{kind: exception | unsupported | oom | nonfinite, code, type, message, traceback, memory}"""
    result: dict[str, Any] | None = None
    """What the workload measured: see `worker/train.py`."""


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
    status: str
    """One of STATUSES."""
    reason_code: str | None = None
    """e.g. oom.device, rule.seq_len, failed.exception; null only when ok."""
    reason: str | None = None
    """One sentence that a reader understands without the log."""
    flags: list[str] = field(default_factory=list)
    evidence: dict[str, Any] | None = None
    """{rank, file, lines} for a run; {rule, evidence} for a verdict by rule."""
    command: str = ""
    """Repeats this cell when pasted into a shell."""
    attempt: int = 0
    """0: never launched."""
    started_at: str | None = None
    """ISO 8601, UTC."""
    wall_s: float | None = None
    """From launch to verdict."""
    earlier_attempts: list[dict[str, Any]] = field(default_factory=list)
    """{attempt, status, reason_code, reason} of each one before, oldest first; their files are kept too."""
    phases_s: dict[str, float] = field(default_factory=dict)
    """Seconds by phase, the slowest rank."""
    num_parameters: int | None = None
    num_trainable_parameters: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    """The headline numbers; keys in docs/metrics.md."""
    checks: dict[str, Any] = field(default_factory=dict)
    """{name: {ok, expected, observed}}"""
    ranks: list[dict[str, Any]] = field(default_factory=list)
    """Each rank's result, samples included."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions, driver, device name, clocks: what the number was measured with."""
    devices_used: list[int] = field(default_factory=list)
    ran_beside: list[str] = field(default_factory=list)
    """Slugs of the cells that ran on other devices of the machine at the same time."""
    fault: str | None = None
    """The planted fault (BENCH_FAULT), if any: such a record is no measurement."""


def record_to_dict(record: Record) -> dict[str, Any]:
    """JSON-ready plain data."""
    return asdict(record)


def record_from_dict(data: Mapping[str, Any]) -> Record:
    """The inverse of `record_to_dict`.

    Raises:
        ValueError: a newer schema, or not a record.
    """
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version {version!r}, this benchrunner reads {SCHEMA_VERSION}")
    known = {name: data[name] for name in Record.__dataclass_fields__ if name in data}
    try:
        return Record(**known)
    except TypeError as error:
        raise ValueError(str(error)) from error


def rank_file_from_dict(data: Mapping[str, Any]) -> RankFile:
    """The inverse of `asdict(RankFile)`; unknown keys are dropped."""
    return RankFile(**{name: data[name] for name in RankFile.__dataclass_fields__ if name in data})

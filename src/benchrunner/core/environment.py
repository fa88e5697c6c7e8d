"""What a number was measured with, as environment.json and every record keep it; None where nobody can say."""

from typing_extensions import TypedDict


class Cpu(TypedDict, total=False):
    """The processor, and the memory that may be used."""

    name: str | None
    num_cores: int | None
    memory_bytes: int | None


class Git(TypedDict, total=False):
    """The checkout that the program runs from; None where it is installed."""

    commit: str | None
    is_dirty: bool | None


class GpuState(TypedDict, total=False):
    """One device as its driver describes it."""

    name: str | None
    uuid: str | None
    memory_bytes: int | None
    power_limit_w: float | None
    max_sm_clock_mhz: int | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    persistence_mode: bool | None
    is_mig: bool | None
    num_nvlinks: int | None


class DriverState(TypedDict):
    """What the driver says of itself and of the visible devices."""

    driver: str | None
    driver_cuda: str | None
    gpus: list[GpuState]
    topology: list[list[str | None]]
    """Device × device → how they reach each other."""


class Environment(TypedDict, total=False):
    """Versions, machine and variables."""

    benchrunner: str | None
    collected_at: str | None
    """ISO 8601, UTC."""
    python: str | None
    system: str | None
    kernel: str | None
    cpu: Cpu
    versions: dict[str, str | None]
    """Distribution → version."""
    git: Git
    driver: str | None
    driver_cuda: str | None
    gpus: list[GpuState]
    topology: list[list[str | None]]
    variables: dict[str, str]

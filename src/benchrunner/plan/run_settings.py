"""What may be changed when a planned sweep is run again: settings of the run, which no measurement depends on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchrunner.core.cell import Cell
from benchrunner.core.errors import ConfigError
from benchrunner.core.schema import Config
from benchrunner.plan.plan import Plan

RUN_KEYS = ("timeout_s", "retries", "brake", "exclusive")
RUN_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "limits": ("start_s", "build_s", "compile_s", "warmup_s", "measure_s", "check_s", "teardown_s"),
    "launcher": (
        "jobs",
        "nodes_per_job",
        "gpus_per_node",
        "time_min",
        "partition",
        "account",
        "qos",
        "constraint",
        "gres",
        "mem",
        "exclusive",
        "nodelist",
        "reservation",
        "cpus_per_task",
        "pass_env",
    ),
}
"""Section → those of its keys that may be changed."""


def with_run_settings(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """The plan with other settings of the run in every cell; ids, digests and slugs stay.

    Args:
        plan: the frozen one.
        values: dotted key → value, checked.

    Raises:
        ConfigError: a key that a measurement depends on, or that only means something as a sweep is planned.
    """
    for key in values:
        _require_setting(key)
    changed: dict[int, Any] = {}
    cells = [replace(planned, cell=_with(planned.cell, values, changed)) for planned in plan.cells]
    return replace(plan, cells=cells)


def _require_setting(key: str) -> None:
    section, _, leaf = key.rpartition(".")
    if key not in RUN_KEYS and leaf not in RUN_SECTIONS.get(section, ()):
        allowed = [*RUN_KEYS, "limits.*", *(f"launcher.{name}" for name in RUN_SECTIONS["launcher"])]
        raise ConfigError(key, f"is frozen in the plan; a resume may change {', '.join(allowed)}; run a new sweep")


def _with(cell: Cell, values: Mapping[str, Any], changed: dict[int, Any]) -> Cell:
    """`changed`: id of a section that cells share → what becomes of it, which they share too."""
    config: Config = replace(cell.config, **{key: value for key, value in values.items() if "." not in key})
    for section in RUN_SECTIONS:
        before = getattr(config, section)
        leaves = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{section}.")}
        if leaves:
            config = replace(config, **{section: changed.setdefault(id(before), replace(before, **leaves))})
    return replace(cell, config=config, overrides={**cell.overrides, **values})

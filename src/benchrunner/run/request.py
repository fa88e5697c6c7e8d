"""What an allocation is asked for: its size from the cells, its time from what they are expected to take."""

import math
import sys
from collections.abc import Iterable

from benchrunner.core.paths import SweepPaths
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch.allocation import Request
from benchrunner.plan.costs import expected_row_s
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.run.options import RunOptions

SLACK = 1.5
"""Time asked for ÷ time expected: an expectation is none that is never exceeded."""

START_MIN = 5
"""On top: setup, imports, and a worker's leave."""

LEAVE_S = 60.0
"""A worker takes no cell that is expected to end later than so long before its allocation does."""


def make_request(plan: Plan, cells: list[PlannedCell], paths: SweepPaths, options: RunOptions, number: int) -> Request:
    """The allocation for these cells, of which `launcher.jobs` share the work, in round `number`."""
    config, device_type = plan.settings.launcher, plan.hardware.device_type
    time_min = config.time_min or expected_min(cells, config, device_type)
    return Request(
        name=f"bench-{plan.sweep_name}",
        command=_command(paths, options, number, time_min),
        nodes=num_nodes(cells, config),
        gpus_per_node=(config.gpus_per_node or most_devices(cells)) if device_type == "cuda" else 0,
        time_min=time_min,
    )


def expected_min(cells: list[PlannedCell], config: LauncherConfig, device_type: str) -> int:
    """Minutes: each allocation's share of the device seconds, but at least the longest cell."""
    costs_s = [expected_row_s(planned, device_type) for planned in cells]
    per_node = (config.gpus_per_node or most_devices(cells)) if device_type == "cuda" else 1
    held = [_num_places(planned, per_node, device_type) for planned in cells]
    work_s = sum(cost_s * places for cost_s, places in zip(costs_s, held, strict=True))
    share_s = work_s / (config.jobs * num_nodes(cells, config) * per_node)
    return START_MIN + math.ceil(SLACK * (share_s + max(costs_s, default=0.0)) / 60)


def _num_places(planned: PlannedCell, per_node: int, device_type: str) -> int:
    sizes = planned.cell.sizes
    return sizes.nodes * per_node if sizes.nodes > 1 else sizes.devices if device_type == "cuda" else 1


def num_nodes(cells: Iterable[PlannedCell], config: LauncherConfig) -> int:
    """Nodes of an allocation."""
    return config.nodes_per_job or max((planned.cell.sizes.nodes for planned in cells), default=1)


def most_devices(cells: Iterable[PlannedCell]) -> int:
    """Devices a node of the largest cell."""
    return max((planned.cell.sizes.devices for planned in cells), default=1)


def _command(paths: SweepPaths, options: RunOptions, number: int, time_min: int) -> list[str]:
    words = [sys.executable, "-m", "benchrunner", "work", str(paths.root.resolve())]
    words += [*options.overrides, f"--round={number}", f"--time={time_min * 60 - LEAVE_S:.0f}s"]
    words += ["--mix"] if options.mix else []
    words += [] if options.infer else ["--no-infer"]
    words += [] if options.repeats is None else [f"--repeats={options.repeats}"]
    return words + ([f"--budget={options.budget_s:.0f}s"] if options.budget_s is not None else [])

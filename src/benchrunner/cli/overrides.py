"""Overrides → a plan: what `bench` and `bench plan` are given, and what they make of it."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchrunner.cli.command import Flag, Operands
from benchrunner.core.errors import UsageError

if TYPE_CHECKING:
    from benchrunner.config.hydra_app import Expansion
    from benchrunner.plan.plan import Plan

OVERRIDES = Operands(name="overrides", usage="[FILE.yaml | +sweeps=NAME] [key=value …]")
MULTIRUN = Flag(names=("-m", "--multirun"), help="the lists make a matrix")


def plan_overrides(arguments: Namespace, *, launch: bool) -> "Plan":
    """Every cell that the overrides describe, with its verdict on the machine that they name.

    Args:
        arguments: of a command with `OVERRIDES` and `MULTIRUN`.
        launch: the plan is about to be run, so a machine that is not this one has no devices.

    Raises:
        UsageError: an override is wrong, or no cell is left.
    """
    from benchrunner.cli.cluster import node_of
    from benchrunner.core.paths import config_dir
    from benchrunner.machine import hardware
    from benchrunner.plan.planner import make_plan
    from benchrunner.plan.rules import load_rules

    expansion = _expand(arguments)
    if not expansion.rows:
        raise UsageError("the overrides leave no cell: a list is empty, or every included row was narrowed away")
    first = expansion.rows[0].config.hardware
    if other := next((row.config.hardware for row in expansion.rows if row.config.hardware != first), None):
        raise UsageError(
            f"hardware: one for all cells, not {first.name} and {other.name}: plan for one after the other"
        )
    devices = max(row.config.devices or 0 for row in expansion.rows)
    config = expansion.rows[0].config
    rules = load_rules(config_dir() / "compat.yaml")
    if launch and config.launcher.name not in ("local", "detached"):
        node = node_of(config, devices)
        return make_plan(expansion, node.hardware, rules, launch=True, num_cores=node.num_cores)
    return make_plan(expansion, hardware.resolve(config.hardware, devices or None), rules, launch=launch)


def _expand(arguments: Namespace) -> "Expansion":
    from benchrunner.config import hydra_app

    overrides, files = split_sweep_files(arguments.overrides)
    if len(files) > 1:
        raise UsageError(f"one sweep at a time: {', '.join(map(str, files))}")
    return hydra_app.expand(overrides, multirun=arguments.multirun, sweep_file=next(iter(files), None))


def with_settings(made: "Plan", overrides: Sequence[str]) -> "Plan":
    """A frozen plan with these settings of the run.

    Raises:
        ConfigError: a key that is frozen, or a value that is wrong.
    """
    from benchrunner.config import hydra_app
    from benchrunner.plan.run_settings import with_run_settings

    return with_run_settings(made, hydra_app.read_values(overrides)) if overrides else made


def split_sweep_files(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """(the arguments that are no sweep files, the sweep files)."""
    files = [Path(argument) for argument in arguments if is_sweep_file(argument)]
    return [argument for argument in arguments if not is_sweep_file(argument)], files


def is_sweep_file(argument: str) -> bool:
    """True for `path/x.yaml`."""
    return "=" not in argument and argument.endswith((".yaml", ".yml"))

"""Which launcher a configuration names: this machine, or a cluster through the seam of `allocation.py`."""

from collections.abc import Mapping
from importlib.metadata import entry_points

from benchrunner.core.errors import UsageError
from benchrunner.core.node_list import nodes_of
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch.allocation import Allocator
from benchrunner.launch.job import Launcher
from benchrunner.launch.local import LocalLauncher
from benchrunner.launch.steps import StepLauncher

GROUP = "benchrunner.launchers"
"""The entry points of launchers that other packages bring: each is called with the `LauncherConfig`."""


def allocator_for(config: LauncherConfig) -> Allocator | None:
    """What asks for allocations; None: cells run on this machine.

    Raises:
        UsageError: no package brings a launcher of that name.
    """
    if config.name == "local":
        return None
    if config.name == "slurm":
        from benchrunner.launch.slurm import SlurmAllocator

        return SlurmAllocator(config)
    if config.name == "detached":
        from benchrunner.launch.local_allocator import LocalAllocator

        return LocalAllocator()
    return _plugged_in(config)


def job_launcher(config: LauncherConfig, environ: Mapping[str, str]) -> Launcher:
    """What starts the jobs of cells here: on this machine, or on all nodes of the allocation that this is in."""
    nodes = nodes_of(environ)
    return StepLauncher(nodes) if len(nodes) > 1 else LocalLauncher(preload=config.preload)


def _plugged_in(config: LauncherConfig) -> Allocator:
    found = {point.name: point for point in entry_points(group=GROUP)}
    if config.plugin not in found:
        known = f"installed: {', '.join(sorted(found))}" if found else "none is installed"
        raise UsageError(f"launcher.plugin: no package brings a launcher named {config.plugin!r}; {known}")
    allocator: Allocator = found[config.plugin].load()(config)
    return allocator

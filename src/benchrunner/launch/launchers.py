"""Which launcher a configuration names."""

from collections.abc import Mapping
from typing import Any

from benchrunner.launch.job import Launcher
from benchrunner.launch.local import LocalLauncher


def launcher_for(config: Mapping[str, Any]) -> Launcher:
    """The launcher that `config["launcher"]` names.

    Raises:
        UsageError: its package is missing.
    """
    if config["launcher"]["name"] == "slurm":
        from benchrunner.launch.slurm import SlurmLauncher

        return SlurmLauncher(config["launcher"])
    return LocalLauncher()

"""Which launcher a configuration names."""

from benchrunner.core.schema import LauncherConfig
from benchrunner.launch.job import Launcher
from benchrunner.launch.local import LocalLauncher


def launcher_for(config: LauncherConfig) -> Launcher:
    """The launcher that `config` names.

    Raises:
        UsageError: its package is missing.
    """
    if config.name == "slurm":
        from benchrunner.launch.slurm import SlurmLauncher

        return SlurmLauncher(config)
    return LocalLauncher(preload=config.preload)

"""The declared sweeps, each composed once a process: that is what they cost."""

from functools import cache

from benchrunner.config.hydra_app import expand


@cache
def declared(name):
    """A sweep's expansion."""
    return expand([f"+sweeps={name}"], multirun=False)

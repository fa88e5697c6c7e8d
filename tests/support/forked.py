"""Jobs forked from a process that has torch loaded, as `bench` runs them, which is kept from sweep to sweep."""

from pathlib import Path

from benchrunner.launch.job import Job
from benchrunner.launch.local import LocalHandle, LocalLauncher


class ForkLauncher(LocalLauncher):
    """A LocalLauncher for many sweeps: it is closed by whoever made it, and remembers its handles."""

    def __init__(self) -> None:
        super().__init__()
        self.handles: list[LocalHandle] = []

    def start(self, job: Job) -> LocalHandle:
        """See Launcher."""
        self.handles.append(super().start(job))
        return self.handles[-1]

    def close(self) -> None:
        """Between sweeps: nothing."""

    def end(self) -> None:
        """After the last."""
        super().close()


def sweep_of(root: Path) -> list[Path]:
    """Every file of a sweep."""
    return [path for path in root.rglob("*") if path.is_file()]

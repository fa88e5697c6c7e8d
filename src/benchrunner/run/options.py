"""How a plan is run: what a command chose, and what tests put in the place of the machine."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from benchrunner.core import faults
from benchrunner.core.environment import Environment
from benchrunner.core.faults import VARIABLE, Fault
from benchrunner.machine.devices import Locks, Probe
from benchrunner.machine.hardware import Hardware
from benchrunner.run.clock import Clock, SystemClock
from benchrunner.run.resume import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """This loop is one of several over the same plan, each of which takes cells by claiming them."""

    worker: str
    """Unique."""
    round: int = 1
    """Which claims count: see `SweepPaths.claims`."""
    job: str = ""
    """The allocation that this loop runs in; empty: none."""
    time_s: float | None = None
    """Take no cell that is expected to end later than so many seconds from now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a plan is run."""

    resume: bool = False
    """The sweep was run before: the machine and software must be the ones that it was measured with."""
    mix: bool = False
    """Resume although they are not; such records are flagged `mixed_environment`."""
    hardware: Hardware | None = None
    """The machine; None: the plan's, or on resume the one that is here."""
    environment: Environment | None = None
    """The environment now; None: it is collected."""
    fault: str | None = field(default_factory=lambda: os.environ.get(VARIABLE))
    """What to plant in every worker."""
    clock: Clock = field(default_factory=SystemClock)
    budget_s: float | None = None
    """Start no cell that is expected not to end within so many seconds, the most informative first; None: run all."""
    events: Path | None = None
    """Where lines of JSON about the run are added; None: nowhere."""
    fail_on: tuple[str, ...] = ()
    """Statuses and reason codes that make the run fail, beside the ones that always do."""
    repeats: int | None = None
    """In so many processes each cell is measured; None: as the sweep says."""
    overrides: tuple[str, ...] = ()
    """Settings of the run that are others than the plan's, for the loops that run elsewhere; here they are in it."""
    infer: bool = True
    """Let a micro-batch that ran out of device memory decide the larger ones of the same cell."""
    selection: Selection = field(default_factory=Selection)
    """Which of the cells that are left are run."""
    probe: Probe | None = None
    """What looks at the devices from outside; None: the driver."""
    locks: Locks | None = None
    """Between this sweep and others on the same devices; None: the user's own."""
    share: Share | None = None
    """How the plan's cells are shared with other loops; None: they are all this one's."""

    def fault_in(self, slug: str) -> Fault | None:
        """What is planted in this cell."""
        return faults.fault_in(self.fault, slug)

    @property
    def planted(self) -> frozenset[str]:
        """Every fault that is planted somewhere, as records name it."""
        return frozenset(filter(None, map(faults.format_fault, faults.parse_faults(self.fault))))

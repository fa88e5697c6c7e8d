"""`python -m benchrunner.machine.probe FILE WANTED`: what this machine is, for a plan made elsewhere."""

import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchrunner.core.files import read_json, write_json
from benchrunner.core.schema import HardwareConfig
from benchrunner.core.units import MIB
from benchrunner.machine.cores import bind_to_allocation
from benchrunner.machine.hardware import Hardware, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node of a cluster, as it says itself."""

    hardware: Hardware
    num_cores: int
    """Those that the allocation may use."""


def read_probe(path: Path) -> Node:
    """What a probe found.

    Raises:
        FileNotFoundError: it has not ended.
        DamagedFile: the file is none of a probe.
    """
    return read_json(path, Node, limit_bytes=MIB)


def examine(wanted: HardwareConfig) -> Node:
    """This machine, with what overrides say of it on top."""
    bind_to_allocation(os.environ)
    return Node(hardware=resolve(wanted), num_cores=len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), asdict(examine(read_json(Path(sys.argv[2]), HardwareConfig, limit_bytes=MIB))))

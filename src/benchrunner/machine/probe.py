"""`python -m benchrunner.machine.probe FILE`: what this machine is, for a plan made elsewhere."""

import sys
from dataclasses import asdict
from pathlib import Path

from benchrunner.core.files import read_json, write_json
from benchrunner.core.units import MIB
from benchrunner.machine.hardware import Hardware, detect


def read_probe(path: Path) -> Hardware:
    """What a probe found.

    Raises:
        FileNotFoundError: it has not ended.
        DamagedFile: the file is none of a probe.
    """
    return read_json(path, Hardware, limit_bytes=MIB)


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), asdict(detect()))

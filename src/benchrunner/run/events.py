"""`--events FILE`: what happens in a run, as lines of JSON for other programs, each written when it happens."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchrunner.core.files import open_output
from benchrunner.core.record import Record
from benchrunner.run.clock import now_utc

SCHEMA_VERSION = 1


class Events:
    """The file of events; without a path nothing is written. A full disk ends the events, not the sweep."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def begin(self, num_cells: int, directory: Path) -> None:
        """A run begins: so many cells are left to run."""
        self._write("begin", {"num_cells": num_cells, "directory": str(directory)})

    def started(self, slug: str, attempt: int, devices: tuple[int, ...]) -> None:
        """A cell was launched."""
        self._write("started", {"slug": slug, "attempt": attempt, "devices": list(devices)})

    def finished(self, record: Record) -> None:
        """A cell has its verdict."""
        names = ("slug", "cell_id", "status", "reason_code", "reason", "attempt", "wall_s", "flags", "metrics")
        self._write("finished", {name: getattr(record, name) for name in names})

    def end(self, counts: Mapping[str, int], exit_code: int) -> None:
        """The run is over."""
        self._write("end", {"counts": dict(counts), "exit_code": exit_code})

    def _write(self, event: str, fields: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        line = {"schema_version": SCHEMA_VERSION, "event": event, "at": now_utc(), **fields}
        try:
            with open_output(self._path, append=True, waits=False) as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError:
            self._path = None

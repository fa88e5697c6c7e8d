"""A sweep to which something is done: `bench` as a user starts it, its records on the disk, its processes in /proc."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchrunner.core.faults import VARIABLE
from benchrunner.machine.hardware import detect, list_gpus

BENCH = [sys.executable, "-m", "benchrunner"]
COUNTED = "FAULTS_BENCHMARK_RUN"
"""In the environment of every process of a sweep: not the runner's own marker."""

TINY = [
    "precision=fp32", "model.num_layers=1", "model.d_model=32", "model.d_ff=64", "model.vocab_size=64", "seq_len=16",
    "measure.steps=2", "measure.warmup_steps=1",
]  # fmt: skip
PLACES: "queue.SimpleQueue[str]" = queue.SimpleQueue()
"""What sweeps beside each other see of the GPUs, one entry each (CUDA_VISIBLE_DEVICES); empty: what is seen here."""

SWEEPS = "outputs/[!.]*/2*"
"""Folders of sweeps. `latest` is made under a hidden name, which is gone by the time that a walk would enter it."""

DRAIN_S = 10.0
"""After kill -9 of `bench` the kernel ends the rest; so long it may take."""


def visible_devices() -> list[str]:
    """The GPUs seen here, as CUDA_VISIBLE_DEVICES names them; none where the installed torch cannot use them."""
    return [str(gpu.index) for gpu in list_gpus()] if detect().device_type == "cuda" else []


@dataclass
class Row:
    """A line of the table."""

    fault: str
    observed: str
    seconds: float | None
    left: int
    lost: int


@dataclass
class Sweep:
    """One `bench`, where it writes, and what counts its processes."""

    out: Path
    visible: str | None = None
    """CUDA_VISIBLE_DEVICES; null: as here."""
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(
        self,
        words: list[str],
        fault: str | None = None,
        *,
        before: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        **how: Any,
    ) -> "subprocess.Popen[bytes]":
        """`before`: what runs it, e.g. `env -i`; `how`: more of what Popen is told."""
        more = env or {}
        env = {name: value for name, value in os.environ.items() if name != VARIABLE}
        env |= {COUNTED: self.run_id, "BENCH_LOCKS": str(self.out / "locks")} | ({VARIABLE: fault} if fault else {})
        env |= {} if self.visible is None else {"CUDA_VISIBLE_DEVICES": self.visible}
        log = open(self.out / "bench.log", "ab")  # noqa: SIM115
        told = {"stdout": log, "stderr": log, "cwd": self.out} | how
        return subprocess.Popen([*before, *BENCH, *words], env=env | more, **told)

    def run(self, words: list[str], fault: str | None = None, **how: Any) -> int:
        return self.start([*words, f"out_dir={self.out / 'outputs'}"], fault, **how).wait()

    def resume(self, *words: str, **how: Any) -> int:
        return self.start(["resume", str(self.directory()), *words], **how).wait()

    def said(self) -> str:
        """What `bench` printed."""
        return (self.out / "bench.log").read_text(errors="replace")

    def directory(self) -> Path | None:
        found = sorted(self.out.glob(SWEEPS))
        return found[0] if found else None

    def records(self) -> dict[str, dict]:
        """Slug → record, of every planned cell that has one which can be read."""
        found = {}
        for path in (self.directory() or self.out).glob("cells/*/record.json"):
            try:
                found[path.parent.name] = json.loads(path.read_text())
            except ValueError:
                continue
        return found

    def raw_records(self) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in self.out.glob(f"{SWEEPS}/cells/*/record.json")}

    def num_planned(self) -> int:
        return len(json.loads((self.directory() / "plan.json").read_text())["cells"])

    def num_measured(self) -> dict[str, int]:
        """Slug → attempts in which every rank came to its end."""
        counts: dict[str, int] = {}
        for attempt in self.out.glob(f"{SWEEPS}/cells/*/attempt-*"):
            states = [_state(path) for path in attempt.glob("rank*.json")]
            counts[attempt.parent.name] = counts.get(attempt.parent.name, 0) + (set(states) == {"done"})
        return counts

    def left(self) -> int:
        """Living processes of this run."""
        needle = f"{COUNTED}={self.run_id}".encode()
        return sum(needle in _environ(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit())

    def drain(self) -> float:
        """Seconds until no process is left, at most DRAIN_S."""
        started = time.monotonic()
        while self.left() and time.monotonic() - started < DRAIN_S:
            time.sleep(0.02)
        return time.monotonic() - started


def _state(path: Path) -> str:
    try:
        return json.loads(path.read_bytes())["state"]
    except (ValueError, KeyError):
        return "unreadable"


def _environ(entry: Path) -> list[bytes]:
    try:
        return (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


@contextmanager
def new_sweep() -> Iterator[Sweep]:
    """In a folder that goes with it, and in one of the places, which is free again afterwards."""
    visible = None if PLACES.empty() else PLACES.get()
    try:
        with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
            yield Sweep(Path(folder), visible)
    finally:
        if visible is not None:
            PLACES.put(visible)


def struck_at_s(sweep: Sweep, record: dict) -> float | None:
    """When the first planted fault of the cell struck, by the line that it wrote; Unix time."""
    logs = (sweep.directory() / "cells" / record["slug"]).glob(f"attempt-{record['attempt']}/rank*.err")
    found = [re.findall(r"planted fault: \w+ at ([\d.]+)", log.read_text(errors="replace")) for log in logs]
    return min((float(at) for times in found for at in times), default=None)


def recorded_at_s(sweep: Sweep, record: dict) -> float:
    """When the record was written; Unix time."""
    return (sweep.directory() / "cells" / record["slug"] / "record.json").stat().st_mtime


def describe_exit(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"


def statuses(sweep: Sweep) -> str:
    codes = [record["reason_code"] or "ok" for record in sweep.records().values()]
    return ", ".join(f"{codes.count(code)} {code}" for code in sorted(set(codes))) or "no record yet"


def descendants(pid: int) -> list[psutil.Process]:
    """Living processes below this one; agents and ranks are in sessions of their own, but not in other trees."""
    return psutil.Process(pid).children(recursive=True)


def wait_for(condition: Callable[[], bool], limit_s: float = 240.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            sys.exit("waited in vain for the job to start")
        time.sleep(0.05)

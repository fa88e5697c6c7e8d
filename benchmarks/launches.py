"""What becomes of a sweep when what leads the ranks dies, when a rank is stopped, and when old attempts lie about."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial

import psutil
from victim import SWEEPS, TINY, Row, Sweep, new_sweep, statuses, wait_for

STRUCK = ["-m", *TINY, "strategy=ddp,single"]
"""A cell of two ranks that is struck, and one after it."""
STOPPED_LIMIT_S = 15

Task = Callable[[], Row | None]


def tasks() -> Iterator[Task]:
    yield partial(end_row, "agent: SIGKILL", 1)
    yield partial(end_row, "process that forks agents: SIGKILL", 2)
    yield partial(end_row, "agent: SIGTERM", 1, signal.SIGTERM)
    yield stopped_row
    yield stale_row


def end_row(name: str, num_above: int, signum: signal.Signals = signal.SIGKILL) -> Row:
    """End what is so many generations above a rank that hangs."""
    with new_sweep() as sweep:
        bench = sweep.start([*STRUCK, f"out_dir={sweep.out / 'outputs'}"], "hang@1")
        pid = _rank_pid(sweep)
        for _ in range(num_above):
            pid = psutil.Process(pid).ppid()
        return _finish(sweep, bench, name, pid, signum)


def stopped_row() -> Row:
    """Stop a rank in its build, as a debugger or a lost file system does."""
    words = [*STRUCK, f"limits.build_s={STOPPED_LIMIT_S}"]
    with new_sweep() as sweep:
        bench = sweep.start([*words, f"out_dir={sweep.out / 'outputs'}"], "hang@1")
        return _finish(
            sweep, bench, f"rank 0: SIGSTOP, its limit {STOPPED_LIMIT_S} s", _rank_pid(sweep), signal.SIGSTOP
        )


def stale_row() -> Row:
    """`attempt-1` is gone, `attempt-2` holds a whole measurement, and the agent of the resume is killed at once."""
    with new_sweep() as sweep:
        sweep.run([*TINY, "strategy=ddp"])
        (cell,) = sweep.directory().glob("cells/*")
        (cell / "attempt-1").rename(cell / "attempt-2")
        record = json.loads((cell / "record.json").read_text())
        failed = {"status": "failed", "reason_code": "failed.exit", "reason": "it left", "attempt": 2}
        (cell / "record.json").write_text(json.dumps(record | failed))
        bench = sweep.start(["resume", str(sweep.directory())], "hang@1")
        pid = psutil.Process(_rank_pid(sweep, attempt=3)).ppid()
        row = _finish(sweep, bench, "agent of a resume: SIGKILL; a measured attempt-2 is there", pid, signal.SIGKILL)
        sweep.resume()
        return Row(row.fault, f"{row.observed}; resumed: {statuses(sweep)}", row.seconds, sweep.left(), row.lost)


def _finish(sweep: Sweep, bench: "subprocess.Popen[bytes]", name: str, pid: int, signum: int) -> Row:
    started_s = time.time()
    os.kill(pid, signum)
    bench.wait()
    sweep.drain()
    records = sweep.records()
    struck = next(record for record in records.values() if record["axes"]["strategy"] == "ddp")
    written_s = (sweep.directory() / "cells" / struck["slug"] / "record.json").stat().st_mtime
    beside = [record["status"] for record in records.values() if record is not struck]
    lost = sweep.num_planned() - len(records) + sum(status != "ok" for status in beside)
    observed = struck["reason_code"] or "ok"
    return Row(name, observed, written_s - started_s, sweep.left(), lost)


def _rank_pid(sweep: Sweep, rank: int = 0, attempt: int = 1) -> int:
    """Of the cell of two ranks, once the fault has struck the other one."""
    place = f"{SWEEPS}/cells/*_ddp_*/attempt-{attempt}"

    def struck() -> bool:
        logs = sweep.out.glob(f"{place}/rank1.err")
        return any("planted fault" in log.read_text(errors="replace") for log in logs)

    wait_for(lambda: struck() and any(sweep.out.glob(f"{place}/rank{rank}.json")))
    (file,) = sweep.out.glob(f"{place}/rank{rank}.json")
    return int(json.loads(file.read_text())["pid"])

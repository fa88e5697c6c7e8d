"""Trials of what becomes of a sweep to which something is done while it runs, or between two runs: in no list."""

import json
import shutil
import signal
from functools import partial
from pathlib import Path

import psutil
from trials import (
    FOUR,
    LONG,
    TWO,
    Trial,
    last_line,
    pause,
    rank_files,
    require,
    require_ok,
    require_refused,
    wait_for_state,
)
from victim import Sweep, statuses, wait_for

ROOT = Path(__file__).resolve().parents[1]


def two_resumes(sweep: Sweep) -> str:
    sweep.run(FOUR, "exception")
    directory = str(sweep.directory())
    codes = sorted(bench.wait() for bench in [sweep.start(["resume", directory]) for _ in range(2)])
    require(codes == [0, 1] and "another bench is running this sweep" in sweep.said(), f"exits {codes}")
    require(set(sweep.num_measured().values()) == {1}, "measured twice")
    return f"exits 0 and 1, “another bench is running this sweep”; {statuses(sweep)}"


def stopped_bench(sweep: Sweep) -> str:
    words = [*FOUR, "limits.measure_s=8", "limits.build_s=8", "limits.warmup_s=8"]
    bench = sweep.start([*words, f"out_dir={sweep.out / 'outputs'}"])
    wait_for_state(sweep, "build")
    bench.send_signal(signal.SIGSTOP)
    pause(15)
    bench.send_signal(signal.SIGCONT)
    return require_ok(sweep, bench.wait())


def gone_record(sweep: Sweep) -> str:
    bench = sweep.start([*FOUR, f"out_dir={sweep.out / 'outputs'}"])
    wait_for(lambda: bool(sweep.records()))
    slug = next(iter(sweep.records()))
    (sweep.directory() / "cells" / slug / "record.json").unlink()
    code = bench.wait()
    before = f"exit {code}; {statuses(sweep)}"
    require(len(sweep.records()) == 3, before)
    return f"{before}; resumed: {require_ok(sweep, sweep.resume())}, measured {sweep.num_measured()[slug]} time"


def gone_attempt(sweep: Sweep) -> str:
    bench = sweep.start([*FOUR, "measure.steps=400", f"out_dir={sweep.out / 'outputs'}"])
    wait_for_state(sweep, "measure")
    (attempt,) = sweep.directory().glob("cells/*/attempt-1")
    shutil.rmtree(attempt, ignore_errors=True)
    code = bench.wait()
    require(code == 2 and len(sweep.records()) == 4 and "3 ok" in statuses(sweep), f"exit {code}; {statuses(sweep)}")
    before = statuses(sweep)
    return f"exit 2; {before}; resumed: {require_ok(sweep, sweep.resume())}"


def stopped_agent(sweep: Sweep) -> str:
    bench = sweep.start([*LONG, f"out_dir={sweep.out / 'outputs'}"])
    wait_for_state(sweep, "measure")
    (file,) = rank_files(sweep)
    agent = psutil.Process(int(json.loads(file.read_text())["pid"])).parent()
    agent.suspend()
    pause(12)
    agent.resume()
    return require_ok(sweep, bench.wait())


def gone_sweep(sweep: Sweep) -> str:
    bench = sweep.start([*FOUR, f"out_dir={sweep.out / 'outputs'}"])
    wait_for(lambda: bool(sweep.records()))
    directory = sweep.directory()
    directory.rename(directory.with_name("moved"))
    shutil.rmtree(directory.with_name("moved"))
    code = bench.wait()
    require(code == 2 and "Traceback" not in sweep.said(), f"exit {code}: {last_line(sweep)[:160]}")
    return f"exit 2: “{last_line(sweep).replace(str(sweep.out), '…')[:120]}”"


def report_meanwhile(sweep: Sweep) -> str:
    bench = sweep.start([*FOUR, f"out_dir={sweep.out / 'outputs'}"])
    wait_for(lambda: bool(sweep.records()))
    codes = []
    while bench.poll() is None:
        codes.append(sweep.start(["report", str(sweep.directory())]).wait())
    require(set(codes) == {0}, f"exits of report {codes}")
    return f"{len(codes)} reports, exit 0; {require_ok(sweep, bench.wait())}"


def other_package(change: str, sweep: Sweep) -> str:
    """The program is a copy that changes between run and resume."""
    copy = sweep.out / "copy"
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True)
    env = {"PYTHONPATH": str(copy / "src")}
    sweep.run(TWO, "exception", env=env)
    if change == "conf":
        (copy / "conf" / "model" / "debug.yaml").unlink()
        return require_ok(sweep, sweep.resume(env=env))
    path = copy / "src" / "benchrunner" / "__init__.py"
    path.write_text(path.read_text() + '\n__version__ = "9.9.9"\n')
    return require_refused(sweep, sweep.resume(env=env), "9.9.9")


MEANWHILE: list[Trial] = [
    Trial(what="attempt deleted", command="rm -r attempt-1 while its job runs", must="the others ok; resumed: ok",
          run=gone_attempt),
    Trial(what="agent is stopped", command="kill -STOP of the agent, 12 s later -CONT", must="ok", run=stopped_agent),
    Trial(what="two resumes at once", command="bench resume DIR & bench resume DIR", must="one runs, one is refused",
          run=two_resumes),
    Trial(what="bench is stopped", command="kill -STOP, 15 s later -CONT; limits of 8 s", must="ok", run=stopped_bench),
    Trial(what="record deleted", command="rm record.json while the sweep runs; bench resume DIR",
          must="the others stay; not measured twice", run=gone_record),
    Trial(what="sweep deleted", command="rm -r DIR while it runs", must="exit 2, no crash", run=gone_sweep),
    Trial(what="report meanwhile", command="bench report DIR, over and over while it runs", must="ok, exit 0",
          run=report_meanwhile),
    Trial(what="conf changed", command="rm conf/model/debug.yaml; bench resume DIR", must="the plan is frozen: ok",
          run=partial(other_package, "conf")),
    Trial(what="program upgraded", command="bench resume DIR with another version", must="refused",
          run=partial(other_package, "version")),
]  # fmt: skip

"""Trials of what a machine, a shell or whoever starts it does to a sweep, through `bench` itself: in no list."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from trials import (
    FOUR,
    LONG,
    ONE,
    TWO,
    Broken,
    CannotTell,
    Trial,
    last_line,
    require,
    require_ok,
    require_refused,
    wait_for_state,
)
from victim import TINY, Sweep, statuses

ROOT = Path(__file__).resolve().parents[1]


def shell(line: str) -> list[str]:
    """`line` before bench, in its shell."""
    return ["sh", "-c", f'{line} exec "$@"', "sh"]


def child_ends_unheard(sweep: Sweep) -> str:
    code = sweep.run([*TWO, "launcher.preload=false"], "exception@0", before=IGNORES)
    require(code == 2 and statuses(sweep) == "2 failed.exception", f"exit {code}; {statuses(sweep)}")
    return f"exit 2; {statuses(sweep)}"


def stop_that_is_blocked(sweep: Sweep) -> str:
    before = ["env", "--block-signal=TERM", "--block-signal=INT"]
    bench = sweep.start([*FOUR, f"out_dir={sweep.out / 'outputs'}"], "hang", before=before)
    wait_for_state(sweep, "build")
    bench.send_signal(signal.SIGTERM)
    code = bench.wait(60)
    require(code == 143, f"exit {code}")
    return f"exit 143; resumed: {require_ok(sweep, sweep.resume())}"


def ok_under(before: Sequence[str], sweep: Sweep) -> str:
    return require_ok(sweep, sweep.run(TWO, before=before))


def in_mounts(line: str) -> list[str]:
    command = ["unshare", "--mount", *shell(f"{line} &&")]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        raise CannotTell
    return command


# --- the machine ---------------------------------------------------------------------------------------------------


def clock_back(sweep: Sweep) -> str:
    """In `bench` itself; in a rank it is the fault clock_jump."""
    site = sweep.out / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import time\nreal, began = time.time, time.monotonic()\n"
        "time.time = lambda: real() - (86400 if time.monotonic() > began + 4 else 0)\n"
    )
    said = ok_under(["env", f"PYTHONPATH={site}:{os.environ.get('PYTHONPATH', '')}"], sweep)
    walls = [record["wall_s"] for record in sweep.records().values()]
    require(all(0 < wall < 600 for wall in walls), f"cells of {walls} s")
    return said


def no_inodes(sweep: Sweep) -> str:
    place = sweep.out / "outputs"
    place.mkdir()
    line = f"mount -t tmpfs -o nr_inodes=36 none {place}"
    code = sweep.run(FOUR, before=in_mounts(line))
    require(code == 2 and "Traceback" not in sweep.said(), f"exit {code}: {last_line(sweep)}")
    return f"exit 2: “{next(line for line in sweep.said().splitlines() if 'space' in line)[:120]}”"


def full_shm(sweep: Sweep) -> str:
    line = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/x"
    return ok_under(in_mounts(line), sweep)


def read_only_tmp(sweep: Sweep) -> str:
    place = sweep.out / "tmp"
    place.mkdir()
    line = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
    return ok_under([*in_mounts(line), "env", f"TMPDIR={place}"], sweep)


def little_memory(sweep: Sweep) -> str:
    code = sweep.run(TWO, before=shell("ulimit -v 500000;"))
    records = sweep.records()
    require(code == 2 and len(records) == 2 and "Traceback" not in sweep.said(), f"exit {code}; {statuses(sweep)}")
    return f"exit 2; {statuses(sweep)}"


def little_cpu(limit: str, sweep: Sweep) -> str:
    """The hard limit is `bench`'s own as well, so that it must be above what that takes."""
    code = sweep.run([*LONG, "measure.steps=100000"], before=shell(f"ulimit {limit};"))
    require(code == 2 and statuses(sweep) == "1 failed.cpu_time", f"exit {code}; {statuses(sweep)}: {last_line(sweep)}")
    return f"exit 2; {statuses(sweep)}"


# --- how it is started ---------------------------------------------------------------------------------------------


def hostile_folder(sweep: Sweep) -> str:
    place = sweep.out / "here"
    place.mkdir()
    for name in ("torch", "json", "benchrunner", "hydra", "numpy", "sitecustomize"):
        (place / f"{name}.py").write_text("raise SystemExit('the file of the user')\n")
    return require_ok(sweep, sweep.run(TWO, cwd=place, env={"PYTHONSAFEPATH": "1"}))


def strange_folder(sweep: Sweep) -> str:
    name = "a b/u\u0308 $(touch x) ; 'é"
    (sweep.out / "link").symlink_to(".")
    quoted = str(sweep.out / "link" / "outputs" / name).replace("'", "\\'")
    code = sweep.start([*TWO, f"out_dir='{quoted}'"]).wait()
    found = [json.loads(path.read_text())["status"] for path in sweep.out.rglob("record.json")]
    require(code == 0 and found == ["ok", "ok"] and not list(sweep.out.rglob("x")), f"exit {code}: {last_line(sweep)}")
    code = sweep.start(["report", last_line(sweep)]).wait()
    require(code == 0, f"report: exit {code}: {last_line(sweep)}")
    return "exit 0; 2 ok; bench report of its last line: exit 0"


def long_folder(sweep: Sweep) -> str:
    return require_refused(sweep, sweep.start([*ONE, f"out_dir={'x' * 300}"]).wait(), "too long")


def latest_is_a_folder(sweep: Sweep) -> str:
    (sweep.out / "outputs" / "latest").mkdir(parents=True)
    return require_ok(sweep, sweep.run(TWO))


def fifo(option: str, sweep: Sweep) -> str:
    pipe = sweep.out / "pipe"
    os.mkfifo(pipe)
    bench = sweep.start([*ONE, option, str(pipe), f"out_dir={sweep.out / 'outputs'}"])
    try:
        code = bench.wait(120)
    except subprocess.TimeoutExpired:
        bench.kill()
        bench.wait()
        require(False, "it waits for a reader for ever")
    return f"exit {code}; {statuses(sweep)}" + (f": {last_line(sweep)[:100]}" if code else "")


def in_its_place(kind: str, sweep: Sweep) -> str:
    """What out_dir, or a sweep file, is instead."""
    places = {"out_dir is a file": "outputs", "sweep file is a pipe": "pipe.yaml", "sweep file is a folder": "d.yaml"}
    place = sweep.out / places[kind]
    make: dict[str, Callable[[Path], None]] = {"pipe.yaml": os.mkfifo, "d.yaml": Path.mkdir}
    make.get(place.name, Path.touch)(place)
    words = [str(place)] if place.suffix else [*ONE, f"out_dir={place}"]
    bench = sweep.start(words)
    try:
        return require_refused(sweep, bench.wait(60), place.name)
    except subprocess.TimeoutExpired:
        bench.kill()
        bench.wait()
        raise Broken("it waits for ever") from None


def no_summary(sweep: Sweep) -> str:
    file = sweep.out / "junit.xml"
    code = sweep.run([*ONE, "--junit", str(file)], env={"GITHUB_STEP_SUMMARY": "/nonexistent/summary"})
    require(file.exists() and "tables cannot be made" not in sweep.said(), f"exit {code}; no JUnit")
    return require_ok(sweep, code) + "; JUnit written"


def first_process(sweep: Sweep) -> str:
    """As in a container without an init."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        raise CannotTell
    return require_ok(sweep, sweep.run(TWO, "grandchild", before=command))


def no_network(sweep: Sweep) -> str:
    """Not even the loopback."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        raise CannotTell
    code = sweep.run(TWO, before=["unshare", "--net"])
    told = {one["axes"]["strategy"]: one["reason_code"] or "ok" for one in sweep.records().values()}
    require(code == 0 and told == {"single": "ok", "ddp": "missing.loopback"}, f"exit {code}; {told}")
    return "exit 0; single ok, ddp missing.loopback"


def telling_host(name: str, fault: str, verdict: str, sweep: Sweep) -> str:
    command = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        raise CannotTell
    code = sweep.run([*TINY, "strategy=ddp"], fault, before=command)
    require(statuses(sweep) == verdict, f"exit {code}; {statuses(sweep)}")
    return f"exit {code}; {statuses(sweep)}"


JOB = ["env", "RANK=3", "WORLD_SIZE=8", "LOCAL_RANK=3", "LOCAL_WORLD_SIZE=8", "MASTER_ADDR=nowhere.invalid",
       "MASTER_PORT=1", "SLURM_JOB_ID=7", "SLURM_PROCID=3", "SLURM_NODEID=2", "TORCHELASTIC_RUN_ID=x"]  # fmt: skip
IGNORES = [sys.executable, "-c", "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
           "os.execv(sys.argv[1], sys.argv[1:])"]  # fmt: skip

UNDER: dict[str, tuple[str, Sequence[str]]] = {
    "few descriptors": ("ulimit -n 40; bench …", shell("ulimit -n 40;")),
    "small files only": ("ulimit -f 4096; bench …", shell("ulimit -f 4096;")),
    "locale C": ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 bench …",
                 ["env", "LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0"]),
    "umask 077": ("umask 077; bench …", shell("umask 077;")),
    "no TMPDIR": ("TMPDIR=/nonexistent bench …", ["env", "TMPDIR=/nonexistent"]),
    "LD_PRELOAD of nothing": ("LD_PRELOAD=/nonexistent.so bench …", ["env", "LD_PRELOAD=/nonexistent.so"]),
    "no PATH": ("env -u PATH bench …", ["env", "-u", "PATH"]),
    "started by a job of another": ("RANK=3 WORLD_SIZE=8 MASTER_ADDR=… SLURM_NODEID=2 bench …", JOB),
    "SIGCHLD ignored": ("bench … of a parent that ignores SIGCHLD", IGNORES),
    "signals blocked": ("env --block-signal=TERM --block-signal=CHLD bench …",
                        ["env", "--block-signal=TERM", "--block-signal=CHLD", "--block-signal=USR1"]),
    "without asserts": ("PYTHONOPTIMIZE=2 bench …", ["env", "PYTHONOPTIMIZE=2"]),
    "warnings are errors": ("PYTHONWARNINGS=error bench …", ["env", "PYTHONWARNINGS=error"]),
    "threads that are no number": ("OMP_NUM_THREADS=many bench …", ["env", "OMP_NUM_THREADS=many"]),
    "a terminal of no width": ("COLUMNS=1 LINES=0 FORCE_COLOR=1 bench …",
                               ["env", "COLUMNS=1", "LINES=0", "FORCE_COLOR=1"]),
    "caches that are files": ("HOME=/dev/null XDG_CACHE_HOME=/dev/null bench …",
                              ["env", "HOME=/dev/null", "XDG_CACHE_HOME=/dev/null"]),
    "locks nowhere": ("BENCH_LOCKS=/proc/none TZ=none bench …", ["env", "BENCH_LOCKS=/proc/none", "TZ=none/none"]),
    "a small stack": ("ulimit -s 512; bench …", shell("ulimit -s 512;")),
    "an idle scheduler": ("chrt --idle 0 bench …", ["chrt", "--idle", "0"]),
    "one core": ("taskset -c 0 bench …", ["taskset", "-c", "0"]),
}  # fmt: skip
"""What → command, and what comes before bench; all of it must be as if nothing were there."""

SURROUNDINGS: list[Trial] = [
    *(Trial(what=what, command=command, must="ok, exit 0", run=partial(ok_under, before))
      for what, (command, before) in UNDER.items()),
    Trial(what="SIGCHLD ignored, a rank fails", command="bench … launcher.preload=false, of such a parent",
          must="failed.exception", run=child_ends_unheard),
    Trial(what="stop that is blocked", command="env --block-signal=TERM bench …; kill of it", must="exit 143",
          run=stop_that_is_blocked),
    Trial(what="clock set back", command="bench …; its clock goes back by a day", must="ok, times are true",
          run=clock_back),
    Trial(what="no inodes", command="mount -o nr_inodes=36; bench …", must="exit 2 and said", run=no_inodes),
    Trial(what="/dev/shm full", command="bench …, no byte in /dev/shm", must="ok", run=full_shm),
    Trial(what="TMPDIR read-only", command="TMPDIR=(read-only) bench …", must="ok", run=read_only_tmp),
    Trial(what="little address space", command="ulimit -v 500000; bench …", must="each cell has a verdict, exit 2",
          run=little_memory),
    Trial(what="little CPU time", command="ulimit -S -t 9; bench …", must="failed.cpu_time",
          run=partial(little_cpu, "-S -t 9")),
    Trial(what="little CPU time, no more of it", command="ulimit -t 20; bench …", must="failed.cpu_time",
          run=partial(little_cpu, "-t 20")),
    Trial(what="hostile folder", command="cd where torch.py, json.py, benchrunner.py lie; PYTHONSAFEPATH=1 bench …",
          must="ok", run=hostile_folder),
    Trial(what="strange folder", command="bench out_dir='link/a b/ü $(touch x) ; é' (decomposed, through a link)",
          must="ok, nothing run by it", run=strange_folder),
    Trial(what="long folder", command="bench out_dir=xxx… (300)", must="exit 1 and said", run=long_folder),
    Trial(what="latest is a folder", command="mkdir outputs/latest; bench …", must="ok", run=latest_is_a_folder),
    Trial(what="events into a FIFO", command="bench --events FIFO, nobody reads", must="does not wait",
          run=partial(fifo, "--events")),
    Trial(what="JUnit into a FIFO", command="bench --junit FIFO, nobody reads", must="does not wait",
          run=partial(fifo, "--junit")),
    *(Trial(what=what, command=f"bench … where the {what}", must="exit 1 and said", run=partial(in_its_place, what))
      for what in ("out_dir is a file", "sweep file is a pipe", "sweep file is a folder")),
    Trial(what="job summary nowhere", command="GITHUB_STEP_SUMMARY=/nonexistent/x bench … --junit FILE",
          must="ok, JUnit written", run=no_summary),
    Trial(what="first process", command="unshare --pid bench …, with a grandchild that stays", must="ok, none left",
          run=first_process),
    Trial(what="no network", command="unshare --net bench … (no loopback)", must="single ok, ddp missing.loopback",
          run=no_network),
    Trial(what="host called peer", command="hostname peer; BENCH_FAULT=peer_loss@0 bench …", must="failed.peer_loss",
          run=partial(telling_host, "peer", "peer_loss@0", "1 failed.peer_loss")),
    Trial(what="host called process", command="hostname process; BENCH_FAULT=exit@1 bench …", must="failed.exit",
          run=partial(telling_host, "process", "exit@1", "1 failed.exit")),
    Trial(what="host called cublas", command="hostname cublas; BENCH_FAULT=oom_disguised bench …", must="oom.disguised",
          run=partial(telling_host, "cublas", "oom_disguised", "1 oom.disguised")),
]  # fmt: skip

"""Trials of what users do by habit, and of what else a machine may be like, through `bench` itself: in no list."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from trials import (
    FOUR,
    LONG,
    ONE,
    TWO,
    CannotTell,
    Trial,
    last_line,
    pause,
    require,
    require_ok,
    require_refused,
    wait_for_state,
)
from trials_surroundings import ROOT, in_mounts, ok_under, shell
from victim import Sweep, descendants, statuses, wait_for

SLOW_DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int fsync(int file) { usleep(1500000); return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(file); }
"""


# --- signals -------------------------------------------------------------------------------------------------------


def frozen_tree(sweep: Sweep) -> str:
    """As a container is that is paused."""
    words = [*LONG, "limits.measure_s=8", "limits.build_s=8", "limits.warmup_s=8"]
    bench = sweep.start([*words, f"out_dir={sweep.out / 'outputs'}"])
    wait_for_state(sweep, "measure")
    tree = [psutil.Process(bench.pid), *descendants(bench.pid)]
    for process in tree:
        process.suspend()
    pause(15)
    for process in tree:  # bench first: nobody has got on when it looks
        process.resume()
    return require_ok(sweep, bench.wait())


def ignored(signum: signal.Signals, sweep: Sweep) -> str:
    """As nohup, and a shell that starts it in the background, have it."""
    bench = sweep.start(
        [*FOUR, f"out_dir={sweep.out / 'outputs'}"], before=["env", f"--ignore-signal={signum.name[3:]}"]
    )
    wait_for(lambda: bool(sweep.records()))
    bench.send_signal(signum)
    return require_ok(sweep, bench.wait())


def quit_by_keyboard(sweep: Sweep) -> str:
    bench = sweep.start([*LONG, f"out_dir={sweep.out / 'outputs'}"], before=["env", "--default-signal=QUIT"])
    wait_for_state(sweep, "measure")
    bench.send_signal(signal.SIGQUIT)
    code = bench.wait()
    sweep.drain()
    require(code == -signal.SIGQUIT and sweep.left() == 0, f"exit {code}, {sweep.left()} left")
    return f"killed by SIGQUIT, none left; resumed: {require_ok(sweep, sweep.resume())}"


def reader_leaves(sweep: Sweep) -> str:
    line = '"$@" 2>&1 | head -n 1 >/dev/null'
    bench = sweep.start([*TWO, f"out_dir={sweep.out / 'outputs'}"], before=["sh", "-c", line, "sh"])
    bench.wait()
    wait_for(lambda: len(sweep.records()) == 2)
    sweep.drain()
    return require_ok(sweep)


def core_dumps(sweep: Sweep) -> str:
    code = sweep.run([*ONE], "sigsegv@0", before=shell("ulimit -c unlimited;"), cwd=sweep.out)
    found = list((sweep.out / "outputs").rglob("core*"))  # where bench was started there is one: it was asked for
    require(
        code == 2 and statuses(sweep) == "1 failed.signal" and not found, f"exit {code}; {statuses(sweep)}; {found}"
    )
    return f"exit 2; {statuses(sweep)}; no core in the sweep"


def preloaded_dies(sweep: Sweep) -> str:
    bench = sweep.start([*FOUR, "measure.steps=300", f"out_dir={sweep.out / 'outputs'}"])
    wait_for_state(sweep, "measure")
    preloaded = next(
        one for one in descendants(bench.pid) if one.ppid() == bench.pid and "preloaded" in " ".join(one.cmdline())
    )
    preloaded.kill()
    code = bench.wait()
    before = f"exit {code}; {statuses(sweep)}"
    require(code == 2 and len(sweep.records()) == 4 and "3 ok" in statuses(sweep), before)
    return f"{before}; resumed: {require_ok(sweep, sweep.resume())}"


# --- places --------------------------------------------------------------------------------------------------------


def link_to_itself(sweep: Sweep) -> str:
    (sweep.out / "loop").symlink_to("loop")
    return require_refused(sweep, sweep.start([*ONE, f"out_dir={sweep.out / 'loop' / 'x'}"]).wait(), "out_dir")


def leftovers(sweep: Sweep) -> str:
    place = sweep.out / "outputs" / "cli"
    (place / ".tmp-20200101T000000Z-1").mkdir(parents=True)
    (place / ".tmp-20200101T000000Z-1" / "plan.json").write_text("{")
    (place / ".tmp-file").touch()
    (sweep.out / "outputs" / "latest").symlink_to("gone/20200101T000000Z")
    return require_ok(sweep, sweep.run(TWO))


def inside(sweep: Sweep) -> str:
    sweep.run(FOUR, "exception")
    directory = sweep.directory()
    code = sweep.start(["resume", "."], cwd=directory).wait()
    said = require_ok(sweep, code)
    codes = [
        sweep.start(["report", name], cwd=where).wait()
        for name, where in (
            (".", directory),
            (f"{directory}/", sweep.out),
            ("outputs/latest/", sweep.out),
            ("../..", directory / "cells"),
        )
    ]
    require(codes == [0, 0, 0, 1], f"report: exits {codes}: {last_line(sweep)}")
    return f"{said}; bench report . DIR/ latest/: exit 0"


def table_in_the_way(make: Callable[[Path], None], sweep: Sweep) -> str:
    """What results.csv is instead, when a report is made."""
    sweep.run(ONE)
    path = sweep.directory() / "results.csv"
    path.unlink()
    make(path)
    bench = sweep.start(["report", str(sweep.directory())])
    try:
        code = bench.wait(60)
    except subprocess.TimeoutExpired:
        bench.kill()
        bench.wait()
        code = 999
    require(code == 0 and "Traceback" not in sweep.said(), f"exit {code}: {last_line(sweep)}")
    return f"exit 0{', said' if 'cannot be written' in sweep.said() else ''}"


def read_only_program(sweep: Sweep) -> str:
    """A checkout that nobody may write to, without compiled files."""
    copy = sweep.out / "copy"
    for name in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    line = f"mount --bind {copy} {copy} && mount -o remount,bind,ro {copy}"
    return require_ok(sweep, sweep.run(TWO, before=in_mounts(line), env={"PYTHONPATH": str(copy / "src")}))


def program_in_a_zip(sweep: Sweep) -> str:
    shutil.make_archive(str(sweep.out / "program"), "zip", ROOT / "src")
    code = sweep.start(ONE, env={"PYTHONPATH": str(sweep.out / "program.zip")}).wait()
    require(code == 1 and "Traceback" not in sweep.said(), f"exit {code}: {last_line(sweep)}")
    return f"exit 1: “{last_line(sweep).replace(str(sweep.out), '…')[:140]}”"


def foreign_sweep(sweep: Sweep) -> str:
    """The sweep of another user, who lets others read it."""
    sweep.run(FOUR, "exception")
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    sweep.out.chmod(0o755)
    if subprocess.run([*nobody, "ls", str(sweep.directory())], capture_output=True, check=False).returncode:
        raise CannotTell
    (sweep.out / "bench.log").chmod(0o666)
    env = {"HOME": "/nonexistent", "BENCH_LOCKS": "/tmp/nobody-locks"}
    code = sweep.start(["report", str(sweep.directory())], before=nobody, env=env).wait()
    require(code == 0 and "cannot be written" in sweep.said(), f"report: exit {code}: {last_line(sweep)}")
    refused = require_refused(sweep, sweep.resume(before=nobody, env=env), "ermission denied")
    return f"report: exit 0, said; resume: {refused}"


def slow_disk(sweep: Sweep) -> str:
    """Every fsync takes a second and a half, as on a file system far away."""
    if shutil.which("cc") is None:
        raise CannotTell
    (sweep.out / "slow.c").write_text(SLOW_DISK)
    library = sweep.out / "slow.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, sweep.out / "slow.c", "-ldl"], check=True)
    said = require_ok(sweep, sweep.run(TWO, env={"LD_PRELOAD": str(library)}))
    return f"{said}; slowest {max(one['wall_s'] for one in sweep.records().values()):.0f} s"


# --- words and files -----------------------------------------------------------------------------------------------


def odd_out_dir(name: str, sweep: Sweep) -> str:
    code = sweep.start([*ONE, f"out_dir={name}"]).wait()
    line = last_line(sweep)
    require("Traceback" not in sweep.said(), line)
    if code == 1:
        return require_refused(sweep, code, "out_dir")
    found = list(sweep.out.rglob("record.json"))
    require(code == 0 and len(found) == 1, f"exit {code}: {line}")
    return f"exit 0, in {found[0].relative_to(sweep.out).parts[0]}"


def odd_sweep_file(content: bytes, sweep: Sweep) -> str:
    (sweep.out / "mine.yaml").write_bytes(content)
    code = sweep.start(["mine.yaml", *ONE]).wait()
    require(
        "Traceback" not in sweep.said() and not (sweep.out / "outputs").exists(), f"exit {code}: {last_line(sweep)}"
    )
    return require_refused(sweep, code, "mine.yaml")


def plan_of_windows(sweep: Sweep) -> str:
    """Saved by an editor that puts a mark before it and returns at the ends of lines."""
    sweep.run(FOUR, "exception")
    path = sweep.directory() / "plan.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    code = sweep.resume()
    require("Traceback" not in sweep.said(), last_line(sweep))
    return require_refused(sweep, code, "plan.json") if code else require_ok(sweep, code)


def unknown_fault(sweep: Sweep) -> str:
    return require_refused(sweep, sweep.run(ONE, "explode@0"), "explode")


def large_environment(sweep: Sweep) -> str:
    """As module systems and job managers leave it."""
    return require_ok(sweep, sweep.run(TWO, env={f"MODULE_{index}": "x" * 60_000 for index in range(12)}))


def limited_group(sweep: Sweep) -> str:
    """A cgroup of version 1 or 2 whose memory is over."""
    place = Path("/sys/fs/cgroup/memory") if Path("/sys/fs/cgroup/memory").is_dir() else Path("/sys/fs/cgroup")
    group = place / f"bench-{sweep.run_id[:8]}"
    try:
        group.mkdir()
        limit = next(group / name for name in ("memory.limit_in_bytes", "memory.max") if (group / name).exists())
        limit.write_text(str(700 << 20))
    except (OSError, StopIteration):
        raise CannotTell from None
    join = shell(f"echo $$ > {group}/cgroup.procs;")
    try:
        code = sweep.run([*ONE, "model.vocab_size=60000", "seq_len=512", "micro_batch_size=16"], before=join)
        require(code == 4 and statuses(sweep) == "1 oom.host", f"exit {code}; {statuses(sweep)}: {last_line(sweep)}")
        return f"exit 4; {statuses(sweep)}"
    finally:
        sweep.drain()
        group.rmdir()


UNDER = {
    "output that is ASCII": ("PYTHONIOENCODING=ascii", []),
    "import times told": ("PYTHONPROFILEIMPORTTIME=1", ["PYTHONVERBOSE=1"]),
    "development mode": ("PYTHONDEVMODE=1", ["PYTHONTRACEMALLOC=1"]),
    "devices that are none": ("CUDA_VISIBLE_DEVICES=garbage", ["NVIDIA_VISIBLE_DEVICES=x"]),
    "torch that tells all": ("TORCH_DISTRIBUTED_DEBUG=INFO", ["TORCH_CPP_LOG_LEVEL=INFO"]),
    "a job of torchrun": ("MASTER_PORT=-1", [
        "GROUP_RANK=3", "ROLE_RANK=3", "TORCHELASTIC_USE_AGENT_STORE=True", "MASTER_ADDR=::",
        "LOCAL_WORLD_SIZE=garbage", "TORCHELASTIC_RESTART_COUNT=7", "TORCHELASTIC_ERROR_FILE=/proc/none",
    ]),
}  # fmt: skip
"""What → a variable and others beside it; all of it must be as if nothing were there."""

IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("/nonexistent/x"),
}
PLACES = ("''", "/dev/null/x", "'${oc.env:HOME}/x'", "'100%{x}=y'", "-", "~")
FILES = {
    "empty": b"",
    "UTF-16": "# @package _global_\n".encode("utf-16"),
    "binary": bytes(range(256)),
    "a list": b"- 1\n",
}
IGNORED = (signal.SIGHUP, signal.SIGINT)

HABITS: list[Trial] = [
    *(Trial(what=what, command=f"{first} {'… ' if more else ''}bench …", must="ok, exit 0",
            run=partial(ok_under, ["env", first, *more])) for what, (first, more) in UNDER.items()),
    Trial(what="everything is stopped", command="kill -STOP of bench and all below, 15 s later -CONT; limits of 8 s",
          must="ok", run=frozen_tree),
    *(Trial(what=f"{signum.name} ignored", command=f"env --ignore-signal={signum.name} bench …; kill -{signum.name}",
            must="ok", run=partial(ignored, signum)) for signum in IGNORED),
    Trial(what="quit", command="bench …; kill -QUIT", must="none left, resumed: ok", run=quit_by_keyboard),
    Trial(what="reader that leaves", command="bench … | head -n 1", must="ok", run=reader_leaves),
    Trial(what="core dumps", command="ulimit -c unlimited; BENCH_FAULT=sigsegv@0 bench …",
          must="failed.signal, no core in the sweep", run=core_dumps),
    Trial(what="preloaded process dies", command="bench …; kill -9 of it", must="one lost, the others ok",
          run=preloaded_dies),
    Trial(what="link to itself", command="bench out_dir=loop/x, loop → loop", must="exit 1 and said",
          run=link_to_itself),
    Trial(what="leftovers", command="bench …, beside .tmp-… and a latest that leads nowhere", must="ok", run=leftovers),
    Trial(what="from inside", command="cd DIR; bench resume .; bench report . DIR/ latest/", must="ok", run=inside),
    *(Trial(what=f"results.csv is {what}", command=f"bench report DIR, results.csv is {what}", must="exit 0",
            run=partial(table_in_the_way, make)) for what, make in IN_THE_WAY.items()),
    Trial(what="read-only program", command="bench … of a checkout on a read-only mount", must="ok",
          run=read_only_program),
    Trial(what="program in a zip", command="PYTHONPATH=program.zip bench …", must="exit 1 and said",
          run=program_in_a_zip),
    Trial(what="sweep of another user", command="bench report DIR; bench resume DIR", must="tables; exit 1 and said",
          run=foreign_sweep),
    Trial(what="slow disk", command="bench …, every fsync takes 1.5 s", must="ok", run=slow_disk),
    *(Trial(what=f"out_dir {name}", command=f"bench out_dir={name}", must="said, or there",
            run=partial(odd_out_dir, name)) for name in PLACES),
    *(Trial(what=f"sweep file is {what}", command=f"bench mine.yaml, which is {what}", must="exit 1 and said",
            run=partial(odd_sweep_file, content)) for what, content in FILES.items()),
    Trial(what="plan.json saved on Windows", command="bench resume DIR", must="ok, or exit 1 and said",
          run=plan_of_windows),
    Trial(what="unknown fault", command="BENCH_FAULT=explode@0 bench …", must="exit 1 and said", run=unknown_fault),
    Trial(what="large environment", command="bench … with 720 kB of variables", must="ok", run=large_environment),
    Trial(what="memory of a cgroup", command="bench … in a cgroup of 700 MiB", must="oom.host", run=limited_group),
]  # fmt: skip

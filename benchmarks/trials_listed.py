"""The trials by which an audit once broke what is written about here: each through `bench` itself."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import launches
import psutil
from launching import run_sweep
from trials import (
    FOUR,
    LONG,
    ONE,
    TWO,
    Broken,
    CannotTell,
    Trial,
    pause,
    rank_files,
    require,
    require_ok,
    require_refused,
    spans,
    wait_for_state,
)
from victim import BENCH, TINY, Row, Sweep, describe_exit, statuses, wait_for

from benchrunner.run.device_use import CONTENTION_NOTICE_S

SECRETS = {
    "GITHUB_PAT": "ghp_" + "Qm3xZ8vT1rLk6WnB4cYp9sHd2fGj7uEa5oKi",
    "SLACK_WEBHOOK_URL": "https://hooks.example/services/T0/B0/" + "x9Kq2LmZ7RwT4vNb8YcP1sHd",
    "CUDA_SIGNING_KEY": "s" + "Zk41mQ9pXw77LtRb",
}


def _of(row: Row, expected: str) -> str:
    """A part of the tables above, as a trial."""
    require(row.observed == expected and row.left + row.lost == 0, f"{row.observed}, {row.left} left, {row.lost} lost")
    return row.observed


def stale(sweep: Sweep) -> str:
    return _of(launches.stale_row(), "failed.agent; resumed: 1 ok")


def killed_agent(sweep: Sweep) -> str:
    return _of(launches.end_row("agent", 1), "failed.agent")


def stopped_rank(sweep: Sweep) -> str:
    return _of(launches.stopped_row(), "timeout.build") + " after its limit of 15 s"


def bad_read(sweep: Sweep) -> str:
    bench = sweep.start([*LONG, f"out_dir={sweep.out / 'outputs'}"])
    wait_for_state(sweep, "measure")
    (file,) = rank_files(sweep)
    whole = file.read_bytes()
    file.write_bytes(b"\x00garbage")
    pause(1.2)
    if file.read_bytes() == b"\x00garbage":
        file.write_bytes(whole)
    return require_ok(sweep, bench.wait())


def breaker(sweep: Sweep) -> str:
    words = ["-m", *TINY, "strategy=single", "precision=fp32,bf16", "seed=range(0,6)"]
    code = sweep.run(words, "exception/*_fp32_*")
    healthy = [one["status"] for one in sweep.records().values() if one["axes"]["precision"] == "bf16"]
    require(code == 2 and healthy == ["ok"] * 6, f"exit {code}; {statuses(sweep)}")
    return statuses(sweep)


def edited_slug(sweep: Sweep) -> str:
    return _edited(sweep, lambda cell: cell.update(slug="../../x"), "slug")


def edited_length(sweep: Sweep) -> str:
    return _edited(sweep, lambda cell: cell["overrides"].update(seq_len=32), "cells")


def _edited(sweep: Sweep, edit: Callable[[dict], None], words: str) -> str:
    sweep.run(ONE)
    path = sweep.directory() / "plan.json"
    document = json.loads(path.read_text())
    edit(document["cells"][0])
    path.write_text(json.dumps(document))
    before = sorted(sweep.out.rglob("*"))
    said = require_refused(sweep, sweep.resume(), words)
    require(sorted(sweep.out.rglob("*")) == before, "something was written")
    return said


def no_home(sweep: Sweep) -> str:
    nobody = ["unshare", "--user", "--map-user=54321", "env", "-u", "HOME", "-u", "USER", "-u", "LOGNAME"]
    if subprocess.run([*nobody, "true"], capture_output=True, check=False).returncode:
        raise CannotTell
    return require_ok(sweep, sweep.run(TWO, before=nobody))


def read_only(sweep: Sweep) -> str:
    sweep.run(ONE)
    place = sweep.out / "outputs"
    forbid = f'mount --bind {place} {place} && mount -o remount,bind,ro {place} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", forbid, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        raise CannotTell
    code = sweep.start(["report", str(sweep.directory())], before=command).wait()
    require(code == 0 and "cannot be written" in sweep.said(), f"exit {code}")
    return "exit 0, tables printed, “the tables cannot be written”"


def closed_streams(sweep: Sweep) -> str:
    return require_ok(sweep, sweep.run(TWO, before=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]))


def full_streams(sweep: Sweep) -> str:
    return require_ok(sweep, sweep.run(TWO, before=["sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "sh"]))


def hang_up(sweep: Sweep) -> str:
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which the trials may run, leaves it ignored
        os.chdir(sweep.out)
        os.environ |= {"FAULTS_BENCHMARK_RUN": sweep.run_id, "BENCH_LOCKS": str(sweep.out / "locks")}
        os.execv(sys.executable, [*BENCH, *LONG, f"out_dir={sweep.out / 'outputs'}"])
    wait_for_state(sweep, "measure")
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    require(code == 129, describe_exit(code))
    sweep.drain()
    require(sweep.left() == 0, f"{sweep.left()} processes left")
    return f"exit 129; resumed: {require_ok(sweep, sweep.resume())}"


def gone_folder(sweep: Sweep) -> str:
    place = sweep.out / "here"
    place.mkdir()
    bench = sweep.start([*TWO, f"out_dir={sweep.out / 'outputs'}"], cwd=place)
    wait_for(lambda: sweep.directory() is not None)
    place.rmdir()
    return require_ok(sweep, bench.wait())


def line_break(sweep: Sweep) -> str:
    return require_refused(sweep, sweep.start([*ONE, "out_dir='a\nb'"]).wait(), "out_dir")


def flood(sweep: Sweep) -> str:
    started = time.monotonic()
    said = require_ok(sweep, sweep.run(ONE, "flood@0"))
    kept = sum(path.stat().st_size for path in sweep.directory().rglob("*") if path.is_file())
    require(kept < 6 << 20, f"{kept:,} bytes kept")
    return f"{said} after {time.monotonic() - started:.0f} s in all, {kept / 2**20:.1f} MiB kept"


def secrets(sweep: Sweep) -> str:
    said = require_ok(sweep, sweep.run(TWO, "print_env", env=SECRETS))
    texts = [path.read_bytes() for path in sweep.out.rglob("*") if path.is_file()]
    found = [name for name, value in SECRETS.items() if any(value.encode() in text for text in texts)]
    require(not found, f"found in the files: {', '.join(found)}")
    return f"{said}; in none of {len(texts)} files"


def formulas(sweep: Sweep) -> str:
    reason = '=HYPERLINK("http://x.example","a") \u202egpj.exe'
    match = json.dumps({"strategy": "ddp"})
    file = sweep.out / "mine.yaml"
    file.write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {strategy: 'single,ddp'}}}\n"
        f"sweep:\n  exclude:\n  - match: {match}\n    reason: {json.dumps(reason)}\n"
    )
    code = sweep.run([str(file), *TINY])
    require(code == 0, f"exit {code}: {sweep.said()[-200:]}")
    folder = sweep.directory()
    shown = [(folder / name).read_text() for name in ("results.csv", "results.md", "report.html")]
    require(not any("\u202e" in text for text in (*shown, sweep.said())), "a direction mark is shown")
    require(",=HYPER" not in shown[0] and ',"=HYPER' not in shown[0] and "'=HYPER" in shown[0], "a formula in CSV")
    return "an apostrophe before it in CSV; no mark anywhere"


def two_sweeps(sweep: Sweep) -> str:
    benches = [sweep.start([*LONG, f"seed={seed}", f"out_dir={sweep.out / 'outputs'}"]) for seed in (0, 1)]
    wait_for_state(sweep, "measure")
    (first,) = rank_files(sweep)
    rank = psutil.Process(json.loads(first.read_text())["pid"])
    rank.suspend()  # so long that the other one says that it waits, however fast the cores are
    pause(CONTENTION_NOTICE_S + 2)
    rank.resume()
    codes = [bench.wait() for bench in benches]
    (_, first_end), (second_begin, _) = spans(sweep)
    require(codes == [0, 0] and second_begin >= first_end - 0.5, f"exits {codes}; {first_end - second_begin:.1f} s")
    require("another" in sweep.said(), "the second waited without a word")
    return "both exit 0; the second began when the first had ended, and said that it waits"


def other_limits(sweep: Sweep) -> str:
    sweep.run([*ONE, "limits.build_s=5"], "hang@0")
    before = statuses(sweep)
    refused = require_refused(sweep, sweep.resume("seq_len=32"), "seq_len")
    require(before == "1 timeout.build" and statuses(sweep) == before, before)
    return f"{before}; {refused}; {require_ok(sweep, sweep.resume('timeout_s=60', 'limits.build_s=60'))}"


def between_cells(sweep: Sweep) -> str:
    """Not in the sweep of the trial: two of its own."""
    outside = {}
    for preload in (False, True):
        cells = run_sweep("single", 4, preload=preload)[1:]
        outside[preload] = sorted(cell.outside_s for cell in cells)[1]
    said = f"{outside[True]:.2f} s, started anew {outside[False]:.2f} s"
    require(outside[True] <= outside[False] / 2, said)
    return said


def odd_names(sweep: Sweep) -> str:
    sweep.run(ONE)
    (cell,) = sweep.directory().glob("cells/*")
    (cell / "record.json").unlink()
    for name in ("attempt-x", "attempt-01", "attempt-3.bak"):
        (cell / name).mkdir()
    (cell / "attempt-9").touch()
    said = require_ok(sweep, sweep.resume())
    require(json.loads((cell / "record.json").read_text())["attempt"] == 1, "it was measured again")
    return f"{said}, of attempt 1"


def unscrubbed(sweep: Sweep) -> str:
    bench = sweep.start([*FOUR, f"out_dir={sweep.out / 'outputs'}"], "print_env", env=SECRETS)
    wait_for(lambda: bool(sweep.records()))
    bench.kill()
    bench.wait()
    sweep.drain()
    (attempt, *_) = sweep.directory().glob("cells/*/attempt-1")
    Path(attempt / "rank0.err").write_text(f"token {SECRETS['GITHUB_PAT']}\n")
    (attempt / ".cleaned").unlink(missing_ok=True)
    code = sweep.start(["report", str(sweep.directory())], env=SECRETS).wait()
    texts = [path.read_bytes() for path in sweep.directory().rglob("*") if path.is_file()]
    require(code == 0, f"exit {code}")
    if any(value.encode() in text for value in SECRETS.values() for text in texts):
        raise Broken("a secret is in the files")
    sweep.start(["resume", str(sweep.directory())], "print_env", env=SECRETS).wait()
    return f"in none of {len(texts)} files; resumed: {statuses(sweep)}"


LISTED: list[Trial] = [
    Trial(what="stale attempt", command="bench resume DIR; kill -9 of its agent; attempt-2 is another launch's",
          must="no measurement of another launch", run=stale),
    Trial(what="transient bad read", command="bench …; rank0.json is garbage for 1.2 s", must="ok", run=bad_read),
    Trial(what="circuit breaker", command="bench -m precision=fp32,bf16 seed=range(0,6), all of fp32 fail",
          must="every bf16 cell is measured", run=breaker),
    Trial(what="edited plan: slug", command="bench resume DIR, slug ../../x", must="exit 1, nothing written",
          run=edited_slug),
    Trial(what="edited plan: seq_len", command="bench resume DIR, another seq_len", must="exit 1, nothing written",
          run=edited_length),
    Trial(what="no HOME, no passwd entry", command="unshare --user --map-user=54321 env -u HOME bench …", must="ok",
          run=no_home),
    Trial(what="read-only sweep", command="bench report DIR", must="tables printed, said what is not written",
          run=read_only),
    Trial(what="closed streams", command="bench … <&- >&- 2>&-", must="ok, exit 0", run=closed_streams),
    Trial(what="full streams", command="bench … >/dev/full 2>/dev/full", must="ok, exit 0", run=full_streams),
    Trial(what="hang-up", command="bench … on a terminal that is closed", must="exit 129, resumed: ok", run=hang_up),
    Trial(what="deleted working directory", command="bench …; rmdir of it", must="ok", run=gone_folder),
    Trial(what="line break in out_dir", command="bench out_dir='a⏎b'", must="exit 1", run=line_break),
    Trial(what="log flood", command="BENCH_FAULT=flood@0 bench … (1 GiB)", must="ok, at most 6 MiB kept", run=flood),
    Trial(what="secrets", command="GITHUB_PAT=… CUDA_SIGNING_KEY=… BENCH_FAULT=print_env bench …", must="in no file",
          run=secrets),
    Trial(what="formulas, bidirectional text", command="bench mine.yaml, an excluded cell's reason is `=HYPERLINK(…)`",
          must="no formula, no mark", run=formulas),
    Trial(what="killed agent", command="bench …; kill -9 of the agent", must="failed.agent", run=killed_agent),
    Trial(what="two sweeps on one host", command="bench … & bench …", must="not at the same time, and said",
          run=two_sweeps),
    Trial(what="resume with other limits", command="bench resume DIR timeout_s=60; with seq_len=32",
          must="runs; refused", run=other_limits),
    Trial(what="hang", command="bench … limits.build_s=15; kill -STOP of a rank",
          must="timeout.build", run=stopped_rank),
    Trial(what="time between cells", command="bench … and with launcher.preload=false, 4 cells each",
          must="at most half", run=between_cells),
    Trial(what="odd names among attempts", command="bench resume DIR, attempt-01, attempt-3.bak, a file attempt-9",
          must="taken over, not measured again", run=odd_names),
    Trial(what="logs after kill -9 of bench", command="bench …; kill -9; bench report DIR",
          must="no secret in any file", run=unscrubbed),
]  # fmt: skip
"""In the order of the list."""

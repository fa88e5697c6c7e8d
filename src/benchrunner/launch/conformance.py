"""Does a launcher do what its seam says: `python -m benchrunner.launch.conformance NAME [DIR] [key=value …]`.

NAME is an entry point of `benchrunner.launchers`, `slurm` or `detached`; DIR a folder that all nodes see; the keys are
those of `launcher.`, without the prefix, what is no text in YAML. Each check is a function of an allocator and an empty
folder; tests can call them one by one.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from benchrunner.core.errors import DamagedFile, UsageError
from benchrunner.core.files import decode
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch.allocation import Allocator, JobState, Request
from benchrunner.launch.launchers import allocator_for

ANSWER_S = 300.0
"""A cluster that is not busy has run a job of a second by then."""

Check = Callable[[Allocator, Path], None]


def runs_the_command(allocator: Allocator, sweep: Path) -> None:
    """The command runs once, its words as they were, its BENCH_JOB the id; then the job is `completed`."""
    words = "import os, sys; open(sys.argv[1], 'a').write(os.environ['BENCH_JOB'] + '|' + sys.argv[2])"
    job = allocator.submit(sweep, _request("-c", words, str(sweep / "out"), "two  words; $HOME"))
    state = _wait(allocator, sweep, job, "ended")
    _hold(state.end == "completed", f"it ended as {state.end} in place of completed")
    said = (sweep / "out").read_text(encoding="utf-8")
    _hold(said == f"{job}|two  words; $HOME", f"the command was told {said!r}")


def tells_a_failure(allocator: Allocator, sweep: Path) -> None:
    """A command that ends with another code than 0 is `failed`, and what it wrote is in the log."""
    job = allocator.submit(sweep, _request("-c", "import sys; print('on stdout'); sys.exit('on stderr')"))
    state = _wait(allocator, sweep, job, "ended")
    _hold(state.end == "failed", f"it ended as {state.end} in place of failed")
    log = allocator.logs(sweep, job)
    _hold("on stdout" in log and "on stderr" in log, f"the log says {log!r}")


def asks_before_it_kills(allocator: Allocator, sweep: Path) -> None:
    """A cancelled job gets SIGTERM and seconds to end in order; then it is `cancelled`."""
    words = (
        "import signal, sys, time\n"
        "def end(*_): time.sleep(1); open(sys.argv[1], 'w').write('in order'); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end); open(sys.argv[2], 'w').close(); time.sleep(600)"
    )
    job = allocator.submit(sweep, _request("-c", words, str(sweep / "end"), str(sweep / "begun")))
    _wait(allocator, sweep, job, "running")
    _until((sweep / "begun").exists, "the command has not begun")
    allocator.cancel(sweep, [job])
    state = _wait(allocator, sweep, job, "ended")
    _hold(state.end == "cancelled", f"it ended as {state.end} in place of cancelled")
    _until((sweep / "end").exists, "the command did not end in order")


def answers_about_several(allocator: Allocator, sweep: Path) -> None:
    """One question about several jobs has an answer for each; cancelling what has ended does nothing."""
    jobs = [allocator.submit(sweep, _request("-c", "pass", name=f"bench-check-{number}")) for number in range(3)]
    _hold(len(set(jobs)) == 3, f"ids are not unique: {jobs}")
    _until(lambda: _ended(allocator.poll(sweep, jobs)) == set(jobs), "three short jobs have not ended")
    allocator.cancel(sweep, jobs)
    _hold({one.end for one in allocator.poll(sweep, jobs).values()} <= {"completed", "unknown"}, "an end has changed")
    _hold(dict(allocator.poll(sweep, [])) == {}, "of no job there is something to say")


CHECKS: Mapping[str, Check] = {
    check.__name__: check for check in (runs_the_command, tells_a_failure, asks_before_it_kills, answers_about_several)
}


def _request(*words: str, name: str = "bench-check") -> Request:
    return Request(name=name, command=[sys.executable, *words], time_min=5)


def _wait(allocator: Allocator, sweep: Path, job: str, phase: str) -> JobState:
    """The state of a job once it is in this phase; ended is later than running."""
    state = JobState(phase="waiting")

    def is_there() -> bool:
        nonlocal state
        state = allocator.poll(sweep, [job]).get(job, state)
        return state.phase in (phase, "ended")

    _until(is_there, f"job {job} is not {phase}")
    return state


def _ended(states: Mapping[str, JobState]) -> set[str]:
    return {job for job, state in states.items() if state.phase == "ended"}


def _until(is_so: Callable[[], bool], complaint: str) -> None:
    end_s = time.monotonic() + ANSWER_S
    while not is_so():
        _hold(time.monotonic() < end_s, f"{complaint} after {ANSWER_S:.0f} s")
        time.sleep(0.2)


def _hold(is_so: bool, complaint: str) -> None:
    if not is_so:
        raise AssertionError(complaint)


def main(words: Sequence[str]) -> int:
    """Run every check against the launcher that the words name; how many fail."""
    try:
        allocator, home = _asked_for(list(words))
    except UsageError as error:
        sys.exit(f"conformance: {error}")
    return sum(_fails(title, check, allocator, home) for title, check in CHECKS.items())


def _asked_for(words: list[str]) -> tuple[Allocator, str]:
    """The launcher, and the folder for what it does.

    Raises:
        UsageError: there is no such launcher, key or folder.
    """
    name = words.pop(0) if words else ""
    if not name or "=" in name or name == "local":
        raise UsageError("python -m benchrunner.launch.conformance NAME [DIR] [key=value …]; NAME is no cluster's")
    home = words.pop(0) if words and "=" not in words[0] else tempfile.gettempdir()
    keys = {key: _value(key, text) for key, _, text in (word.partition("=") for word in words)}
    if not Path(home).is_dir():
        raise UsageError(f"{home} is no folder")
    config = LauncherConfig(name=name) if name in ("slurm", "detached") else LauncherConfig(name="plugin", plugin=name)
    allocator = allocator_for(replace(config, **keys))
    assert allocator is not None
    return allocator, home


def _value(key: str, text: str) -> Any:
    """As the key's type has it: `exclusive=false` is no text."""
    kind = get_type_hints(LauncherConfig).get(key)
    if kind is None:
        raise UsageError(f"launcher.{key}: no such key")
    if kind in (str, str | None):
        return text
    try:
        return decode(json.dumps(yaml.safe_load(text), default=str).encode(), kind)
    except (yaml.YAMLError, DamagedFile) as error:
        raise UsageError(f"launcher.{key}: it does not take {text!r}") from error


def _fails(title: str, check: Check, allocator: Allocator, home: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="bench-conformance-", dir=home) as sweep:
        try:
            check(allocator, Path(sweep))
        except AssertionError as error:
            print(f"{title:<24} FAILED: {error}")
            return True
    print(f"{title:<24} ok")
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

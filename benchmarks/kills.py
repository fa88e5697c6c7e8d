"""`kill -9` of `bench` at random instants of a sweep, then `bench resume`: is it as if nothing had happened?"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from victim import TINY, Sweep, new_sweep

SWEEPS = {
    "smoke": ["+sweeps=smoke"],
    "smoke-eager": ["+sweeps=smoke", "compile=eager"],
    "tiny": ["-m", *TINY, "strategy=single,ddp", "seed=0,1"],
}
"""What is killed → its words."""


@dataclass
class Kill:
    """One `kill -9` and what a resume made of it."""

    sweep: str
    at_s: float
    had_plan: bool
    num_planned: int
    num_records: int
    same_verdicts: bool
    num_measured_twice: int
    num_records_changed: int
    left: int
    drain_s: float

    def num_broken(self) -> int:
        return self.left + self.num_measured_twice + self.num_records_changed + (not self.same_verdicts)


@dataclass(frozen=True)
class Undisturbed:
    """A sweep that nobody killed."""

    length_s: float
    verdicts: dict[str, str]


def kills(name: str, count: int, jobs: int, draw: random.Random) -> Iterator[Kill]:
    """The sweep killed `count` times, each time from its beginning, at an instant uniform over its length.

    Length and verdicts are those of undisturbed sweeps, as many at once as are killed at once afterwards.
    """
    with ThreadPoolExecutor(jobs) as pool:
        undisturbed = list(pool.map(run_through, [name] * min(jobs, count)))
        verdicts = undisturbed[0].verdicts
        if any(other.verdicts != verdicts for other in undisturbed):
            sys.exit(f"undisturbed sweeps differ from each other: {[other.verdicts for other in undisturbed]}")
        length_s = max(other.length_s for other in undisturbed)
        print(f"undisturbed: {length_s:.1f} s, {len(verdicts)} cells", file=sys.stderr, flush=True)
        instants = [draw.uniform(0, length_s) for _ in range(count)]
        for future in as_completed([pool.submit(kill_once, name, at_s, verdicts) for at_s in instants]):
            yield future.result()


def run_through(name: str) -> Undisturbed:
    with new_sweep() as sweep:
        started = time.monotonic()
        sweep.run(SWEEPS[name])
        return Undisturbed(time.monotonic() - started, verdicts_of(sweep))


def kill_once(name: str, at_s: float, expected: dict[str, str]) -> Kill:
    with new_sweep() as sweep:
        bench = sweep.start([*SWEEPS[name], f"out_dir={sweep.out / 'outputs'}"])
        time.sleep(at_s)
        bench.kill()
        bench.wait()
        drain_s = sweep.drain()
        left, had_plan, before = sweep.left(), sweep.directory() is not None, sweep.raw_records()
        resume: Callable[[], int] = sweep.resume if had_plan else lambda: sweep.run(SWEEPS[name])
        resume()
        after = sweep.raw_records()
        return Kill(
            sweep=name,
            at_s=at_s,
            had_plan=had_plan,
            num_planned=len(expected),
            num_records=len(before),
            same_verdicts=verdicts_of(sweep) == expected,
            num_measured_twice=sum(count > 1 for count in sweep.num_measured().values()),
            num_records_changed=sum(after.get(slug) != text for slug, text in before.items()),
            left=left + sweep.left(),
            drain_s=drain_s,
        )


def verdicts_of(sweep: Sweep) -> dict[str, str]:
    return {slug: record["reason_code"] or record["status"] for slug, record in sweep.records().items()}


def summary(killed: list[Kill]) -> str:
    """Markdown, a section for each sweep that was killed."""
    names = sorted({kill.sweep for kill in killed})
    return "\n\n".join(_section(name, [kill for kill in killed if kill.sweep == name]) for name in names)


def _section(name: str, killed: list[Kill]) -> str:
    rows = [
        ("kills", len(killed)),
        ("of these before the plan was written (there the sweep was started again)", _count(killed, "had_plan")),
        ("records that were finished when the kill came", sum(kill.num_records for kill in killed)),
        ("runs whose final verdicts differ from the undisturbed sweep's", _count(killed, "same_verdicts")),
        ("cells that were measured twice", sum(kill.num_measured_twice for kill in killed)),
        ("finished records that changed", sum(kill.num_records_changed for kill in killed)),
        ("processes left ten seconds after the kill, and after the resume", sum(kill.left for kill in killed)),
        ("longest time until none was left", f"{max(kill.drain_s for kill in killed):.1f} s"),
    ]
    title = f"### `kill -9` of `bench` at random instants of the {name} sweep, then `bench resume`"
    told = {kill.num_planned for kill in killed}
    lines = ["| | |", "|---|---:|", *(f"| {what} | {value} |" for what, value in rows)]
    instants = ", ".join(f"{kill.at_s:.1f}" for kill in sorted(killed, key=lambda kill: kill.at_s))
    ends = f"{'/'.join(map(str, sorted(told)))} cells a sweep. Instants, in seconds from the start: {instants}."
    return "\n\n".join([title, "\n".join(lines), ends])


def _count(killed: list[Kill], name: str) -> int:
    """How many of them have not this property."""
    return sum(not getattr(kill, name) for kill in killed)

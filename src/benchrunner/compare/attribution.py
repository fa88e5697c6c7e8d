"""What else changed in a cell whose number did: memory, clock, compiler, kernels, communication, neighbours."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from benchrunner.compare.pairing import CellPair
from benchrunner.core.cell import NOT_IN_DIGEST, Cell, canonical_json, format_value
from benchrunner.core.record import Metrics, Record
from benchrunner.core.text import first_line

MOST_LEAVES = 5
"""Changed settings that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue:
    """A number of a process that says where a difference may come from."""

    topic: str
    name: str
    read: Callable[[Metrics], float | None]
    least_share: float = 0.0
    """A relative difference below this says nothing."""
    least: float = 0.0
    """… and so does an absolute one below this."""
    unit: str = ""
    scale: float = 1.0


CLUES = (
    Clue(
        topic="memory",
        name="peak allocated",
        read=lambda m: m.get("peak_memory_allocated_bytes"),
        least_share=0.01,
        unit=" MiB",
        scale=2.0**-20,
    ),
    Clue(topic="memory", name="allocator retries", read=lambda m: m.get("num_alloc_retries")),
    Clue(topic="clock", name="SM clock", read=lambda m: m.get("sm_clock_mhz_mean"), least_share=0.01, unit=" MHz"),
    Clue(
        topic="utilization",
        name="share of time with a kernel",
        read=lambda m: m.get("gpu_utilization_mean"),
        least=2.0,
        unit=" %",
    ),
    Clue(
        topic="compile",
        name="compile time",
        read=lambda m: m.get("compile_time_s"),
        least_share=0.2,
        least=1.0,
        unit=" s",
    ),
    Clue(topic="compile", name="graphs", read=lambda m: m.get("num_graphs")),
    Clue(topic="compile", name="graph breaks", read=lambda m: m.get("num_graph_breaks")),
    Clue(topic="recompilation", name="recompilations in the window", read=lambda m: m.get("num_recompiles")),
    Clue(
        topic="communication",
        name="skew between ranks",
        read=lambda m: m.get("step_time_rank_skew"),
        least=0.02,
        unit=" %",
        scale=100.0,
    ),
)


def attribute(pair: CellPair) -> list[str]:
    """Sentences such as `clock: SM clock 1,980 → 1,755 MHz (-11.4 %)`, in a fixed order."""
    before, after = pair.base.records, pair.new.records
    return [*_settings(pair), *_clues(before, after), *_kernels(before, after), *_flags(before, after)]


def _clues(before: Sequence[Record], after: Sequence[Record]) -> Iterator[str]:
    for clue in CLUES:
        old, new = _mean(clue, before), _mean(clue, after)
        if old is None or new is None:
            continue
        share = new / old - 1 if old else math.inf
        if new != old and abs(share) >= clue.least_share and abs(new - old) >= clue.least:
            relative = f" ({share:+.1%})".replace("%", " %") if old else ""
            values = f"{old * clue.scale:,.6g} → {new * clue.scale:,.6g}{clue.unit}"
            yield f"{clue.topic}: {clue.name} {values}{relative}"


def _mean(clue: Clue, records: Sequence[Record]) -> float | None:
    """Over the processes that are ok."""
    values = [value for record in records if record.status == "ok" and (value := clue.read(record.metrics)) is not None]
    return fmean(values) if values else None


def _kernels(before: Sequence[Record], after: Sequence[Record]) -> Iterator[str]:
    """What libraries, precision, compiler and engine chose by themselves."""
    old, new = _choices(before), _choices(after)
    for name in [*old, *(name for name in new if name not in old)]:
        if old.get(name) != new.get(name):
            yield f"kernels: {name} {_said(old.get(name))} → {_said(new.get(name))}"


def _choices(records: Sequence[Record]) -> dict[str, Any]:
    """Of the first rank of the first process that is ok."""
    for record in records:
        if record.status == "ok" and record.ranks:
            return {key: value for key, value in record.ranks[0].get("choices", {}).items() if key not in DRAWN}
    return {}


DRAWN = frozenset({"loss_scale", "num_skipped_steps"})
"""Choices that follow from the numbers of a run."""


def _flags(before: Sequence[Record], after: Sequence[Record]) -> Iterator[str]:
    """What a process was flagged with on one side alone, and neighbours that only one side had."""
    old, new = ({flag for record in records for flag in record.flags} for records in (before, after))
    for flag in sorted(old ^ new):
        yield f"flag {flag}: {'gone' if flag in old else 'new'}"
    beside = [any(record.ran_beside for record in records) for records in (before, after)]
    if beside[0] != beside[1]:
        yield f"neighbours: {'base' if beside[0] else 'new'} alone ran beside other cells"


def _settings(pair: CellPair) -> Iterator[str]:
    """Defaults that changed under the cell: its overrides are the same, its configuration is not."""
    before, after = pair.base.planned.cell, pair.new.planned.cell
    if before.config_digest == after.config_digest:
        return
    old, new = _leaves(before), _leaves(after)
    changed = [key for key in [*old, *(key for key in new if key not in old)] if old.get(key) != new.get(key)]
    for key in changed[:MOST_LEAVES]:
        yield f"settings: {key} {_said(old.get(key))} → {_said(new.get(key))}"
    if len(changed) != min(len(changed), MOST_LEAVES):
        yield f"settings: {len(changed) - MOST_LEAVES} more"


def _leaves(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in asdict(cell.config).items():
        if key not in NOT_IN_DIGEST:
            found |= (
                {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
            )
    return {key: value for key, value in found.items() if key.rpartition(".")[2] not in ("description", "source")}


def _said(value: Any) -> str:
    plain = isinstance(value, (str, int, float, bool, type(None)))
    return first_line(format_value(value) if plain else canonical_json(value), 80)

"""What goes with what, from records: pairwise tables over axis values, ruled out and observed told apart."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import pandas as pd

from benchrunner.report.row import NO_RECORD, NONE, Row

PAIRED = ("strategy", "precision", "compile", "activation_checkpointing")
"""The axes of the tables."""

ALSO = ("workload", "engine", "optimizer")
"""Axes that are added where a sweep has several of their values."""

PARITY = "parity"
"""A workload that stands behind the others' marks, not beside them."""

KINDS = ("ok", "ruled", "refused", "oom", "timeout", "failed", "invalid", "not_run")
"""What a cell can say about a pair: `ruled` was never launched, `refused` was, and a library said no."""

ANSWERS = ("right", "wrong", "unjudged")
"""What a parity cell can say: `unjudged` ran, but no known-good error of its precision was measured yet."""

MARKS = {
    "works": "✓",
    "ruled_out": "✗ rule",
    "refused": "✗ refused",
    "oom": "OOM",
    "timeout": "timeout",
    "failed": "failed",
    "invalid": "invalid",
    "not_run": "– not run",
    "not_in_sweep": "– not in sweep",
    "mixed": "mixed",
}
"""Mark of the CSV → what the printed tables show."""

_MARK_OF = {"ok": "works", "ruled": "ruled_out"}
_SHORT = {"ok": "✓", "ruled": "✗ rule", "refused": "✗ refused", "oom": "OOM", "not_run": "– not run"}

COLUMNS = (
    "axis_a",
    "value_a",
    "axis_b",
    "value_b",
    "num_cells",
    *(f"num_{kind}" for kind in KINDS),
    "num_contradicted",
    "mark",
    "reason",
    "num_parity",
    *(f"num_{answer}" for answer in ANSWERS),
    "computes",
)


def kind_of(row: Row) -> str:
    """Which of KINDS a row is."""
    if row.status == "unsupported":
        return "refused" if row.record and row.record.attempt > 0 else "ruled"
    return "not_run" if row.status == "skipped" else row.status


def answer_of(row: Row) -> str | None:
    """Which of ANSWERS a parity row gives; None when it did not get as far as comparing."""
    checks = row.record.checks if row.record else {}
    if row.status not in ("ok", "invalid") or "parity" not in checks:
        return None
    return {True: "right", False: "wrong", None: "unjudged"}[checks["parity"]["ok"]]


def contradicts_rule(row: Row) -> bool:
    """Whether a cell that a rule calls impossible ran and is ok (`compat=probe`)."""
    return row.status == "ok" and any(flag.startswith("probe:") for flag in row.planned.flags)


@dataclass(slots=True)
class Pair:
    """All cells that hold one pair of axis values. Parity cells say whether it computes the right thing, apart."""

    kinds: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    num_parity: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    num_contradicted: int = 0

    def add(self, row: Row) -> None:
        """Count one cell."""
        if row.planned.cell.axes["workload"] == PARITY:
            self.num_parity += 1
            self.answers.update(filter(None, [answer_of(row)]))
        else:
            self.kinds[kind_of(row)] += 1
        self.num_contradicted += contradicts_rule(row)
        if row.status != "ok" and row.reason_code != NO_RECORD:
            self.reasons[f"{row.reason_code}: {row.reason}"] += 1

    @property
    def num_cells(self) -> int:
        """Cells planned with this pair, parity cells apart."""
        return sum(self.kinds.values())

    @property
    def mark(self) -> str:
        """One word; `mixed` when decided cells disagree."""
        decided = [kind for kind in KINDS if self.kinds[kind] and kind != "not_run"]
        if not self.kinds:
            return "not_in_sweep"
        if not decided:
            return "not_run"
        return _MARK_OF.get(decided[0], decided[0]) if len(decided) == 1 else "mixed"

    @property
    def computes(self) -> str:
        """One word on whether it computes the right thing; one wrong answer outweighs all others."""
        if not self.num_parity:
            return "not_in_sweep"
        given = [answer for answer in ("wrong", "right", "unjudged") if self.answers[answer]]
        return given[0] if given else "not_compared"

    @property
    def text(self) -> str:
        """What runs, and behind it what parity says where it was asked: `✓ 3/4; right 2/2`."""
        if not self.num_parity:
            return self._runs
        words = [f"{answer} {self.answers[answer]}/{self.num_parity}" for answer in ANSWERS if self.answers[answer]]
        return f"{self._runs}; {', '.join(words) or 'not compared'}"

    @property
    def _runs(self) -> str:
        """The mark with its counts: `✓ 3/4`, or `✓ 2 · ✗ rule 1 · – not run 1` when cells disagree or wait."""
        if self.mark in ("not_in_sweep", "not_run"):
            return MARKS[self.mark]
        if self.mark == "mixed" or self.kinds["not_run"]:
            found = [(_SHORT.get(kind, kind), self.kinds[kind]) for kind in KINDS if self.kinds[kind]]
            return " · ".join(f"{text} {count}" for text, count in found) + self._doubt
        return f"{MARKS[self.mark]} {self.num_cells}/{self.num_cells}{self._doubt}"

    @property
    def _doubt(self) -> str:
        return f" (against a rule: {self.num_contradicted})" if self.num_contradicted else ""

    @property
    def reason(self) -> str:
        """The most frequent reason of the cells that do not work."""
        return self.reasons.most_common(1)[0][0] if self.reasons else NONE


Pairs = dict[tuple[str, str, str, str], Pair]
"""(axis_a, value_a, axis_b, value_b) → its cells; axes in the order of PAIRED, then ALSO."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A printed table of marks: value × value, every field a text."""

    title: str
    corner: str
    frame: pd.DataFrame
    """Index: row values; columns: column values."""


def count_pairs(rows: Sequence[Row]) -> Pairs:
    """Every pair of values that some axis pair can have, in order of first appearance, also when no cell holds it."""
    values = axis_values(rows)
    pairs: Pairs = {
        (a, value_a, b, value_b): Pair()
        for a, b in combinations(values, 2)
        for value_a in values[a]
        for value_b in values[b]
    }
    for row in rows:
        axes = row.planned.cell.axes
        if row.planned.probe_of:  # its search speaks for the combination
            continue
        for a, b in combinations(values, 2):
            if PARITY not in (axes[a], axes[b]):
                pairs[a, axes[a], b, axes[b]].add(row)
    return pairs


def axis_values(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Axis of the tables → its values in this sweep, in order of first appearance."""
    found = {axis: dict.fromkeys(row.planned.cell.axes[axis] for row in rows) for axis in (*PAIRED, *ALSO)}
    found["workload"].pop(PARITY, None)
    return {axis: list(values) for axis, values in found.items() if axis in PAIRED or len(values) > 1}


def compatibility_table(pairs: Pairs) -> pd.DataFrame:
    """The long table: one line a pair."""
    lines = [
        (
            *(
                *key,
                pair.num_cells,
                *(pair.kinds[kind] for kind in KINDS),
                pair.num_contradicted,
                pair.mark,
                pair.reason,
            ),
            *(pair.num_parity, *(pair.answers[answer] for answer in ANSWERS), pair.computes),
        )
        for key, pair in pairs.items()
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def feature_matrix(rows: Sequence[Row], pairs: Pairs) -> Matrix:
    """Every value of the other axes against every strategy."""
    values = axis_values(rows)
    features = [(axis, value) for axis in values if axis != "strategy" for value in values[axis]]
    frame = pd.DataFrame(
        {
            strategy: [pairs["strategy", strategy, axis, value].text for axis, value in features]
            for strategy in values["strategy"]
        },
        index=[f"{axis} {value}" for axis, value in features],
    )
    return Matrix("Features by strategy", "feature", frame)


def pair_matrices(rows: Sequence[Row], pairs: Pairs) -> list[Matrix]:
    """Value × value for every pair of axes that both vary; strategies stand in the feature table already."""
    values = axis_values(rows)
    return [
        _pair_matrix(a, b, values, pairs)
        for a, b in combinations(values, 2)
        if a != "strategy" and len(values[a]) > 1 and len(values[b]) > 1
    ]


def _pair_matrix(a: str, b: str, values: dict[str, list[str]], pairs: Pairs) -> Matrix:
    columns = {value_b: [pairs[a, value_a, b, value_b].text for value_a in values[a]] for value_b in values[b]}
    return Matrix(f"{a} × {b}", a, pd.DataFrame(columns, index=values[a]))

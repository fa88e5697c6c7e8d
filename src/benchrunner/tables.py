"""Everything that a report shows, as data: what render and markup turn into text."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from benchrunner import display
from benchrunner.compatibility import Matrix, compatibility_table, count_pairs, feature_matrix, pair_matrices
from benchrunner.costs import cost_sentence
from benchrunner.table import Row, constant_text, count_statuses, reasons_table, results_table


@dataclass(frozen=True, slots=True)
class Block:
    """What one sweep was measured with, as lines (label, text)."""

    title: str
    lines: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The tables of one sweep, or of several merged."""

    title: str
    summary: list[str]
    """Sentences that stand above the tables."""
    results: pd.DataFrame
    compatibility: pd.DataFrame
    matrices: list[Matrix]
    reasons: pd.DataFrame
    notes: list[str]
    """What a reader must know: files that could not be read, cells in several sweeps, rules proved wrong."""
    environments: list[Block]


def make_tables(title: str, rows: Sequence[Row], notes: Sequence[str], environments: Sequence[Block]) -> Tables:
    """All tables from rows."""
    results, pairs = results_table(rows), count_pairs(rows)
    return Tables(
        title=title,
        summary=[*_summary(results), *_costs(rows)],
        results=results,
        compatibility=compatibility_table(pairs),
        matrices=[feature_matrix(rows, pairs), *pair_matrices(rows, pairs)],
        reasons=reasons_table(results),
        notes=[*notes, *_disproved(results), *_unknown(results)],
        environments=list(environments),
    )


def _summary(results: pd.DataFrame) -> list[str]:
    counts = ", ".join(f"{count} {status}" for status, count in count_statuses(results).items())
    cells = "1 cell" if len(results) == 1 else f"{len(results)} cells"
    shared = constant_text(results)
    return [f"{cells}: {counts}.", *([f"All cells: {shared}."] if shared else [])]


def _costs(rows: Sequence[Row]) -> list[str]:
    sentence = cost_sentence([row.record for row in rows if row.record is not None])
    return [] if sentence is None else [sentence]


def _disproved(results: pd.DataFrame) -> list[str]:
    passed = results[(results["status"] == "ok") & results["flags"].str.contains("probe:")]
    return [
        f"{slug} ran and is ok although a rule calls it impossible ({flags})"
        for slug, flags in zip(passed["slug"], passed["flags"], strict=True)
    ]


def _unknown(results: pd.DataFrame) -> list[str]:
    return [f"{heading} is unknown here: no peak or counter for it" for heading in display.unknown_metrics(results)]

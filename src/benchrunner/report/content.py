"""Everything that a report shows, as data: what render and markup turn into text."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from benchrunner.core.record import PHASES, Record
from benchrunner.report import formatting
from benchrunner.report.accuracy import accuracy_sentences
from benchrunner.report.compatibility import Matrix, compatibility_table, count_pairs, feature_matrix, pair_matrices
from benchrunner.report.expectations import Judged
from benchrunner.report.published import PublishedTable
from benchrunner.report.results import count_statuses, reasons_table, results_table, varied_settings
from benchrunner.report.row import Row
from benchrunner.report.shared_settings import constant_text, shared_settings


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
    banner: list[str]
    """Of each sweep that is not complete, a sentence: how much is missing, why, and what runs it."""
    results: pd.DataFrame
    compatibility: pd.DataFrame
    matrices: list[Matrix]
    reasons: pd.DataFrame
    notes: list[str]
    """What a reader must know: files that could not be read, cells in several sweeps, rules proved wrong."""
    environments: list[Block]
    rows: Sequence[Row] = ()
    """What the tables were made from, in the order of `results`."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """Sweep → where its directory is, as seen from the report, with a slash at the end."""
    published: Sequence[PublishedTable] = ()
    """In the layout of the tables that the sweep reproduces, the published values beside ours."""
    expectations: Sequence[Judged] = ()
    """What the sweep expects of its cells, and what records say of that."""

    @property
    def violated(self) -> list[str]:
        """The names of the expectations that do not hold."""
        return [one.expectation.name for one in self.expectations if one.answer == "violated"]


def make_tables(
    title: str,
    rows: Sequence[Row],
    notes: Sequence[str],
    environments: Sequence[Block],
    banner: Sequence[str] = (),
    roots: Mapping[str, str] | None = None,
    published: Sequence[PublishedTable] = (),
    expectations: Sequence[Judged] = (),
) -> Tables:
    """All tables from rows."""
    results, pairs = pd.concat([results_table(rows), varied_settings(rows)], axis="columns"), count_pairs(rows)
    return Tables(
        title=title,
        summary=[*_summary(results), *accuracy_sentences(results), *_costs(rows)],
        banner=list(banner),
        results=results,
        compatibility=compatibility_table(pairs),
        matrices=[feature_matrix(rows, pairs), *pair_matrices(rows, pairs)],
        reasons=reasons_table(results),
        notes=[*notes, *_disproved(results), *_planted(results), *_unknown(results)],
        environments=list(environments),
        rows=rows,
        roots=roots or {},
        published=published,
        expectations=expectations,
    )


def _summary(results: pd.DataFrame) -> list[str]:
    counts = ", ".join(f"{count} {status}" for status, count in count_statuses(results).items())
    cells = "1 cell" if len(results) == 1 else f"{len(results)} cells"
    return [f"{cells}: {counts}.", *shared_sentences(results)]


def shared_sentences(results: pd.DataFrame) -> list[str]:
    """What is the same in all cells: their options and sizes, and every setting that overrides changed."""
    shared, settings = constant_text(results), " ".join(shared_settings(results))
    said = {"All cells": shared, "Settings of all cells": settings}
    return [f"{label}: {text}." for label, text in said.items() if text]


def _costs(rows: Sequence[Row]) -> list[str]:
    sentence = cost_sentence([row.record for row in rows if row.record is not None])
    return [] if sentence is None else [sentence]


def _disproved(results: pd.DataFrame) -> list[str]:
    passed = results[(results["status"] == "ok") & results["flags"].str.contains("probe:")]
    return [
        f"{slug} ran and is ok although a rule calls it impossible ({flags})"
        for slug, flags in zip(passed["slug"], passed["flags"], strict=True)
    ]


def _planted(results: pd.DataFrame) -> list[str]:
    count = int((results["flags"].str.contains(formatting.PLANTED) & (results["status"] == "ok")).sum())
    cells = "1 cell that is ok" if count == 1 else f"{count} cells that are ok"
    said = f"{cells} had a planted fault (BENCH_FAULT): no measurement, so the numbers are left out of every table"
    return [said] if count else []


def _unknown(results: pd.DataFrame) -> list[str]:
    return [f"{heading} is unknown here: no peak or counter for it" for heading in formatting.unknown_metrics(results)]


# --- what a cell costs beside its measurement ---------------------------------------------------------------------

LAUNCH = "launch"
"""From the decision to start until the ranks run, and from their end until the verdict: all that is in no phase."""


def cost_by_phase_s(record: Record) -> dict[str, float] | None:
    """Launch and phases → seconds, of a cell that ran to its end; None for another."""
    if record.status != "ok" or record.wall_s is None or not record.phases_s:
        return None
    spent = {phase: float(record.phases_s.get(phase, 0.0)) for phase in PHASES}
    return {LAUNCH: max(0.0, record.wall_s - sum(spent.values()))} | spent


def median_costs_s(records: Sequence[Record]) -> tuple[int, Mapping[str, float]]:
    """How many cells ran to their end, and the median seconds of each part; of none, nothing."""
    costs = [cost for cost in map(cost_by_phase_s, records) if cost is not None]
    names = (LAUNCH, *PHASES) if costs else ()
    return len(costs), {name: statistics.median(cost[name] for cost in costs) for name in names}


def cost_sentence(records: Sequence[Record]) -> str | None:
    """`Median seconds by phase of the 38 cells that are ok: launch 3.00, …`; None where nothing ran to its end."""
    count, costs = median_costs_s(records)
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in costs.items())
    cells = "1 cell that is ok" if count == 1 else f"{count} cells that are ok"
    return f"Median seconds by phase of the {cells}: {parts}." if count else None

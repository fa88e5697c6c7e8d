"""Predicted against measured: how far off a sweep's predictions were, and how many cells were predicted at all."""

import statistics
from collections.abc import Sequence

import pandas as pd

BINS = (0.01, 0.03, 0.05, 0.10)
"""Upper ends of the histogram's bins; the last one is open."""

QUANTITIES = {"memory_error": "Peak memory", "step_time_error": "Step time"}
"""Column of the results → what was predicted."""


def accuracy_sentences(results: pd.DataFrame) -> list[str]:
    """A sentence a quantity: cells, median and largest error, histogram; and the coverage by method."""
    measured = results[results["status"] == "ok"]
    sentences = [
        _sentence(heading, [abs(float(value)) for value in measured[column].dropna()])
        for column, heading in QUANTITIES.items()
        if measured[column].notna().any()
    ]
    return [*sentences, _coverage(measured)] if sentences else []


def _sentence(heading: str, errors: Sequence[float]) -> str:
    return (
        f"{heading} predicted for {len(errors)} cells: error {statistics.median(errors):.1%} in the median, "
        f"{max(errors):.1%} at most ({histogram(errors)})."
    )


def histogram(errors: Sequence[float]) -> str:
    """`30 within 1%, 5 within 3%, …, 1 beyond 10%`; every error in one bin, empty ones left out."""
    counts = [sum(low < error <= high for error in errors) for low, high in zip((-1.0, *BINS), BINS, strict=False)]
    parts = [f"{count} within {high:.0%}" for count, high in zip(counts, BINS, strict=True) if count]
    beyond = len(errors) - sum(counts)
    return ", ".join([*parts, *([f"{beyond} beyond {BINS[-1]:.0%}"] if beyond else [])])


def _coverage(measured: pd.DataFrame) -> str:
    methods = measured["predicted_by"].value_counts()
    parts = ", ".join(f"{count} by {method}" for method, count in methods.items())
    return f"Predicted of {len(measured)} measured cells: {parts}."

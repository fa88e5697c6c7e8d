import pandas as pd

from benchrunner.report.accuracy import accuracy_sentences, histogram
from benchrunner.report.results import results_table
from samples import H200, make_cell, make_record, make_row


def test_every_error_is_in_one_bin():
    assert histogram([0.0, 0.01, 0.02, 0.2, 0.04]) == "2 within 1%, 1 within 3%, 1 within 5%, 1 beyond 10%"


def test_errors_and_coverage_in_sentences():
    columns = {"status": ["ok", "ok", "oom"], "memory_error": [0.002, -0.02, None], "step_time_error": [None] * 3}
    sentences = accuracy_sentences(pd.DataFrame(columns | {"predicted_by": ["dry_run", "analytic", "analytic"]}))
    assert sentences == [
        "Peak memory predicted for 2 cells: error 1.1% in the median, 2.0% at most (1 within 1%, 1 within 3%).",
        "Predicted of 2 measured cells: 1 by dry_run, 1 by analytic.",
    ]


def test_nothing_is_said_where_nothing_was_predicted():
    columns = {"status": ["ok"], "memory_error": [None], "step_time_error": [None], "predicted_by": ["off"]}
    assert accuracy_sentences(pd.DataFrame(columns)) == []


def test_a_row_compares_estimates_of_a_device_alone():
    def errors(scope, bound, lengths="fixed", **more):
        cell = make_cell(leaves={"workload.lengths": lengths})
        metrics = {"peak_memory_allocated_bytes": 100, "step_time_median_s": 0.1, "memory_scope": scope}
        metrics |= {"run_peak_memory_allocated_bytes": 200, **more}
        row = make_row(cell, make_record(cell, metrics=metrics), hardware=H200)
        object.__setattr__(row.planned, "predicted", {"bound": bound, "peak_memory_bytes": 110, "step_time_s": 0.09})
        table = results_table([row])
        return [
            None if pd.isna(table[name][0]) else round(table[name][0], 6)
            for name in ("memory_error", "step_time_error")
        ]

    assert errors("window", "estimate") == [0.1, -0.1]
    assert errors("window", "estimate", "alpaca") == [-0.45, -0.1]
    assert errors("window", "estimate", "alpaca", steps_peak_memory_allocated_bytes=125) == [-0.12, -0.1]
    assert errors("window", "estimate", steps_peak_memory_allocated_bytes=125) == [0.1, -0.1]
    assert errors("process", "estimate") == [None, -0.1]
    assert errors("window", "lower") == [None, None]

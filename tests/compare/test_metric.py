import pytest

from benchrunner.compare.metric import METRICS, metric_named
from benchrunner.core.errors import UsageError
from samples import make_cell, make_record


@pytest.mark.parametrize(
    ("name", "metrics", "value"),
    [
        ("time", {"decode_tokens_per_second": 4.0, "tokens_per_second_per_device": 2.0}, 0.25),
        ("time", {"decode_tokens_per_second": None, "tokens_per_second_per_device": 2.0}, 0.5),
        ("time", {"step_time_median_s": 3.0}, 3.0),
        ("time", {"step_time_median_s": 0.0}, None),
        ("memory", {"peak_memory_allocated_bytes": 7}, 7),
        ("memory", {}, None),
        ("compile", {"compile_time_s": 2.5}, 2.5),
    ],
)
def test_a_metric_is_read_of_a_process_that_is_ok(name, metrics, value):
    cell = make_cell()
    assert METRICS[name].value(make_record(cell, metrics=metrics)) == value
    assert METRICS[name].value(make_record(cell, "invalid", metrics=metrics)) is None


def test_a_metric_that_is_none_is_refused_with_those_that_are():
    assert metric_named("memory") is METRICS["memory"]
    with pytest.raises(UsageError) as refused:
        metric_named("memmory")
    assert str(refused.value).startswith("--metric: 'memmory' is not one of time, memory, compile")
    assert "memory" in str(refused.value).partition("compile")[2]

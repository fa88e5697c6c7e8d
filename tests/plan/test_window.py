"""What a window of many steps takes: numbers by the formulas of the docstrings."""

import pytest

from benchrunner.core.rank_file import RANK_FILE_BYTES
from benchrunner.core.record import RECORD_BYTES
from benchrunner.plan.window import data_bytes, most_steps, num_steps, steps_key
from samples import make_cell

STEPS = {"measure.warmup_steps": 3, "measure.steps": 7}
SIZES = {"micro_batch_size": 2, "global_batch_size": 10, "seq_len": 100}


def samples(number):
    return {"workload": "generate", "leaves": {"generate.num_samples": number, "generate.prompt_length": 30}}


@pytest.mark.parametrize(
    ("given", "steps", "key"),
    [
        ({"leaves": STEPS}, (3, 7), "measure.steps"),
        (samples(9), (3, 8), "generate.num_samples"),
        (samples(1), (3, 1), "generate.num_samples"),
    ],
)
def test_steps_of_warm_up_and_window(given, steps, key):
    cell = make_cell(**given)
    assert (num_steps(cell), steps_key(cell)) == (steps, key)


@pytest.mark.parametrize(
    ("given", "num_bytes"),
    [
        ({"leaves": STEPS | SIZES}, 10 * 8 * 10 * 101),
        ({"leaves": STEPS | SIZES | {"global_batch_size": 8}, "strategy": "ddp"}, 10 * 8 * 2 * 2 * 101),
        ({"leaves": STEPS | SIZES | {"workload.lengths": "uniform", "workload.min_length": 20}}, 10 * 8 * 10 * 21),
        (samples(9) | {"leaves": samples(9)["leaves"] | {"micro_batch_size": 5}}, 11 * 8 * 5 * 30),
        ({"leaves": STEPS | SIZES, "workload": "parity"}, 0),
    ],
)
def test_tokens_that_are_drawn_before_it(given, num_bytes):
    assert data_bytes(make_cell(**given)) == num_bytes


@pytest.mark.parametrize(("workload", "numbers"), [("train", 3), ("generate", 5)])
def test_as_many_steps_as_the_files_hold(workload, numbers):
    alone, many = (make_cell(n, workload=workload, strategy="ddp") for n in (1, 64))
    assert str(most_steps(alone)) == f"{RANK_FILE_BYTES // (32 * numbers)}", "as reasons have it"
    assert str(most_steps(many)) == f"{RECORD_BYTES // 64 // (32 * numbers)}" and most_steps(many) < most_steps(alone)

"""What a compiled block keeps, captured alone: against the closed form that arithmetic has, and one measured shape."""

import pytest

from benchrunner.core.cell import cell_to_dict
from benchrunner.core.units import MIB
from benchrunner.plan.kept import Model
from benchrunner.worker import dry_run
from benchrunner.worker.compiled_block import kept_bytes
from cells import make_cell


def test_a_block_of_llama2_7b_keeps_what_was_measured():
    """2.7 GiB less over 32 blocks than eager, which keeps 664.5 MiB each (docs/results, 2026-11-21-h200-overhead)."""
    assert kept_bytes(make_cell("model=llama2-7b", "compile=inductor")) / MIB == pytest.approx(578.5, abs=0.1)


@pytest.mark.parametrize(
    "words", [("model=llama3-8b", "seq_len=1000", "micro_batch_size=2"), ("model=gpt2-125m",), ("model=phi-1.5",)]
)
def test_arithmetic_has_the_same(words):
    cell = make_cell(*words, "compile=inductor")
    assert kept_bytes(cell) == pytest.approx(Model(cell.config, cell.sizes).block.saved, rel=0.002)


def test_a_compiled_cell_is_its_eager_twin_with_the_block_beside_it():
    compiled = dry_run.answer(cell_to_dict(make_cell("compile=inductor")))
    eager = dry_run.answer(cell_to_dict(make_cell()))
    assert compiled["peak_memory_bytes"] == eager["peak_memory_bytes"]
    assert compiled["compiled_block_bytes"] > 0 and "compiled_block_bytes" not in eager
    mixed = dry_run.answer(cell_to_dict(make_cell("compile=inductor", "precision=bf16-mixed")))
    assert "compiled_block_bytes" not in mixed

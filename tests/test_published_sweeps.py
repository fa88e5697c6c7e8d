"""Small forms of the sweeps that reproduce published tables, run on a CPU to the last line of their tables.

The sweeps are their own files; overrides make their models tiny and leave out what differs from another cell by its
number alone. What a mechanism predicts of large models is not expected of these.
"""

import os
import subprocess
import sys

import pytest

from benchrunner.core.paths import PACKAGE, SweepPaths
from benchrunner.report.published import CLAIM, NO_NUMBER, NOTHING, load_layout
from benchrunner.report.write import make_report
from samples import CPU

TINY = (
    "model.num_layers=3", "model.d_model=64", "model.num_heads=4", "model.num_kv_heads=4", "model.d_ff=128",
    "model.vocab_size=256", "measure.warmup_steps=1", "measure.steps=2", "sweep.expect=[]",
)  # fmt: skip
WHOLE_CARD = "memory_limit_gib=null"
"""A CPU has no card to emulate."""

FORMS = {
    "litgpt-forward": ["seq_len=32", "model.num_layers=1"],
    "litgpt-generate": ["generate.new_tokens=4", "generate.num_samples=2"],
    "litgpt-train": ["seq_len=32", "compile=eager,thunder"],
    "litgpt-train-fsdp": ["seq_len=32", "compile=eager,thunder"],
    "llm-train-bench": ["seq_len=32", "micro_batch_size=64", "compile=eager"],
    "llm-train-bench-examples": ["seq_len=32"],
    "mingpt-fsdp": ["seq_len=32", "devices=2", WHOLE_CARD],
    "litgpt-resources-lora": [WHOLE_CARD, "global_batch_size=8", "model=phi-1.5,falcon-40b"],
    "litgpt-resources-adapter": [WHOLE_CARD, "global_batch_size=8", "model=llama2-7b"],
    "litgpt-resources-multi": [WHOLE_CARD, "model=phi-1.5", "micro_batch_size=4"],
    "litgpt-resources-inference": [
        WHOLE_CARD, "model=phi-1.5,llama2-70b", "generate.new_tokens=4", "generate.num_samples=2",
    ],
}  # fmt: skip
"""Sweep → what makes it small."""


def bench(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "benchrunner", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_a_small_form_runs_to_the_last_line_of_its_tables(tmp_path, name):
    done = bench(tmp_path, f"+sweeps={name}", *TINY, *FORMS[name])
    assert done.returncode == 0, done.stdout + done.stderr
    tables, _ = make_report([SweepPaths(tmp_path / done.stdout.splitlines()[-1])])
    assert {row.status for row in tables.rows} <= {"ok", "unsupported"}, tables.reasons.to_string()
    for layout, table in zip(load_layout(name).tables, tables.published, strict=True):
        assert table.title in done.stdout and table.frame.iloc[-1, 0] in done.stdout
        for line, texts in zip(layout.lines, table.frame.to_numpy().tolist(), strict=True):
            meant = [row for row in tables.rows if line.cells.has(row.planned.cell, CPU)]
            numbers = [text for text in texts[table.num_labels :: 3] if text not in (NOTHING, *NO_NUMBER.values())]
            notes = [note for note in table.notes if note.startswith(", ".join(line.labels))]
            has_claims = any(column.quantity == CLAIM for column in layout.columns)
            assert has_claims or bool(numbers) == any(row.status == "ok" for row in meant), (line.labels, texts)
            assert has_claims or len(numbers) == len(layout.columns) or notes, (line.labels, texts)

"""Loss curves of many combinations, run in one process group: what equivalence is judged by."""

import json
import os
import subprocess

from cells import SUPPORT, torchrun

JOB = SUPPORT / "equivalence_job.py"
SMALL = ["model.num_layers=2", "model.vocab_size=256", "seq_len=32", "precision=fp32", "global_batch_size=8"]
EQUAL = 1e-4
"""Nats: how far the curves of equal arithmetic may be apart."""


def run_job(words, tmp_path_factory, processes=2):
    out = tmp_path_factory.mktemp("equivalence") / "out.json"
    shared = tmp_path_factory.getbasetemp().parent / "inductor"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(shared)}
    job = subprocess.run(
        torchrun(JOB, str(out), *SMALL, *words, processes=processes), env=env, capture_output=True, text=True
    )
    assert job.returncode == 0, job.stderr[-3000:]
    return json.loads(out.read_text())

"""Cells with lies on two ranks, and what their checks said."""

import json
import os
import subprocess
from pathlib import Path

from cells import SUPPORT, torchrun

JOB = SUPPORT / "validity_job.py"


def run_job(cases, tmp_path_factory):
    out = tmp_path_factory.mktemp("validity") / "rank"
    shared = tmp_path_factory.getbasetemp().parent / "inductor"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(shared)}
    job = subprocess.run(torchrun(JOB, str(out), *cases), env=env, capture_output=True, text=True)
    assert job.returncode == 0, job.stderr[-3000:]
    return [json.loads(Path(f"{out}{rank}").read_text()) for rank in (0, 1)]


def failed(result):
    return {name for name, check in result["checks"].items() if check["ok"] is False}

"""Trains cells with planted lies in one process group and writes each rank's checks.

torchrun … validity_job.py OUT CASE…      (a case: `FAULT[,FAULT…]|WORDS…`; no fault: `|WORDS…`)
"""

import contextlib
import json
import sys
from pathlib import Path

import torch
import torch._inductor.metrics
import torch.distributed as dist

from benchrunner.core.faults import parse_fault
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.measure import window
from benchrunner.worker.workloads import train
from cells import make_context, make_matrix


def run_case(case):
    faults, _, words = case.partition("|")
    cells = make_matrix(*words.split())
    return [run_cell(cell, fault) for fault in faults.split(",") for cell in cells]


def run_cell(cell, fault):
    with planted(parse_fault(fault), context := make_context(cell)):
        result = train.run(context)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # a cell's process counts for itself
    torch._inductor.metrics.reset()
    return {"fault": fault, "axes": dict(cell.axes), "checks": result["checks"]}


def main(out, *cases):
    torch.set_num_threads(1)
    window.frozen_gc = contextlib.nullcontext  # nothing is timed here, and collecting takes longer than a cell
    results = [result for case in cases for result in run_case(case)]
    rank = dist.get_rank() if dist.is_initialized() else 0
    Path(f"{out}{rank}").write_text(json.dumps(results))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

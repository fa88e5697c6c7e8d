"""Trains cells with planted lies in one process group and writes each rank's checks.

torchrun … validity_job.py OUT CASE…      (a case: `FAULT|WORDS…`; no fault: `|WORDS…`)
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from cells import make_context, make_matrix

from benchrunner.faults import parse_fault
from benchrunner.worker import train


def run_case(case):
    fault, _, words = case.partition("|")
    results = []
    for cell in make_matrix(*words.split()):
        result = train.run(make_context(cell, fault=parse_fault(fault)))
        results.append({"fault": fault, "axes": dict(cell.axes), "checks": result["checks"]})
        torch._dynamo.reset()
    return results


def main(out, *cases):
    torch.set_num_threads(1)
    results = [result for case in cases for result in run_case(case)]
    rank = dist.get_rank() if dist.is_initialized() else 0
    Path(f"{out}{rank}").write_text(json.dumps(results))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

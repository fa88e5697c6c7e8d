"""Runs parity cells in one process group and writes what rank 0 found.

torchrun … parity_job.py OUT CASE…      (a case: `FAULT|WORDS…`; no fault: `|WORDS…`)
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
from benchrunner.faults import parse_fault
from benchrunner.worker import parity
from cells import make_context, make_matrix

NUM_STEPS = parity.NUM_STEPS
STEPS_OF_A_LIE = 3
"""A fault shows in the gradients: its curve need not be long."""


def run_case(case):
    fault, _, words = case.partition("|")
    parity.NUM_STEPS = STEPS_OF_A_LIE if fault else NUM_STEPS
    results = []
    for cell in make_matrix("workload=parity", *words.split()):
        result = parity.run(make_context(cell, fault=parse_fault(fault)))
        found = {"fault": fault, "axes": dict(cell.axes), "overrides": dict(cell.overrides)}
        results.append(found | {key: result[key] for key in ("metrics", "checks", "parity")})
        torch._dynamo.reset()
    return results


def main(out, *cases):
    torch.set_num_threads(1)
    results = [result for case in cases for result in run_case(case)]
    if not dist.is_initialized() or dist.get_rank() == 0:
        Path(out).write_text(json.dumps(results))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

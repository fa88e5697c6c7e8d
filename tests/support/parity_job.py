"""Runs parity cells in one process group; rank 0 writes what it found of each case as soon as it has it.

torchrun … parity_job.py FOLDER NUM_STEPS CASE…      (a case: `FAULT|WORDS…`; no fault: `|WORDS…`)
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from benchrunner.core.faults import parse_fault
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.workloads import parity
from cells import make_context, make_matrix
from quick_float8 import install

STEPS_OF_A_LIE = 3
"""A fault shows in the gradients: its curve need not be long."""


def run_case(case, num_steps):
    fault, _, words = case.partition("|")
    parity.NUM_STEPS = STEPS_OF_A_LIE if fault else num_steps
    results = []
    for cell in make_matrix("workload=parity", *words.split()):
        with planted(parse_fault(fault), context := make_context(cell)):
            result = parity.run(context)
        results.append({key: result[key] for key in ("metrics", "checks", "parity")})
        torch._dynamo.reset()
    return results


def main(folder, num_steps, *cases):
    torch.set_num_threads(1)
    install()
    for index, case in enumerate(cases):
        results = run_case(case, int(num_steps))
        if not dist.is_initialized() or dist.get_rank() == 0:
            Path(folder, f"{index}.json").write_text(json.dumps(results))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Runs each cell's workload on every rank of one process group and writes what rank 0 measured and what all generated.

torchrun … inference_job.py OUT WORDS…      (every word may list several values)
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from benchrunner.worker.__main__ import load_workload
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.workloads.forward import inference
from benchrunner.worker.workloads.generate import GenerationLoop
from cells import make_context, make_matrix


def generate_once(cell):
    """The tokens of one sample, all ranks' one after the other."""
    context = make_context(cell)
    with inference(context) as built:
        loop = GenerationLoop(context, Decoding(built, cell, context.device))
        loop.prepare(range(1))
        loop.sample(0)
    tokens = [loop.decoding.progress.tokens]
    if cell.sizes.world_size > 1:
        tokens = [torch.empty_like(tokens[0]) for _ in range(context.world_size)]
        dist.all_gather(tokens, loop.decoding.progress.tokens)
    return torch.cat(tokens).tolist()


def run_cell(cell):
    """The result of the workload, and what was generated."""
    name = cell.axes["workload"]
    tokens = generate_once(cell) if name == "generate" else None
    result = load_workload(name)(make_context(cell))
    torch._dynamo.reset()
    return {"axes": dict(cell.axes), "tokens": tokens, "result": result}


def main(out, *words):
    torch.set_num_threads(1)
    results = [run_cell(cell) for cell in make_matrix(*words)]
    if not dist.is_initialized() or dist.get_rank() == 0:
        Path(out).write_text(json.dumps(results))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

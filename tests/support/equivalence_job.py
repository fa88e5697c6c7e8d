"""Runs every combination of strategy, checkpointing and compile in one process group and writes what each rank saw.

torchrun … equivalence_job.py OUT WORDS…      (every word may list several values)
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from benchrunner.worker.engines.engine import build
from benchrunner.worker.model import weights
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import make_context, make_matrix

NUM_STEPS = 8


def full(parameter):
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def fingerprint(decoder):
    """SHA-256 over all parameters, gathered, in the order of their canonical names."""
    named = {weights.canonical_name(name): full(value) for name, value in decoder.named_parameters()}
    total = hashlib.sha256()
    for name in sorted(named):
        total.update(name.encode() + named[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def run_cell(cell):
    """Weights before the first step, and the mean losses of a few steps."""
    loop = TrainingLoop(context := make_context(cell), build(context))
    start = fingerprint(loop.built.decoder)
    loop.prepare(range(NUM_STEPS))
    for step in range(NUM_STEPS):
        loop.step(step)
    losses = loop.mean_losses()
    torch._dynamo.reset()
    return {"axes": dict(cell.axes), "overrides": dict(cell.overrides), "weights": start, "losses": losses}


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
    sys.stdout.flush()
    os._exit(0)  # a gloo thread that is still alive when the interpreter ends aborts the process

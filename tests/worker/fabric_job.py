"""Runs cells of all engines in one process group and writes what each rank saw.

torchrun … fabric_job.py OUT WORDS… -- WORDS…      (one matrix between two dashes)

Fabric refuses its FSDPStrategy without CUDA by comparing the exact type: a subclass passes, and shows on a CPU that
units, flat parameters and synchronisation are what they should be.
"""

import contextlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from lightning.fabric import strategies
from torch.distributed.fsdp import FullyShardedDataParallel

sys.path.insert(0, str(Path(__file__).parent))
from benchrunner.worker.build import build
from benchrunner.worker.train import TrainingLoop
from cells import make_context, make_matrix
from equivalence_job import fingerprint, full

NUM_STEPS = 5


class AnywhereFSDP(strategies.FSDPStrategy):
    """FSDPStrategy that tells FSDP1 its device by name, which for a CPU has no index."""

    def setup_module(self, module):
        return FullyShardedDataParallel(
            module,
            mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy,
            device_id=self.root_device,
            **self._fsdp_kwargs,
        )


def copies(loop):
    """All parameters whole, gathered from flat ones where the model is FSDP1's, as something with named_parameters."""
    inner = getattr(loop.built.model, "_forward_module", None)
    is_flat = isinstance(inner, FullyShardedDataParallel)
    with FullyShardedDataParallel.summon_full_params(inner) if is_flat else contextlib.nullcontext():
        named = [(name, full(value).detach().clone()) for name, value in loop.built.decoder.named_parameters()]
    return SimpleNamespace(named_parameters=lambda: named)


def run_cell(cell):
    """Weights before the first step, bytes at rest, and the mean losses of a few steps."""
    loop = TrainingLoop(context := make_context(cell), build(context))
    local = sum(value.numel() for value in loop.built.decoder.parameters())
    start = fingerprint(copies(loop))
    loop.prepare(range(NUM_STEPS))
    for step in range(NUM_STEPS):
        loop.step(step)
    losses = loop.mean_losses()
    torch._dynamo.reset()
    axes = {"axes": dict(cell.axes), "overrides": dict(cell.overrides), "choices": loop.choices()}
    return axes | {"weights": start, "losses": losses, "num_local": local}


def main(out, *words):
    torch.set_num_threads(1)
    strategies.FSDPStrategy = AnywhereFSDP
    matrices = " ".join(words).split(" -- ")
    results = [run_cell(cell) for matrix in matrices for cell in make_matrix(*matrix.split())]
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

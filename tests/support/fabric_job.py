"""Runs cells of all engines in one process group and writes what each rank saw.

torchrun … fabric_job.py OUT WORDS… -- WORDS…      (one matrix between two dashes)

A matrix with fault=… is of cells that tell this lie, with fault= of healthy ones: their checks are kept.

Fabric refuses its FSDPStrategy without CUDA by comparing the exact type: a subclass passes, and shows on a CPU that
units, flat parameters and synchronisation are what they should be. BitsandbytesPrecision is let pass likewise.
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

import inference_job
from benchrunner.core.faults import parse_fault
from benchrunner.worker.engines.engine import build
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.workloads import train
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


def allow_bitsandbytes():
    """Have the plug-in quantise on a CPU as it does on CUDA devices."""
    import bitsandbytes
    from lightning.fabric import connector
    from lightning.fabric.plugins.precision import bitsandbytes as plugin

    def quantize(packed, weight, device):
        names = ("blocksize", "compress_statistics", "quant_type", "quant_storage")
        options = {name: getattr(packed, name) for name in names}
        return plugin._replace_param(packed, *bitsandbytes.functional.quantize_4bit(weight.half(), **options))

    connector.BitsandbytesPrecision = type("NoPlugin", (), {})
    plugin._import_bitsandbytes()
    plugin._NF4Linear.quantize = plugin._NF4DQLinear.quantize = staticmethod(quantize)


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


def run_matrix(words):
    faults = [parse_fault(word.removeprefix("fault=")) for word in words if word.startswith("fault=")]
    cells = make_matrix(*(word for word in words if not word.startswith("fault=")))
    if faults:
        return [check_cell(cell, faults[0]) for cell in cells]
    return [inference_job.run_cell(cell) if cell.axes["workload"] == "generate" else run_cell(cell) for cell in cells]


def check_cell(cell, fault):
    with planted(fault, context := make_context(cell)):
        checks = train.run(context)["checks"]
    return {"axes": dict(cell.axes), "fault": fault and fault.kind, "checks": checks}


def main(out, *words):
    torch.set_num_threads(1)
    strategies.FSDPStrategy = AnywhereFSDP
    with contextlib.suppress(ImportError):
        allow_bitsandbytes()
    matrices = " ".join(words).split(" -- ")
    results = [result for matrix in matrices for result in run_matrix(matrix.split())]
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

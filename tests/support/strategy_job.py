"""What each rank sees of its model while strategies work: gradients, shards and number formats, as plain tensors."""

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchrunner.worker.axes import strategy
from benchrunner.worker.engines.engine import build
from benchrunner.worker.steps import data
from benchrunner.worker.steps.training_loop import TrainingLoop
from cells import make_context
from equivalence_job import full
from samples import make_cell

SMALL = {"model.num_layers": 2, "model.vocab_size": 64, "seq_len": 8}
SPREAD = ("ddp", "fsdp_stage2", "fsdp_stage3")
SYNCS = {"always": (True, True), "at the end": (False, True)}
MIXED = [
    ("ddp", "bf16-mixed", None),
    ("fsdp_stage2", "fp16-mixed", None),
    ("fsdp_stage3", "bf16-mixed", None),
    ("fsdp_stage3", "bf16-mixed", "autocast"),
    ("fsdp_stage3", "bf16", None),
]
"""Strategy, precision, and what mixes the formats."""


def observe():
    """Everything that the tests judge, from one process group."""
    make_context(make_cell(strategy="ddp"))  # joins it
    return {
        "alone": own_gradients(),
        "accumulated": {(kind, when): accumulated(kind, SYNCS[when]) for kind in SPREAD for when in SYNCS},
        "shards": {kind: shards(kind, "block") for kind in SPREAD} | {"modules": shards("fsdp_stage3", "module")},
        "formats": {case: formats(*case) for case in MIXED},
        "loop": {
            (kind, sync): in_the_loop(kind, sync) for kind in ("ddp", "fsdp_stage3") for sync in (None, "last", "every")
        },
        "buffer": buffer_after_forward(),
        "mean": strategy.broadcast_free_mean(torch.tensor([1.0, 10.0]) * (dist.get_rank() + 1), 2),
    }


def prepare(kind, precision="fp32", leaves=None):
    """A small model built on this rank, and the loss of its micro-batch of that number."""
    cell = make_cell(leaves=SMALL | (leaves or {}), strategy=kind, precision=precision)
    built = build(make_context(cell))

    def loss_of(micro):
        batch = data.draw_sample(1, dist.get_rank(), micro, 9, 64)[None]
        with built.forward_context():
            return built.model(*data.inputs_and_targets(cell, batch))

    return built, loss_of


def gradients_of(decoder):
    """Name → gradient of the whole parameter; None where there is none."""
    return {
        name: None if value.grad is None else full(value.grad).detach().clone()
        for name, value in decoder.named_parameters()
    }


def own_gradients():
    """This rank's gradients of either micro-batch, of a model that no strategy touched."""
    seen = []
    for micro in range(2):
        built, loss_of = prepare("single")
        loss_of(micro).backward()
        seen.append(gradients_of(built.decoder))
    return seen


def accumulated(kind, syncs):
    """Gradients after each of two micro-steps."""
    built, loss_of = prepare(kind)
    seen = []
    for micro, sync in enumerate(syncs):
        with built.gradient_sync(sync):
            loss_of(micro).backward()
        seen.append(gradients_of(built.decoder))
    return seen


def shards(kind, wrap):
    """The share of each parameter that a rank holds, the units, and the parameters gathered at three moments."""
    built, loss_of = prepare(kind, leaves={"strategy.wrap": wrap})
    held = {name: local(value).numel() / value.numel() for name, value in built.decoder.named_parameters()}
    units = {name for name, module in built.decoder.named_modules() if isinstance(module, FSDPModule)}
    moments = [gathered(built.decoder)]
    loss = loss_of(0)
    moments.append(gathered(built.decoder))
    loss.backward()
    moments.append(gathered(built.decoder))
    return {"held": held, "units": units, "gathered": moments}


def local(parameter):
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def gathered(decoder):
    """The parameters of blocks that this rank has in full."""
    return {name for name, value in decoder.blocks.named_parameters() if not isinstance(value, DTensor)}


def formats(kind, precision, mixed_by):
    """The formats of a linear's weight and output in the forward pass, at rest, of gradients and of their reduction."""
    built, loss_of = prepare(kind, precision, {"strategy.mixed_precision_by": mixed_by})
    seen = {}

    def look(module, inputs, output):
        seen.setdefault("compute", str(module.weight.dtype))
        seen.setdefault("output", str(output.dtype))

    linear = built.decoder.blocks[0].attention.qkv
    linear.register_forward_hook(look)
    with Reductions() as reductions:
        loss_of(0).backward()
    stored = {str(value.dtype) for value in built.decoder.parameters()}
    return seen | {"stored": stored, "gradient": str(linear.weight.grad.dtype), "reduced": reductions.formats}


class Reductions(TorchDispatchMode):
    """The formats in which gradients were summed over the ranks."""

    def __init__(self):
        super().__init__()
        self.formats = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.namespace == "c10d" and "reduce" in operator._opname:
            tensors = [value for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
            self.formats |= {str(value.dtype) for value in tensors}
        return operator(*args, **(kwargs or {}))


def in_the_loop(kind, sync):
    """The head's gradient when the second micro-step has gone forward, and all gradients at the end."""
    leaves = SMALL | {"global_batch_size": 4, "strategy.accumulation_sync": sync}
    context = make_context(cell := make_cell(leaves=leaves, strategy=kind, precision="fp32"))
    loop, seen = TrainingLoop(context, build(context)), []
    batches = data.draw_step(cell, 0, context.rank, context.device)
    loop.accumulate(batches, after_forward=lambda: seen.append(gradients_of(loop.built.decoder)["head.weight"]))
    return seen[1], gradients_of(loop.built.decoder)


def buffer_after_forward():
    """A buffer of DDP's model that every rank set for itself."""
    built, loss_of = prepare("ddp")
    buffer = next(value for value in built.decoder.buffers() if value.is_floating_point())
    buffer.fill_(dist.get_rank())
    loss_of(0)
    return buffer.mean().item()

"""Peak memory of a cell without its device: the worker's own build and step under fake tensors.

`python -m benchrunner.worker.dry_run` reads cells from stdin, one JSON document a line, and answers each with a line.
It runs on a CPU and pretends: a process group of any size, tensors without storage, and the CPU's name for the device.
The only user of torch's private tools; started as a process, so that nothing else meets them.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell, cell_from_dict
from benchrunner.core.errors import Unsupported
from benchrunner.core.schema import CompileConfig
from benchrunner.worker import compiled_block as compiled_blocks
from benchrunner.worker import fake_kernels
from benchrunner.worker.axes import strategy
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.context import Context
from benchrunner.worker.engines import native
from benchrunner.worker.engines.built import Built, has_gradients
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.tape import Tape

DECODED_TOKENS = 2
"""Of a generation: the second one no longer finds anything of the prompt's pass."""

MODELLED = frozenset({"train", "lora", "adapter", "adapter_v2", "forward", "generate"})


def main() -> None:
    """Answer every line of stdin."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line)), allow_nan=False), flush=True)


def answer(data: dict[str, Any]) -> dict[str, Any]:
    """The prediction of one cell as plain data, or `refused` with the reason."""
    started_s = time.monotonic()
    try:
        found = dry_run(cell_from_dict(data))
    except Unsupported as error:
        return {"refused": str(error)}
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
    return found | {"seconds": time.monotonic() - started_s}


def dry_run(cell: Cell) -> dict[str, Any]:
    """Peak bytes of the allocator and what it would reserve, in the steady state of one rank of this cell.

    Of a compiled cell it is the eager twin's peak, with what a compiled block keeps (`compiled_block_bytes`) beside it.

    Raises:
        Unsupported: it uses what fake tensors cannot stand for.
    """
    _check(cell)
    if cell.axes["compile"] == "inductor":
        return dry_run(eager_twin(cell)) | compiled_block(cell)
    with ExitStack() as stack:
        stack.enter_context(_world(cell.sizes.world_size))
        stack.enter_context(fake_kernels.installed())
        built = _build(cell)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        _materialise(built, cell)
        tape = Tape(num_passes=2 if has_gradients(cell) else 1)
        _steps(built, cell, tape)
    return tape.result()


def eager_twin(cell: Cell) -> Cell:
    """The same cell without its compiler."""
    config = replace(cell.config, compile=CompileConfig(name="eager"))
    return replace(cell, axes={**cell.axes, "compile": "eager"}, config=config)


def compiled_block(cell: Cell) -> dict[str, Any]:
    """What one block keeps as Inductor compiles it, where that can be captured: training in one plain format."""
    config = cell.config
    is_plain = config.precision.backend == "torch" and formats.storage_dtype(cell) == formats.activation_dtype(cell)
    if not is_plain or cell.axes["workload"] != "train" or config.attention == "explicit":
        return {}
    return {"compiled_block_bytes": compiled_blocks.kept_bytes(cell)}


def _check(cell: Cell) -> None:
    """Refuse what would be counted wrong."""
    axes, config = cell.axes, cell.config
    refusals = {
        f"workload {axes['workload']} is not modelled": axes["workload"] not in MODELLED,
        f"engine {axes['engine']} is not modelled, native is": axes["engine"] != "native",
        "Transformer Engine cannot be imported without CUDA": config.precision.backend == "transformer_engine",
        f"compile={axes['compile']} is not modelled": axes["compile"] not in ("eager", "inductor"),
        "attention=math is made of other kernels on a CPU": config.attention == "math",
    }
    for reason, holds in refusals.items():
        if holds:
            raise Unsupported("runtime.dry_run", reason)


@contextmanager
def _world(size: int) -> Iterator[None]:
    """A process group of so many ranks in which this is the first and nobody answers."""
    if size == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


def _build(cell: Cell) -> Built:
    """The worker's own recipe, left on meta: the mesh must exist before tensors are fake, storage only after."""
    context = Context(
        cell=cell,
        hardware={"device_type": "cpu"},
        world_size=cell.sizes.world_size,
        path=Path("/nonexistent/rank0.json"),
    )
    keep = {"single": strategy.wrap_single, "ddp": lambda decoder, context: decoder}
    with patch.object(native, "materialise", _later), patch.dict(strategy.WRAP, keep):
        return native.build_native(context)


def _later(decoder: nn.Module, cell: Cell, device: torch.device) -> None:
    """In place of materialising."""


def _materialise(built: Built, cell: Cell) -> None:
    decoder = built.decoder
    decoder._apply(  # type: ignore[no-untyped-call]
        lambda tensor: torch.empty_like(tensor, device="cpu") if tensor.is_meta else tensor
    )
    decoder.tie_weights()
    decoder.reset_buffers(torch.device("cpu"), formats.activation_dtype(cell))


def _steps(built: Built, cell: Cell, tape: Tape) -> None:
    """One step without a tape, so that what is made once and cached does not count; then the one that does."""
    step = _step_of(built, cell)
    step(None)
    keeps = _keeps_gradients(cell)
    if has_gradients(cell) and not keeps:
        built.model.zero_grad(set_to_none=True)
    tape.hold("parameters", _local([*built.decoder.parameters(), *built.decoder.buffers()]))
    if keeps:
        tape.hold("gradients", _local([p.grad for p in built.decoder.parameters() if p.grad is not None]))
    tape.leave("optimizer", _optimizer_sizes(built, cell) if has_gradients(cell) else [])
    with tape:
        step(tape)


def _keeps_gradients(cell: Cell) -> bool:
    """DDP's buckets are there all the time, and so is what an earlier micro-step left."""
    in_buckets = cell.config.strategy.kind == "ddp" and cell.sizes.world_size > 1
    return has_gradients(cell) and (in_buckets or cell.sizes.accumulation_steps > 1)


def _local(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]


def _optimizer_sizes(built: Built, cell: Cell) -> list[int]:
    """Bytes of each tensor of state as the optimizer would make it: fused, so that a step adds nothing."""
    found = []
    for tensor in _local([p for p in built.decoder.parameters() if p.requires_grad]):
        each, options = tensor.element_size(), cell.config.optimizer
        moments = arithmetic.optimizer_state_bytes_per_parameter(options, each, on_device=True) // each
        found += [tensor.numel() * each] * moments
    return found


def _tokens(cell: Cell) -> torch.Tensor:
    return torch.zeros(cell.sizes.micro_batch_size, cell.sizes.seq_len, dtype=torch.int64)


def _step_of(built: Built, cell: Cell) -> Callable[[Tape | None], None]:
    """The step of the cell's workload, to be run with a tape or without."""
    if cell.axes["workload"] == "generate":
        decoding = Decoding(built, cell, torch.device("cpu"))
        return functools.partial(_generate, built, cell, decoding)
    return functools.partial(_train if has_gradients(cell) else _forward, built, cell)


def _train(built: Built, cell: Cell, tape: Tape | None) -> None:
    """Forward and backward pass of one micro-batch."""
    tokens, targets = _tokens(cell), _tokens(cell)
    built.model.train()
    enter = tape.enter if tape else _ignore
    enter("forward")
    with built.forward_context():
        loss = built.model(tokens, targets)
    enter("backward")
    built.backward(loss)
    enter("optimizer")


def _forward(built: Built, cell: Cell, tape: Tape | None) -> None:
    """A pass without gradients; the logits of the step before are gone by then."""
    built.model.eval()
    (tape.enter if tape else _ignore)("forward")
    with torch.inference_mode(), built.forward_context():
        built.model(_tokens(cell))


def _generate(built: Built, cell: Cell, decoding: Decoding, tape: Tape | None) -> None:
    """The prompt and the first tokens after it, into the cache that is there: later ones only see more of it."""
    enter = tape.enter if tape else _ignore
    options = cell.config.generate
    built.model.eval()
    if tape:
        tape.hold("cache", [half for layer in decoding.cache.layers for half in (layer.keys, layer.values)])
    with torch.inference_mode():
        enter("prefill")
        decoding.prefill(torch.zeros(cell.sizes.micro_batch_size, options.prompt_length, dtype=torch.int64))
        enter("decode")
        for _ in range(min(options.new_tokens - 1, DECODED_TOKENS)):
            decoding.step()


def _ignore(phase: str) -> None:
    """Where nothing is taped."""


if __name__ == "__main__":
    main()

"""Compilers: how each one is applied, and what it did."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch._dynamo
import torch._inductor.config
import torch._inductor.metrics
from torch import nn

from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import Choices
from benchrunner.core.schema import CompileConfig
from benchrunner.worker.axes import thunder
from benchrunner.worker.axes.activation_checkpointing import compiled_part
from benchrunner.worker.context import Context
from benchrunner.worker.model.decoder import Decoder

AnyFunction = Callable[..., Any]


def configure(cell: Cell) -> None:
    """Compiler settings of the process, before anything is compiled.

    Past Dynamo's default of 8 recompilations it silently runs eager: here the limit grows with the number of layers
    (a layer can need a graph each for the first forward pass and a recomputed one) and reaching it is an error. Blocks
    compiled on their own are not split again by DDP's graph splitting: a block is already a unit of reduction.
    """
    config = torch._dynamo.config
    config.fail_on_recompile_limit_hit = True
    config.recompile_limit = 2 * cell.config.model.num_layers + 16
    config.accumulated_recompile_limit = 64 * config.recompile_limit
    if cell.config.compile.scope == "block":
        config.optimize_ddp = False
    if cell.axes["workload"] == "generate":
        _tune_for_single_tokens()


def _tune_for_single_tokens() -> None:
    """Multiplying a matrix with one token's vector only streams the matrix: Inductor writes it as a tuned reduction.

    That reaches the memory's bandwidth where cuBLAS does not.
    """
    torch._inductor.config.coordinate_descent_tuning = True


def _torch_compile_options(options: CompileConfig) -> dict[str, Any]:
    mode = options.mode if options.mode != "default" else None
    return {"mode": mode, "dynamic": options.dynamic, "fullgraph": options.fullgraph}


def compile_blocks(decoder: Decoder, options: CompileConfig) -> None:
    """`torch.compile` each block in place, and the head with the loss as one more graph.

    In place (`nn.Module.compile`) parameter names stay as they are and FSDP's hooks stay outside the graph.
    """
    if options.scope != "block":
        return
    chosen = _torch_compile_options(options)
    for block in decoder.blocks:
        compiled_part(block).compile(**chosen)
    if decoder.loss_chunk_tokens is None:
        decoder.head_loss = torch.compile(decoder.head_loss, **chosen)  # type: ignore[method-assign]
    else:  # one graph for all chunks: unrolled, every number of them would be another program
        decoder.loss_sum = torch.compile(decoder.loss_sum, **chosen)  # type: ignore[method-assign]


def compile_model(model: nn.Module, options: CompileConfig) -> nn.Module:
    """`torch.compile` of the wrapped model as a whole."""
    if options.scope != "model":
        return model
    return cast(nn.Module, torch.compile(model, **_torch_compile_options(options)))


def compile_function(function: AnyFunction, options: CompileConfig) -> AnyFunction:
    """`torch.compile` a function as one graph of its own, whatever the scope."""
    return torch.compile(function, **_torch_compile_options(options))


@dataclass(frozen=True, slots=True)
class Compiler:
    """What a compile option does to the bare decoder, to the wrapped model, and to a function beside them."""

    blocks: Callable[[Decoder, CompileConfig], None]
    model: Callable[[nn.Module, CompileConfig], nn.Module]
    function: Callable[[AnyFunction, CompileConfig], AnyFunction] = lambda function, options: function
    distribute: Callable[[Decoder, Context], nn.Module] | None = None
    """The compiler's own way to spread an initialised decoder that it compiles as a whole, in place of torch's."""
    gradient_sync: Callable[[Any, bool], AbstractContextManager[object]] | None = None
    """`Built.gradient_sync` of what `distribute` returns."""
    choices: Callable[[CompileConfig], Choices] = lambda options: {}
    """What to record of how the model was compiled."""
    refusals: Callable[[], AbstractContextManager[object]] = nullcontext
    """Around building and running a model: turns what the compiler cannot do into a verdict."""

    def distributes(self, cell: Cell) -> bool:
        """Whether the compiler spreads this cell's model by itself."""
        spread = cell.config.strategy.kind != "single" and cell.config.compile.scope == "model"
        return self.distribute is not None and spread


COMPILERS: dict[str, Compiler] = {
    "eager": Compiler(blocks=lambda decoder, options: None, model=lambda model, options: model),
    "inductor": Compiler(blocks=compile_blocks, model=compile_model, function=compile_function),
    "thunder": Compiler(
        blocks=thunder.jit_blocks,
        model=thunder.jit_model,
        function=thunder.jit_function,
        distribute=thunder.distribute,
        gradient_sync=thunder.gradient_sync,
        choices=thunder.describe,
        refusals=thunder.refusals,
    ),
}


@dataclass(frozen=True, slots=True)
class CompileStats:
    """Dynamo's counters, cumulative since the process started."""

    compile_s: float
    """Forward frames and backward graphs together, and what thunder spent on tracing."""
    num_frames: int
    """Frames that Dynamo compiled, recompilations included."""
    num_graphs: int
    graph_breaks: dict[str, int]
    """Reason → how often."""
    num_cache_hits: int
    num_cache_misses: int


def read_stats() -> CompileStats:
    """The counters now."""
    counters, spent = torch._dynamo.utils.counters, torch._dynamo.utils.calculate_time_spent()
    caches = (counters["inductor"], counters["aot_autograd"])
    hits = counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
    misses = sum(cache[name] for cache in caches for name in ("fxgraph_cache_miss", "autograd_cache_miss"))
    return CompileStats(
        compile_s=float(spent.get("total_wall_time", 0.0)) + thunder.trace_s(),
        num_frames=int(counters["frames"]["ok"]),
        num_graphs=int(counters["stats"]["unique_graphs"]),
        graph_breaks={_first_line(reason): int(count) for reason, count in counters["graph_break"].items()},
        num_cache_hits=int(hits),
        num_cache_misses=int(misses),
    )


def compilers_at_work() -> list[str]:
    """The compile options whose compiler produced code in this process, by its own counters."""
    counters = torch._dynamo.utils.counters
    # What comes from a cache is counted there; what generates code counts its kernels.
    by_inductor = counters["inductor"] or counters["aot_autograd"]["autograd_cache_hit"]
    found = {"inductor": bool(by_inductor) or torch._inductor.metrics.generated_kernel_count > 0}
    found["thunder"] = thunder.num_programs() > 0
    return [name for name, is_at_work in found.items() if is_at_work]


def _first_line(text: str) -> str:
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "unknown")

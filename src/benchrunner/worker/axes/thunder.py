"""lightning-thunder as a compiler: one program for all blocks alike, or the whole model with its own strategies.

Thunder traces by interpreting Python, seconds a block, and blocks differ in nothing but their parameters: a program
traced for one block runs every other, given that block's parameters.
"""

import contextlib
import functools
import re
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch._dynamo
import torch.nn.functional as F
from torch import Tensor, nn

from benchrunner.core.errors import Unsupported
from benchrunner.core.rank_result import Choices
from benchrunner.core.schema import CompileConfig
from benchrunner.worker.axes.peft import LoRA
from benchrunner.worker.context import Context
from benchrunner.worker.model.decoder import IGNORED_TARGET, Block, Decoder
from benchrunner.worker.model.layers import Attention

EXECUTORS = ("sdpa", "torchcompile")
"""Who runs what thunder traced, in order of preference: fused attention, then TorchInductor for all the rest (nvFuser,
thunder's first choice, takes no torch of today). What neither takes is left to torch and Python."""

MAX_WORDS = 400
"""Characters kept of what a library says."""

COMPILER_ERRORS = (
    torch._dynamo.exc.TorchDynamoException,
    NotImplementedError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)
"""What a compiler raises that cannot do something; none of them is a device's or a peer's."""

DEVICE_ERROR = re.compile(r"out of memory|CUDA error|CUDA driver|CUBLAS_|CUDNN_|NCCL|OutOfMemoryError")

BUCKETS = {"block": "BLOCK", "module": "LAYER"}
"""`strategy.wrap` → what thunder's FSDP gathers at once."""

_programs: list["Program"] = []


class Program:
    """A module or function jitted by thunder; a module's runs with the parameters of any of the same structure."""

    def __init__(self, template: nn.Module | Callable[..., Any], executors: Sequence[Any] | None = None) -> None:
        import thunder

        chosen = list(executors or EXECUTORS)
        self.executors = [str(getattr(executor, "name", executor)) for executor in chosen]
        self.jitted: Any = thunder.jit(template, executors=chosen)
        self._trace_s = 0.0
        self._num_traces = 0
        _programs.append(self)

    def run(self, module: nn.Module, *inputs: Any) -> Any:
        """The program on `module`'s parameters as they are now: sharding replaces them for a while."""
        self.jitted._overrides_parameters = dict(module.named_parameters())
        self.jitted._overrides_buffers = dict(module.named_buffers())
        return self(*inputs)

    def __call__(self, *inputs: Any) -> Any:
        """The program on the template's own parameters."""
        result = self.jitted(*inputs)
        self.trace_s()
        return result

    def trace_s(self) -> float:
        """Seconds spent on tracing; of several traces since it was asked last, thunder knows the last one's."""
        stats = self.jitted._lc_cs
        if stats.cache_misses != self._num_traces:
            self._num_traces = stats.cache_misses
            self._trace_s += max(stats.last_trace_tracing_stop - stats.last_trace_tracing_start, 0) / 1e9
        return self._trace_s


class Jitted(nn.Module):
    """A block that runs in a program which it shares with its likes."""

    def __init__(self, module: nn.Module, program: Program) -> None:
        super().__init__()
        self.module = module
        self._program = [program]  # no submodule: its parameters are the blocks'

    def forward(self, *inputs: Any) -> Any:
        """What the block returns."""
        return self._program[0].run(self.module, *inputs)


class MeanLoss(nn.Module):
    """Final norm, head and mean loss: thunder's cross-entropy fails in the backward pass of a sum."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.norm, self.head = decoder.norm, decoder.head

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """As `Decoder.head_loss`."""
        return mean_loss(self.head(self.norm(hidden)), targets)


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The fp32 mean over targets that are not -100."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED_TARGET)


def jit_blocks(decoder: Decoder, options: CompileConfig) -> None:
    """Blocks that are alike share a program, inside their checkpoints; head and loss are one more."""
    _programs.clear()
    _speak_thunder(decoder)
    if options.scope != "block":
        return
    programs: dict[tuple[Any, ...], Program] = {}
    for name, block in [(name, part) for name, part in decoder.named_modules() if isinstance(part, Block)]:
        structure = _structure(block)
        if structure not in programs:
            programs[structure] = Program(block)
        parent, _, leaf = name.rpartition(".")
        setattr(decoder.get_submodule(parent), leaf, Jitted(block, programs[structure]))
    if decoder.loss_chunk_tokens is None:
        loss = MeanLoss(decoder)
        head = Program(loss)
        decoder.head_loss = lambda hidden, targets: head.run(loss, hidden, targets)  # type: ignore[method-assign]


def _speak_thunder(decoder: Decoder) -> None:
    """Avoid what thunder cannot trace: queries in groups inside attention, sums inside products, the loss as a sum."""
    for module in decoder.modules():
        if isinstance(module, Attention):
            module.repeats_keys = True
        if isinstance(module, LoRA):
            module.lora_adds_in_product = False
    if decoder.loss_chunk_tokens is None:
        decoder.head_loss = types.MethodType(_head_loss, decoder)  # type: ignore[method-assign]


def _head_loss(decoder: Decoder, hidden: Tensor, targets: Tensor) -> Tensor:
    return mean_loss(decoder.logits(hidden), targets)


def _structure(block: nn.Module) -> tuple[Any, ...]:
    """What two blocks must have in common to run in one program."""
    parameters = ((name, one.shape, one.dtype, one.requires_grad) for name, one in block.named_parameters())
    return (repr(block), *parameters)


def jit_model(model: nn.Module, options: CompileConfig) -> nn.Module:
    """The model as one program; under DDP and FSDP thunder's own strategies have made it one already."""
    if options.scope != "model":
        return model
    return cast(nn.Module, Program(model).jitted)


def jit_function(function: Callable[..., Any], options: CompileConfig) -> Callable[..., Any]:
    """A function as a program of its own, whatever the scope."""
    return Program(function)


def distribute(decoder: Decoder, context: Context) -> nn.Module:
    """Jit the initialised decoder as a whole and let thunder spread it: its collectives become part of the program.

    The result stands for the decoder as well: after thunder's FSDP the parameters are its own.
    """
    import thunder.distributed as distributed

    cell = context.cell
    program = Program(decoder, (*EXECUTORS[:-1], _without_collectives()))
    if cell.config.strategy.kind == "ddp":
        program.jitted = distributed.ddp(program.jitted, broadcast_from=None)
    else:
        rows = {name: len(parameter) for name, parameter in decoder.named_parameters()}
        stages: dict[int | None, Any] = {2: distributed.FSDPType.ZERO2, 3: distributed.FSDPType.ZERO3}
        program.jitted = distributed.fsdp(
            program.jitted,
            device=context.device,
            sharding_strategy=stages[cell.config.strategy.stage],
            bucketing_strategy=distributed.FSDPBucketingStrategy[BUCKETS[cell.config.strategy.wrap]],
        )
        for name, parameter in program.jitted.named_parameters():
            parameter.rows_of_all_ranks = rows[name]
    return cast(nn.Module, program.jitted)


def gather_rows(part: Tensor, parameter: nn.Parameter) -> Tensor:
    """All rows of a parameter or of its gradient; those of thunder's FSDP are spread over the ranks, padded at the end.

    Collective under thunder's FSDP; others are returned as they are.
    """
    rows: int | None = getattr(parameter, "rows_of_all_ranks", None)
    if rows is None:
        return part
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)[:rows]


@functools.cache
def _without_collectives() -> Any:
    """The `torchcompile` executor, made to leave thunder's collectives alone: Dynamo refuses asynchronous ones."""
    from thunder.distributed.prims import PrimIDs
    from thunder.executors.torch_compile import TorchCompileExecutor, torch_compile_ex

    executor = TorchCompileExecutor(name="torchcompile_without_collectives")
    executor._implmap = {op: made for op, made in torch_compile_ex._implmap.items() if not isinstance(op, PrimIDs)}
    return executor


def gradient_sync(model: Any, sync: bool) -> AbstractContextManager[object]:
    """Around a micro-step under thunder's own strategies: without sync gradients are reduced when the context ends."""
    return contextlib.nullcontext() if sync else model.no_sync()


def describe(options: CompileConfig) -> Choices:
    """What to record: the executors of the model's programs, and how many programs there are."""
    return {"thunder_executors": _programs[0].executors, "thunder_programs": len(_programs)}


def num_programs() -> int:
    """Programs that thunder traced."""
    return sum(program.jitted._lc_cs.cache_misses > 0 for program in _programs)


def trace_s() -> float:
    """Seconds that thunder spent tracing in this process; what its executors compile is not in it."""
    return sum(program.trace_s() for program in _programs)


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turn what thunder, or Dynamo in its `torchcompile` executor, cannot do into a verdict in their words.

    Thunder traces, transforms and compiles while the model runs, so what it cannot do comes from anywhere below: from a
    forward pass, from autograd's threads, and from operators that its programs call with arguments they do not take.
    """
    try:
        yield
    except Exception as error:
        if not _is_refusal(error):
            raise
        words = " ".join(str(error).split())[:MAX_WORDS]
        raise Unsupported("runtime.thunder", f"thunder: {type(error).__name__}: {words}") from error


def _is_refusal(error: Exception) -> bool:
    """Whether thunder's own code or a program that it wrote (`thunder.…`) raised this, and the device did not."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    below_thunder = any("/thunder/" in name or name.startswith("thunder.") for name in files)
    known = isinstance(error, COMPILER_ERRORS) or type(error) is RuntimeError
    return below_thunder and known and DEVICE_ERROR.search(str(error)) is None

"""Lightning Fabric as the engine: its strategies and precision plug-ins around our model, data, weights and loop.

torchrun started the ranks and the context joined them; Fabric finds both and starts nothing of its own. Whatever it
refuses becomes a verdict in its own words.
"""

import contextlib
import functools
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from benchrunner.core.errors import Unsupported
from benchrunner.core.rank_result import Choices
from benchrunner.worker.axes import activation_checkpointing, compile, peft, strategy
from benchrunner.worker.axes.precision import formats, nf4
from benchrunner.worker.context import Context
from benchrunner.worker.engines import fabric_precision
from benchrunner.worker.engines.built import Built, count_parameters, decoder_on_meta, has_gradients, materialise
from benchrunner.worker.engines.fabric_fsdp import fsdp_options
from benchrunner.worker.model.decoder import Decoder

if TYPE_CHECKING:
    from lightning.fabric import Fabric

MAX_WORDS = 600
"""Characters kept of what Fabric says."""


def build(context: Context) -> Built:
    """Build the cell's model by Fabric: the native recipe, with Fabric's setup in place of sharding and wrapping.

    Its FSDP strategies take a decoder on meta and materialise it as they shard, unless its weights are packed; the
    others take real parameters, which its plug-ins then convert. Checkpointing and compile in place stand between, as
    they do natively.
    """
    cell = context.cell
    compile.configure(cell)
    torch.set_float32_matmul_precision("highest")
    fabric = make_fabric(context)
    decoder = decoder_on_meta(cell)
    num_parameters, num_trainable = count_parameters(decoder)
    with refusals("precision"):
        decoder, choices = fabric_precision.prepare(decoder, context, fabric)
    if peft.apply(decoder, cell.config.workload, formats.storage_dtype(cell)):
        num_trainable = count_parameters(decoder)[1]
    compiler = _prepare_blocks(decoder, context)
    if not _shards(context) or _is_packed(context):
        materialise(decoder, cell, context.device)
    with refusals("setup"):
        model = fabric.setup_module(compiler.model(decoder, cell.config.compile))
    return Built(
        decoder=decoder,
        model=model,
        root=_root(decoder, model),
        forward_context=nullcontext if has_gradients(cell) else fabric.autocast,
        num_parameters=num_parameters,
        num_trainable_parameters=num_trainable,
        choices=choices | _describe(fabric),
        backward=fabric.backward,
        gradient_sync=functools.partial(_gradient_sync, fabric, model),
        setup_optimizer=fabric.setup_optimizers,
        clip_gradients=functools.partial(_clip_gradients, fabric, model),
        scaler=getattr(fabric.strategy.precision, "scaler", None),
    )


def make_fabric(context: Context) -> "Fabric":
    """Fabric on the context's device with the cell's strategy and precision, launched: that is, told that it runs.

    Raises:
        Unsupported: Fabric refuses the combination.
    """
    from lightning.fabric import Fabric

    options = fabric_precision.options(context)
    with refusals("combination"):
        fabric = Fabric(
            accelerator="cuda" if context.device.type == "cuda" else "cpu",
            devices=context.cell.sizes.world_size // context.cell.config.nodes,
            num_nodes=context.cell.config.nodes,
            strategy=_strategy(context),
            **options,
        )
        fabric.launch()
    assert fabric.device == context.device, "Fabric must work on the device of the context"
    return fabric


def _strategy(context: Context) -> Any:
    """Fabric's strategy object; without gradients DDP's ranks are replicas on their own."""
    from lightning.fabric import strategies

    cell = context.cell
    kind = cell.config.strategy.kind
    if kind == "single" or (kind == "ddp" and not has_gradients(cell)):
        return strategies.SingleDeviceStrategy(device=context.device)
    if kind == "ddp":
        return strategies.DDPStrategy(**strategy.ddp_options())
    if cell.axes["engine"] == "fabric":
        return strategies.FSDPStrategy(**fsdp_options(context))
    return strategies.ModelParallelStrategy(
        parallelize_fn=functools.partial(_parallelize, context),
        data_parallel_size=context.world_size,
        tensor_parallel_size=1,
    )


def _parallelize(context: Context, decoder: Decoder, mesh: Any) -> Decoder:
    """What ModelParallelStrategy calls to shard: as natively, over its own mesh, and filled before it looks."""
    strategy.shard(decoder, context, mesh["data_parallel"])
    if _is_packed(context):
        nf4.check_bits(decoder, context)
    else:
        materialise(decoder, context.cell, context.device)
    return decoder


def _shards(context: Context) -> bool:
    return bool(context.cell.config.strategy.kind == "fsdp")


def _is_packed(context: Context) -> bool:
    """Whether weights exist before sharding, in bits that nothing can be filled into after it."""
    return formats.PRECISIONS[context.cell.axes["precision"]].packs


def _prepare_blocks(decoder: Decoder, context: Context) -> compile.Compiler:
    """Checkpointing, then compile in place."""
    cell = context.cell
    compiler = compile.COMPILERS[cell.axes["compile"]]
    checkpoint = formats.PRECISIONS[cell.axes["precision"]].checkpoint(cell)
    options = cell.config.activation_checkpointing
    activation_checkpointing.APPLY[cell.axes["activation_checkpointing"]](decoder, options, checkpoint)
    compiler.blocks(decoder, cell.config.compile)
    if not has_gradients(cell) and cell.config.compile.scope == "block":
        decoder.logits = compiler.function(decoder.logits, cell.config.compile)  # type: ignore[method-assign]
    return compiler


def _root(decoder: Decoder, model: Any) -> nn.Module:
    """FSDP1 gathers in its own module's forward, FSDP2 in the decoder's."""
    wrapped = _wrapped(model)
    return wrapped if isinstance(wrapped, FullyShardedDataParallel) else decoder


def _wrapped(model: Any) -> nn.Module:
    """What the strategy put around the decoder, without the compiler that Fabric puts around that."""
    module: nn.Module = getattr(model._forward_module, "_orig_mod", model._forward_module)
    return module


def _gradient_sync(fabric: "Fabric", model: nn.Module, sync: bool) -> AbstractContextManager[object]:
    """Around a micro-step: whether its backward pass reduces gradients over the ranks."""
    return nullcontext() if sync else fabric.no_backward_sync(model)


def _clip_gradients(fabric: "Fabric", model: nn.Module, optimizer: Any, max_norm: float) -> None:
    """Clip to a global norm, without asking the device whether it is finite."""
    with refusals("clip"):
        fabric.clip_gradients(model, optimizer, max_norm=max_norm, error_if_nonfinite=False)


def _describe(fabric: "Fabric") -> Choices:
    """What to record: whose strategy and plug-in worked, and what the plug-in calls its precision."""
    plugin = fabric.strategy.precision
    return {
        "fabric": {
            "strategy": type(fabric.strategy).__name__,
            "plugin": type(plugin).__name__,
            "precision": plugin.precision if isinstance(getattr(plugin, "precision", None), str) else None,
        }
    }


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what Fabric itself raises into a verdict with its words; what fails beneath it stays what it is."""
    try:
        yield
    except Exception as error:
        if not _raised_by_fabric(error):
            raise
        words = " ".join(str(error).split())[:MAX_WORDS]
        raise Unsupported(f"runtime.fabric_{what}", f"Lightning Fabric: {words}") from error


def _raised_by_fabric(error: Exception) -> bool:
    """Whether the innermost frame is a `raise` in Fabric's own source."""
    innermost = traceback.extract_tb(error.__traceback__)[-1]
    return "/lightning/fabric/" in innermost.filename and (innermost.line or "").startswith("raise")

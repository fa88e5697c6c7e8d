"""A model that can step, and the parts of the recipe that every engine shares."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import nn

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import Choices
from benchrunner.worker.axes.optimizer import make_optimizer
from benchrunner.worker.axes.precision import formats
from benchrunner.worker.axes.precision.loss_scale import CountingScaler
from benchrunner.worker.model.decoder import Decoder
from benchrunner.worker.model.weights import fill_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model on its device, wrapped and ready, and what was counted on the way."""

    decoder: Decoder
    """The bare decoder inside the wrappers."""
    model: nn.Module
    """What the loop calls: `model(tokens, targets)` is the mean loss."""
    root: nn.Module
    """The decoder, or what must be called in its place for its parameters to be gathered; never compiled as a whole."""
    forward_context: Callable[[], AbstractContextManager[object]]
    num_parameters: int
    """Whole model, tied head once, before any packing or sharding."""
    num_trainable_parameters: int
    choices: Choices = field(default_factory=Choices)
    """What precision, compiler and engine decided by themselves, for the record."""
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward
    """The backward pass of a loss."""
    gradient_sync: Callable[[bool], AbstractContextManager[object]]
    """Around a micro-step: whether its backward pass reduces gradients over the ranks."""
    setup_optimizer: Callable[[torch.optim.Optimizer], torch.optim.Optimizer] = lambda optimizer: optimizer
    """What the engine puts around the optimizer."""
    clip_gradients: Callable[[torch.optim.Optimizer, float], None]
    """Clip all gradients of the optimizer's parameters to a global norm."""
    scaler: CountingScaler | None = None
    """The engine's own, where it scales the loss, so that the loop must not."""


def has_gradients(cell: Cell) -> bool:
    """Whether the workload has a backward pass."""
    return cell.axes["workload"] in arithmetic.GRADIENT_WORKLOADS


def decoder_on_meta(cell: Cell) -> Decoder:
    """The cell's decoder without storage, in the dtype that its parameters are kept in."""
    with torch.device("meta"):
        decoder = Decoder(
            cell.config.model,
            loss_chunk_tokens=cell.config.workload.loss_chunk_tokens,
            explicit_attention=cell.config.attention == "explicit",
            num_positions=max(cell.sizes.seq_len, generated_length(cell)),
        )
    return decoder.to(formats.storage_dtype(cell))


def generated_length(cell: Cell) -> int:
    """Tokens that prompt and continuation of a generated sample have together; 0 for other workloads."""
    options = cell.config.generate
    return int(options.prompt_length + options.new_tokens) if cell.axes["workload"] == "generate" else 0


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """All parameters and the trainable ones; a shared parameter counts once."""
    parameters = list(module.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def materialise(decoder: Decoder, cell: Cell, device: torch.device) -> None:
    """Give every parameter and buffer on meta its storage and its value."""
    decoder._apply(  # type: ignore[no-untyped-call]
        lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor
    )
    decoder.tie_weights()
    decoder.reset_buffers(device, formats.activation_dtype(cell))
    fill_parameters(decoder, seed=cell.config.seed, std=cell.config.model.init_std, device=device)


def build_optimizer(built: Built, cell: Cell) -> torch.optim.Optimizer:
    """The optimizer comes last: it must hold the parameters as they are at the end (sharded, on the device)."""
    return built.setup_optimizer(make_optimizer(built.decoder, cell.config.optimizer))

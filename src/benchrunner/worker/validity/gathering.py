"""Whole parameters and gradients of a built model, a unit at a time, whatever sharded or packed them.

Collective: every rank asks for the same units in the same order.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from benchrunner.worker.axes.thunder import gather_rows
from benchrunner.worker.engines.built import Built
from benchrunner.worker.model.weights import canonical_name
from benchrunner.worker.validity.reference import Source, Weights, from_normal_float, from_scale_codes


def weights_of(built: Built) -> Source:
    """A source of the values that the model computes with; a unit may be asked for while it is given already."""
    given = Counter[int | None]()
    whole_units: dict[int | None, ExitStack] = {}

    @contextmanager
    def source(unit: int | None) -> Iterator[tuple[Weights, frozenset[str]]]:
        if not given[unit]:
            whole_units[unit] = ExitStack()
            whole_units[unit].enter_context(gathered(built, unit))
        given[unit] += 1
        try:
            named = own_parameters(built, unit)
            weights = {name: _value(module, parameter) for name, (module, parameter) in named.items()}
            yield weights, frozenset(name for name, (_, parameter) in named.items() if parameter.requires_grad)
        finally:
            given[unit] -= 1
            if not given[unit]:
                whole_units.pop(unit).close()

    return source


@contextmanager
def gathered(built: Built, unit: int | None) -> Iterator[None]:
    """Inside, FSDP1's flat parameters of the unit are whole; nothing to do for others."""
    with ExitStack() as stack:
        for flat in _flat_modules(built, unit):
            stack.enter_context(FullyShardedDataParallel.summon_full_params(flat, recurse=False, writeback=False))
        yield


def _flat_modules(built: Built, unit: int | None) -> list[nn.Module]:
    root = built.root if unit is None else built.decoder.blocks[unit]
    named = [(canonical_name(f"{name}."), module) for name, module in root.named_modules()]
    flat = [(name, module) for name, module in named if isinstance(module, FullyShardedDataParallel)]
    return [module for name, module in flat if unit is not None or not name.startswith("blocks.")]


def own_parameters(built: Built, unit: int | None) -> dict[str, tuple[nn.Module, nn.Parameter]]:
    """Name within the unit → module and parameter; a shared one counts once, under its first name."""
    prefix, found = "" if unit is None else f"blocks.{unit}.", dict[str, tuple[nn.Module, nn.Parameter]]()
    for raw_name, parameter in built.decoder.named_parameters():  # thunder's parameters are no block's own
        name = canonical_name(raw_name)
        if name.startswith(prefix) if prefix else not name.startswith("blocks."):
            module = built.decoder.get_submodule(raw_name.rpartition(".")[0])
            found[name.removeprefix(prefix)] = module, parameter
    return found


def gradients_of(built: Built, unit: int | None, scale: float) -> dict[str, Tensor | None]:
    """Whole gradients of what trains, fp32 ÷ `scale`; None where there is none. To be asked where it is `gathered`."""
    trained = {name: one for name, (_, one) in own_parameters(built, unit).items() if one.requires_grad}
    if trained and _flat_modules(built, unit):
        found = _from_pieces(list(trained.values()))
    else:
        found = [None if one.grad is None else gather_rows(whole(one.grad), one).float() for one in trained.values()]
    return {name: None if one is None else one / scale for name, one in zip(trained, found, strict=True)}


def _from_pieces(parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """Whole gradients, fp32, of which the ranks have pieces one behind the other.

    FSDP1 gathers them too, but not where all that a rank has is frozen: it puts zeros of another dtype in their place,
    and the ranks wait for one another.
    """
    empty = torch.empty(0, device=parameters[0].device)
    pieces = [empty if one.grad is None else one.grad.detach().flatten().float() for one in parameters]
    sizes = _of_all_ranks(torch.tensor([len(piece) for piece in pieces], device=empty.device))
    mine = torch.zeros(max(int(of_rank.sum()) for of_rank in sizes), device=empty.device)
    mine[: sum(map(len, pieces))] = torch.cat(pieces)
    by_rank = [
        torch.split(held[: int(of_rank.sum())], of_rank.tolist())
        for held, of_rank in zip(_of_all_ranks(mine), sizes, strict=True)
    ]
    joined = [torch.cat(of_ranks) for of_ranks in zip(*by_rank, strict=True)]
    return [
        values[: one.numel()].view(one.shape) if len(values) else None  # unsharded, every rank has all of it
        for values, one in zip(joined, parameters, strict=True)
    ]


def _of_all_ranks(mine: Tensor) -> list[Tensor]:
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    return found


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor.

    In inference mode torch 2.11 detaches what it gathered in place, by an operator that its DTensor has no rule for.
    """
    with torch.inference_mode(False), torch.no_grad():
        held: Tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return held.detach()


def _value(module: nn.Module, parameter: nn.Parameter) -> Tensor:
    state = getattr(module, "quant_state", None)
    if state is None or parameter is not getattr(module, "weight", None):
        return gather_rows(whole(parameter), parameter).float()
    packed = whole(parameter).flatten().view(torch.uint8)
    return from_normal_float(packed, _scales(state), tuple(state.shape))


def _scales(state: Any) -> Tensor:
    if not state.nested:
        return state.absmax.float()  # type: ignore[no-any-return]
    return from_scale_codes(state.absmax, state.state2.absmax.float(), state.offset.float())

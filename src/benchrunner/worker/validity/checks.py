"""Is this cell what its label says? Checks after the window, on facts that were gathered once.

A check that fails makes the cell invalid (`outcome.py`). One that raises or does not apply says None, never a status:
a mistake of ours must not take a measurement away.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchrunner.core.rank_result import Checks, RankResult
from benchrunner.worker.axes.precision.nf4 import packed_linears
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.validity import checks_compute, checks_function, checks_model, checks_optimizer, checks_training
from benchrunner.worker.validity.finding import Evidence, Finding, unknown
from benchrunner.worker.validity.probe import profile_once, run_probes
from benchrunner.worker.validity.sampling import Samples, local, sample, sample_parameters

if TYPE_CHECKING:
    from benchrunner.worker.steps.training_loop import TrainingLoop

CHECKS: dict[str, Callable[[Evidence], Finding]] = {
    "shape": checks_model.shape,
    "first_loss": checks_model.first_loss,
    "precision": checks_model.precision,
    "sharded": checks_model.sharded,
    "work": checks_training.work,
    "trains": checks_training.trains,
    "gradients_reduced": checks_training.gradients_reduced,
    "recompute": checks_compute.recompute,
    "compiled": checks_compute.compiled,
    "function": checks_function.function,
    "optimizer": checks_optimizer.optimizer,  # the last: it makes a step more
}
"""Check → how it judges, in the order in which failures are reported."""


def check_training(loop: "TrainingLoop", result: RankResult, initial: Samples) -> Checks:
    """All checks of a training run; enters the phase `check`. `initial`: parameters before the first step."""
    loop.context.phase("check")
    facts = _facts_at_rest(loop.built)  # before a probe can change anything
    consumed, final = tuple(loop.consumed), sample_parameters(loop.built.decoder)
    evidence = Evidence(
        context=loop.context,
        built=loop.built,
        result=result,
        probes=run_probes(loop, result["step_times_s"]),
        initial=initial,
        final=final,
        optimizer=loop.optimizer,
        num_steps=loop.num_steps,
        consumed=consumed,
        loop=loop,
        **facts,
    )
    return judge(evidence)


def check_inference(context: Context, built: Built, result: RankResult, run: Callable[[], int]) -> Checks:
    """The checks that make sense without gradients; `run` does one step and returns how many tokens it processed."""
    context.phase("check")
    facts = _facts_at_rest(built)
    samples = sample_parameters(built.decoder)  # nothing trains: as they are is as they were
    evidence = Evidence(
        context=context,
        built=built,
        result=result,
        probes=profile_once(run, context, result["step_times_s"]),
        initial=samples,
        final=samples,
        **facts,
    )
    return judge(evidence)


def _facts_at_rest(built: Built) -> dict[str, Any]:
    scales = [tensor for linear in packed_linears(built.decoder).values() for tensor in _scales(linear.quant_state)]
    return {
        "rest_bytes": storage_bytes([local(parameter) for parameter in built.decoder.parameters()]),
        "scale_bytes": storage_bytes(scales),
        "packed": sample_packed(built.decoder),
    }


def judge(evidence: Evidence) -> Checks:
    """Every check's word on the evidence."""
    return {name: _ask(check, evidence).as_dict() for name, check in CHECKS.items()}


def _ask(check: Callable[[Evidence], Finding], evidence: Evidence) -> Finding:
    try:
        return check(evidence)
    except Exception as error:
        return unknown(f"the check itself failed: {type(error).__name__}: {error}")


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages that tensors live in, each once."""
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


def sample_packed(module: nn.Module) -> Samples:
    """Bits and scales of 4-bit weights, as this rank holds them."""
    found = {}
    for name, linear in packed_linears(module).items():
        found[f"{name}.weight"] = sample(local(linear.weight).flatten().view(torch.uint8))
        found |= {f"{name} scales {i}": sample(tensor) for i, tensor in enumerate(_scales(linear.quant_state))}
    return found


def _scales(state: Any) -> list[Tensor]:
    """The tensors beside a 4-bit weight: its scales, and the scales of those."""
    nested = [state.offset, state.state2.absmax] if state.nested else []
    return [state.absmax, *nested]

"""Is this cell what its label says? Checks after the window, on facts that were gathered once.

A check that fails makes the cell invalid (`outcome.py`). One that raises or does not apply says null, never a status:
a mistake of ours must not take a measurement away.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from benchrunner.worker import checks_compute, checks_model, checks_training
from benchrunner.worker.finding import Evidence, Finding, unknown
from benchrunner.worker.probe import run_probes
from benchrunner.worker.sampling import Samples, local, sample_parameters

if TYPE_CHECKING:
    from benchrunner.worker.train import TrainingLoop

Checks = dict[str, dict[str, Any]]

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
}
"""Check → how it judges, in the order in which failures are reported."""


def check_training(loop: "TrainingLoop", result: dict[str, Any], initial: Samples) -> Checks:
    """All checks of a training run; enters the phase `check`. `initial`: parameters before the first step."""
    loop.context.phase("check")
    decoder, consumed = loop.built.decoder, tuple(loop.consumed)
    rest_bytes, final = parameter_bytes(decoder), sample_parameters(decoder)
    evidence = Evidence(
        context=loop.context,
        built=loop.built,
        result=result,
        probes=run_probes(loop, result["step_times_s"]),
        rest_bytes=rest_bytes,
        initial=initial,
        final=final,
        optimizer=loop.optimizer,
        num_steps=loop.num_steps,
        consumed=consumed,
    )
    return judge(evidence)


def judge(evidence: Evidence) -> Checks:
    """Every check's word on the evidence."""
    return {name: _ask(check, evidence).as_dict() for name, check in CHECKS.items()}


def _ask(check: Callable[[Evidence], Finding], evidence: Evidence) -> Finding:
    try:
        return check(evidence)
    except Exception as error:
        return unknown(f"the check itself failed: {type(error).__name__}: {error}")


def parameter_bytes(module: nn.Module) -> int:
    """Bytes of the storages that this rank's parameters live in, each once; with the scales of 4-bit ones."""
    storages: dict[int, int] = {}
    for parameter in module.parameters():
        for tensor in (local(parameter), *_scales(parameter)):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _scales(parameter: nn.Parameter) -> list[Tensor]:
    """The tensors beside a 4-bit weight: its scales, and the scales of those."""
    state = getattr(parameter, "quant_state", None)
    inner = getattr(state, "state2", None)
    found = [getattr(state, "absmax", None), getattr(state, "offset", None), getattr(inner, "absmax", None)]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]

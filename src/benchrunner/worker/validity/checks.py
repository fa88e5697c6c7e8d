"""Is this cell what its label says? Checks after the window, on facts that were gathered once.

A check that fails makes the cell invalid (`outcome/judge.py`). One that raises or does not apply says None, never a
status: a mistake of ours must not take a measurement away. The result is in the rank file before they begin.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchrunner.core.rank_result import RankResult
from benchrunner.worker.axes.precision.nf4 import packed_linears
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.measure.timer import synchronise
from benchrunner.worker.validity import (
    checks_compute,
    checks_data,
    checks_formats,
    checks_function,
    checks_labels,
    checks_mode,
    checks_model,
    checks_optimizer,
    checks_training,
    checks_work,
)
from benchrunner.worker.validity.exchange import Exchange, PeerSilent
from benchrunner.worker.validity.finding import Facts, Finding, unknown
from benchrunner.worker.validity.probe import Probes, run_probes
from benchrunner.worker.validity.sampling import Samples, local, sample, sample_parameters

if TYPE_CHECKING:
    from benchrunner.worker.steps.training_loop import TrainingLoop

Check = Callable[[Facts], Finding]

CHECKS: dict[str, Check] = {
    "shape": checks_model.shape,
    "first_loss": checks_model.first_loss,
    "precision": checks_model.precision,
    "formats": checks_formats.formats,
    "mode": checks_mode.mode,
    "labels": checks_labels.labels,
    "sharded": checks_model.sharded,
    "data": checks_data.data,
    "trains": checks_training.trains,
    "gradients_reduced": checks_training.gradients_reduced,
    "compiled": checks_compute.compiled,
    "recompute": checks_compute.recompute,
    "work": checks_work.work,
    "steps": checks_data.steps,
    "function": checks_function.function,
    "optimizer": checks_optimizer.optimizer,  # the last: it makes a step more
}
"""Check → how it judges, in the order in which failures are reported. `core/checks.py` says which must decide where."""


def check_training(loop: "TrainingLoop", result: RankResult, initial: Samples) -> None:
    """All checks of a training run, into `result`; enters the phase `check`. `initial`: parameters before any step."""
    loop.context.keep(result)
    exchange, num_steps = Exchange(loop.context), loop.num_steps
    at_rest = _facts_at_rest(loop.built)  # before a probe can change anything
    batches, final = tuple(loop.consumed), sample_parameters(loop.built.decoder)
    facts = Facts(
        context=loop.context,
        exchange=exchange,
        built=loop.built,
        result=result,
        probes=run_probes(loop, result["step_times_s"], exchange),
        initial=initial,
        final=final,
        optimizer=loop.optimizer,
        num_steps=num_steps,
        consumed=[tokens for tokens, _ in batches],
        targets=[targets for _, targets in batches],
        own_losses=loop.own_losses(),
        loop=loop,
        **at_rest,
    )
    ask_all(CHECKS, facts)


def check_inference(
    context: Context,
    built: Built,
    result: RankResult,
    probe: Callable[[Exchange], Probes],
    own: Mapping[str, Check],
    **more: Any,
) -> None:
    """The checks that make sense without gradients, and the workload's `own`, into `result`; enters the phase `check`.

    `probe` does what the workload's own checks need and profiles a step; all ranks agree on what came of it. `more`
    are further facts: what was consumed and came out, and what can be asked for more.
    """
    context.keep(result)
    exchange = Exchange(context)
    at_rest = _facts_at_rest(built)
    samples = sample_parameters(built.decoder)  # nothing trains: as they are is as they were
    facts = Facts(
        context=context,
        exchange=exchange,
        built=built,
        result=result,
        probes=probe(exchange),
        initial=samples,
        final=samples,
        **at_rest,
        **more,
    )
    ask_all({**CHECKS, **own}, facts)


def _facts_at_rest(built: Built) -> dict[str, Any]:
    scales = [tensor for linear in packed_linears(built.decoder).values() for tensor in _scales(linear.quant_state)]
    return {
        "rest_bytes": storage_bytes([local(parameter) for parameter in built.decoder.parameters()]),
        "scale_bytes": storage_bytes(scales),
        "packed": sample_packed(built.decoder),
    }


def ask_all(checks: Mapping[str, Check], facts: Facts) -> None:
    """Every check's word on the facts, in the rank file as soon as it is said."""
    said = facts.result["checks"] = {}
    for name, check in checks.items():
        asked_at = time.monotonic()
        finding = _ask(name, check, facts).as_dict()
        said[name] = {**finding, "seconds": round(time.monotonic() - asked_at, 3)}
        facts.context.save()
        with facts.exchange.topic(f"the end of {name}"):  # nobody enters a collective that another rank is not in
            facts.exchange.gather(None)


def _ask(name: str, check: Check, facts: Facts) -> Finding:
    """A check's word.

    Raises:
        FloatingPointError: the check met a number that is not finite.
        PeerSilent: another rank is stuck.
        RuntimeError: the check broke the device, which no other check can use any more: the cell ends in its checks.
    """
    try:
        with facts.exchange.topic(name):
            return check(facts)
    except (FloatingPointError, PeerSilent):
        raise
    except Exception as error:
        synchronise(facts.context.device, 1)
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

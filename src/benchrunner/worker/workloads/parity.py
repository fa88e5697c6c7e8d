"""Does a combination compute the right thing: the cell at small scale against formulas, and fp32 eager on one device.

Both start from identical weights and see the identical global batch. Gradients, reduced over ranks as the cell reduces
them, are compared tensor by tensor with those of the formulas in `worker/validity/reference.py`; then a curve under
plain SGD on a task that can be learned (Adam would hide the scale of a gradient, uniform tokens teach nothing).
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.lengths import sample_indices
from benchrunner.core.parity_cell import reference, small_scale
from benchrunner.core.rank_result import RankResult, TensorDifference
from benchrunner.worker.axes.attention import attention_backend, chosen_backend
from benchrunner.worker.axes.precision import nf4
from benchrunner.worker.axes.precision.formats import storage_dtype
from benchrunner.worker.context import Context
from benchrunner.worker.engines.engine import build
from benchrunner.worker.measure.meters import describe_device
from benchrunner.worker.model.weights import canonical_name
from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity.finding import Finding, unknown
from benchrunner.worker.validity.gathering import weights_of
from benchrunner.worker.validity.reference import Formulas, Question, gradients
from benchrunner.worker.workloads.parity_tolerances import Errors, tolerance

NUM_STEPS = 30
NUM_WORST = 5
"""Tensors that the record names."""

Gradients = dict[str, Tensor]
"""Canonical parameter name → whole reduced gradient, fp32."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How one tensor's gradient differs from its reference."""

    name: str
    step: int
    error: float
    """Norm of the difference ÷ norm of the reference."""
    cosine: float

    def as_dict(self) -> TensorDifference:
        """As it stands in the record."""
        return {"name": self.name, "step": self.step, "error": self.error, "cosine": self.cosine}


def run(context: Context) -> RankResult:
    """Compare as the module says and return the rank's result; there are no step times.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    context.phase("build")
    ours = _loop(_with_cell(context, small_scale(context.cell)))
    theirs = reference_loop(ours)
    context.phase("measure")
    if context.cell.config.precision.recipe == "delayed":
        ours.take_history()
    differences = compare_gradients(ours, theirs)
    curves = _curve(ours), _curve(theirs)
    context.phase("check")
    errors = summarise(differences, *curves)
    worst = sorted(differences, key=lambda difference: -difference.error)[:NUM_WORST]
    return {
        "workload": "parity",
        "device": describe_device(context.device),
        "step_times_s": [],
        "losses": [],
        "metrics": {
            "parity_gradient_error": errors.gradient,
            "parity_cosine": 1 - errors.cosine,
            "parity_curve_error": errors.curve,
        },
        "parity": {
            "losses": curves[0],
            "reference_losses": curves[1],
            "worst_tensors": [difference.as_dict() for difference in worst],
        },
        "choices": {"attention": _attention(ours), **ours.choices()},
        "checks": {"parity": within_tolerance(context.cell.axes["precision"], errors, worst).as_dict()},
    }


class ParityLoop(TrainingLoop):
    """A training loop on the task that can be learned."""

    def prepare(self, steps: range) -> None:
        """Draw the batches of these steps onto the device."""
        for step in steps:
            batches = draw_task_step(self._cell, step, self.context.rank, self.context.device)
            self._batches[step], self._shares[step] = batches, [1 / len(batches)] * len(batches)

    def batches(self, step: int) -> list[Tensor]:
        """The micro-batches of a step that was prepared."""
        return self._batches[step]

    def take_history(self) -> None:
        """A pass without an update: delayed scaling has its scales from the pass before, and the first has none."""
        with attention_backend(self._cell):
            self.prepare(range(1))
            self.accumulate(self._batches.pop(0), shares=self._shares.pop(0))
        self.optimizer.zero_grad(set_to_none=True)


def draw_task_step(cell: Cell, step: int, rank: int, device: torch.device) -> list[Tensor]:
    """This rank's micro-batches of a step, each [micro_batch_size, seq_len + 1]: samples start anywhere and walk a
    permutation of the vocabulary, so each token tells the next.
    """
    seed, length, vocab_size = cell.config.seed, cell.sizes.seq_len, cell.config.model.vocab_size
    successor = np.random.Generator(np.random.Philox(key=np.array([seed, 1], dtype=np.uint64))).permutation(vocab_size)
    walks = np.empty((length + 1, vocab_size), dtype=np.int64)
    walks[0] = np.arange(vocab_size)
    for position in range(length):
        walks[position + 1] = successor[walks[position]]
    key = np.array([seed, 2], dtype=np.uint64)
    batches = []
    for indices in sample_indices(cell, rank):
        counters = [np.array([0, 0, index, step], dtype=np.uint64) for index in indices]
        starts = [np.random.Generator(np.random.Philox(key=key, counter=c)).integers(vocab_size) for c in counters]
        batches.append(torch.from_numpy(walks[:, starts].T.copy()).to(device))
    return batches


# --- the two loops


def _with_cell(context: Context, cell: Cell) -> Context:
    """The same rank, with another cell."""
    other = copy.copy(context)
    other.cell = cell
    return other


def _loop(context: Context) -> ParityLoop:
    with attention_backend(context.cell):
        return ParityLoop(context, build(context))


def reference_loop(ours: ParityLoop) -> ParityLoop:
    """fp32, eager, alone on this rank's device, from the values that the cell's parameters really start with."""
    context = _with_cell(ours.context, reference(ours.context.cell))
    context.rank, context.world_size = 0, 1
    loop = _loop(context)
    _round_weights(loop.built.decoder, ours)
    return loop


@torch.no_grad()
def _round_weights(decoder: nn.Module, ours: ParityLoop) -> None:
    """What storing costs is the label's own; parity is about computing: 16-bit and 4-bit values are taken over."""
    cell, device = ours.context.cell, ours.context.device
    linears = nf4.packed_linears(ours.built.decoder)
    packed = {f"{name}.weight": linear.quant_state.dtype for name, linear in linears.items()}
    for raw_name, parameter in decoder.named_parameters():
        name = canonical_name(raw_name)
        if name in packed:
            linear = name.removesuffix(".weight")
            parameter.copy_(nf4.dequantised(linear, parameter.shape, cell, device, packed[name]))
        else:
            parameter.copy_(parameter.to(storage_dtype(cell)))


# --- gradients


def compare_gradients(ours: ParityLoop, theirs: ParityLoop) -> list[Difference]:
    """Every trainable tensor after the first backward pass; after the second too where the base is frozen.

    LoRA's A and adapter prompts have no gradient before their other half has moved.
    """
    num_steps = 2 if ours.context.cell.axes["workload"] in arithmetic.PEFT_WORKLOADS else 1
    found = []
    for step in range(num_steps):
        right = right_gradients(theirs, step)
        own, _ = [_gradients(loop, step) for loop in (ours, theirs)]
        found += [_difference(name, step, own.get(name), wanted) for name, wanted in right.items()]
    return found


def right_gradients(theirs: ParityLoop, step: int) -> Gradients:
    """What the formulas of the family say of the reference's weights and batch: the reference loop itself runs the
    code that is under test.
    """
    theirs.prepare(range(step, step + 1))
    (batch,) = theirs.batches(step)
    tokens, targets = batch[:, :-1], batch[:, 1:]
    weights = torch.full(tokens.shape, 1 / tokens.numel(), device=tokens.device)
    config = theirs.context.cell.config
    formulas = Formulas(model=config.model, workload=config.workload)
    question = Question(tokens=tokens, targets=targets, weights=weights)
    found: Gradients = {}
    for unit, slopes in gradients(formulas, weights_of(theirs.built), question):
        prefix = "" if unit is None else f"blocks.{unit}."
        found |= {f"{prefix}{name}": slope for name, slope in slopes.items()}
    return found


def _gradients(loop: ParityLoop, step: int) -> Gradients:
    """The gradients of one step, which is then applied."""
    with attention_backend(loop.context.cell):
        loop.prepare(range(step, step + 1))
        loop.backward(step)
        scale = loop.loss_scale()
        named = list(loop.built.decoder.named_parameters())
        found = {canonical_name(n): _whole(p.grad).float() / scale for n, p in named if p.grad is not None}
        loop.apply()
    return found


def _whole(gradient: Tensor) -> Tensor:
    return (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).detach().clone()


def _difference(name: str, step: int, found: Tensor | None, wanted: Tensor) -> Difference:
    """A gradient that is missing is one of zeros."""
    wanted = wanted.double()
    found = torch.zeros_like(wanted) if found is None else found.double()
    norm, other = float(wanted.norm()), float(found.norm())
    if norm == 0:
        return Difference(name, step, 0.0 if other == 0 else math.inf, 1.0 if other == 0 else 0.0)
    cosine = float(found.flatten() @ wanted.flatten()) / max(norm * other, 1e-300)
    return Difference(name, step, float((found - wanted).norm()) / norm, cosine)


# --- the curve and the verdict


def _curve(loop: ParityLoop) -> list[float]:
    """The mean loss of every step, those of the gradients' comparison included."""
    steps = range(loop.num_steps, NUM_STEPS)
    with attention_backend(loop.context.cell):
        loop.prepare(steps)
        for step in steps:
            loop.step(step)
    return loop.mean_losses()


def summarise(differences: list[Difference], losses: list[float], reference_losses: list[float]) -> Errors:
    """The worst of everything.

    Raises:
        FloatingPointError: a loss is not finite.
    """
    bad = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is not None:
        raise FloatingPointError(f"the loss of step {bad} is {losses[bad]}")
    return Errors(
        gradient=min(max(difference.error for difference in differences), 1e9),
        cosine=max(1 - difference.cosine for difference in differences),
        curve=max(abs(ours - theirs) for ours, theirs in zip(losses, reference_losses, strict=True)),
    )


def within_tolerance(precision: str, errors: Errors, worst: list[Difference]) -> Finding:
    """Within three times the error of a known-good run of that precision."""
    limits = tolerance(precision)
    if limits is None:
        return unknown(f"no known-good run of precision={precision} was measured yet")
    return Finding(
        ok=errors.within(limits),
        expected=_words(limits, "at most "),
        observed=_words(errors),
        note=f"largest gradient error in {worst[0].name}",
    )


def _words(errors: Errors, most: str = "") -> str:
    """Short enough for a table's sentence."""
    return f"{most}gradient {errors.gradient:.2g}, 1 − cosine {errors.cosine:.2g}, curve {errors.curve:.2g}"


def _attention(loop: ParityLoop) -> str:
    with attention_backend(loop.context.cell):
        return chosen_backend(loop.context.cell, loop.context.device)

"""Does the measured model compute what its label says: asked as it was measured, judged by formulas of our own.

All targets of a step are ignored but a few early ones: then the loss is that of these places alone, and a reference
that computes a prefix of some tens of tokens knows it and every gradient. Nothing but data changes: loop, wrappers,
graphs, shapes, precision and loss scale are those that were measured. Three questions: the prefix, the same with
everything behind it changed, and late places, for which the formulas are computed to the end of the sequence.
"""

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity.finding import Evidence, Finding, unknown
from benchrunner.worker.validity.function_tolerances import NUM_LAYERS, FunctionErrors, tolerance
from benchrunner.worker.validity.gathering import gradients_of, own_parameters, weights_of
from benchrunner.worker.validity.questions import STEP, Asked, affordable_steps, budget_s, early, late
from benchrunner.worker.validity.reference import Formulas, gradients, losses
from benchrunner.worker.validity.sampling import local

NEGLIGIBLE = 1e-5
"""Of its matrix's gradient: a part below it has none but rounding errors (keys' biases, which softmax cancels)."""
MOST_TRIES = 10
MOST_ERROR = 1e9
"""Stands for an error that is not finite."""
FLOPS_PER_SECOND = {"cpu": 2e10, "cuda": 2e13}
"""What plain fp32 reaches at least, to know what fits into the budget."""
PROMISED = "loss and gradients as the formulas have them"


def function(evidence: Evidence) -> Finding:
    """Losses and gradients of the measured step agree with the formulas of the model family."""
    if evidence.loop is None:
        return unknown("this workload has no training loop to ask")
    if why := _unasked(evidence):
        return unknown(why)
    num_steps = affordable_steps(evidence)
    if num_steps < 1:
        return unknown("the budget has no room for a step")
    if foreign := _foreign_names(evidence):
        return Finding(ok=False, expected="the parameters of the model family", observed=foreign)
    inquiry = Inquiry(evidence, evidence.loop, num_steps)
    inquiry.run()
    return inquiry.finding()


def _unasked(evidence: Evidence) -> str | None:
    """Why the check abstains, if it has to; the same on every rank."""
    cell = evidence.cell
    if not hasattr(evidence.built.decoder, "blocks"):
        return "the compiler's own strategies made another model of the decoder"
    if cell.config.model.dropout > 0 and _draws(evidence):
        return f"model.dropout={cell.config.model.dropout:g} compiled: the formulas cannot draw the same values"
    return None


def _foreign_names(evidence: Evidence) -> str | None:
    """What the model has too little or too much of."""
    formulas = _formulas(evidence)
    if len(evidence.built.decoder.blocks) != formulas.model.num_layers:
        return f"{len(evidence.built.decoder.blocks)} blocks"
    for unit in (None, *range(formulas.model.num_layers)):
        names, wanted = set(own_parameters(evidence.built, unit)), formulas.names(unit)
        where = "" if unit is None else f" in block {unit}"
        if missing := sorted(wanted - names):
            return f"no {missing[0]}{where}"
        if more := sorted(names - wanted):
            return f"{more[0]}{where}, which the formulas do not have"
    return None


def _formulas(evidence: Evidence) -> Formulas:
    model, config = evidence.cell.config.model, evidence.cell.config
    packs_head = config.precision.backend == "bitsandbytes" and config.precision.scope == "all"
    return Formulas(
        model=replace(model, tie_embeddings=model.tie_embeddings and not packs_head), workload=config.workload
    )


@dataclass(slots=True)
class Inquiry:
    """The three questions and how far the answers were from the right ones."""

    evidence: Evidence
    loop: TrainingLoop
    num_steps: int
    """What the budget has room for."""
    errors: FunctionErrors = field(default_factory=FunctionErrors)
    worst: str = ""
    """The part whose gradient was furthest off."""
    moved: float = 0.0
    """By how much the early loss changed with what stands behind."""
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Ask what the budget has room for; the loop is left without gradients and with its own counts."""
        num_consumed = len(self.loop.consumed)
        with undropped(self.evidence):
            self._ask_early()
            self._ask_late()
        self.loop.optimizer.zero_grad(set_to_none=True)
        del self.loop.consumed[num_consumed:]

    def _ask_early(self) -> None:
        asked = early(self.loop.context)
        before = self._answer(asked)
        self._compare(asked, before)
        if self.num_steps < 2:
            self.notes.append("not asked again with other tokens behind: the budget has no room for a second step")
            return
        after = self._answer(early(self.loop.context, behind=1))
        self.moved = abs(after - before)

    def _ask_late(self) -> None:
        asked = late(self.loop.context)
        tokens = asked.question.tokens.numel()
        forward_s = 2.0 * tokens * self.evidence.built.num_parameters / FLOPS_PER_SECOND[self.loop.context.device.type]
        room_s = budget_s(self.evidence) / 2
        if self.num_steps < 3 or forward_s > room_s:
            self.notes.append(f"places after the prefix not asked for: the formulas take {forward_s:.0f} s")
            return
        answer = self._answer(asked)
        self._compare(asked, answer, with_gradients=4 * forward_s <= room_s)

    def _answer(self, asked: Asked) -> float:
        """This rank's loss; its gradients are left in place.

        Few targets make large gradients: where they overflow, the step is skipped, which lowers the loss scale and
        changes nothing else.
        """
        for _ in range(MOST_TRIES):
            self.loop.optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(0)
            loss = self.loop.ask(STEP, asked.batches)
            if not self._overflowed():
                return loss
            self.loop.apply()
        raise RuntimeError("gradients overflow under every loss scale")

    def _overflowed(self) -> bool:
        """Whether any rank has a gradient that the loss scale made infinite."""
        if self.loop.loss_scale() == 1:
            return False
        gradients = [one.grad for one in self.evidence.built.decoder.parameters() if one.grad is not None]
        is_over = torch.tensor(float(any(not bool(local(one).isfinite().all()) for one in gradients)))
        is_over = is_over.to(self.loop.context.device)
        if self.evidence.several_ranks:
            dist.all_reduce(is_over, dist.ReduceOp.MAX)
        return bool(is_over)

    def _compare(self, asked: Asked, loss: float, *, with_gradients: bool = True) -> None:
        formulas, source = _formulas(self.evidence), weights_of(self.evidence.built)
        right = float(losses(formulas, source, asked.question) @ asked.own)
        self.errors = self.errors.worst(FunctionErrors(loss=_finite(abs(loss - right))))
        if not with_gradients:
            return
        question = replace(asked.question, weights=asked.question.weights * asked.all[:, None])
        parts: dict[str, tuple[float, float]] = {}
        for unit, wanted in gradients(formulas, source, question):
            found = gradients_of(self.evidence.built, unit, self.loop.loss_scale())
            prefix = "" if unit is None else f"blocks.{unit}."
            for name, gradient in wanted.items():
                parts |= _part_errors(formulas, prefix, name, found[name], gradient)
        self._note_parts(parts)

    def _note_parts(self, parts: dict[str, tuple[float, float]]) -> None:
        error, name = max(((error, name) for name, (error, _) in parts.items()), default=(0.0, ""))
        if error > self.errors.gradient or not self.worst:
            self.worst = name
        self.errors = self.errors.worst(
            FunctionErrors(
                gradient=error,
                median=statistics.median([error for error, _ in parts.values()] or [0.0]),
                scale=statistics.median([scale for _, scale in parts.values()] or [0.0]),
            )
        )

    def finding(self) -> Finding:
        """The verdict over all ranks: the same on each."""
        cell = self.evidence.cell
        dropout = cell.config.workload.lora_dropout if _draws(self.evidence) else 0.0
        limits = tolerance(cell.axes["precision"], cell.config.model.num_layers, dropout)
        errors, moved = self._agreed()
        as_found = asdict(errors) | {NUM_LAYERS: float(cell.config.model.num_layers)}
        if limits is None:
            why = f"no known-good run of precision={cell.axes['precision']} was measured yet"
            return Finding(ok=None, observed=f"{_words(errors)}, moved {moved:.2g}", note=why, errors=as_found)
        most_moved = 0.0 if _is_row_by_row(self.evidence) else limits.loss
        over = [*errors.exceeding(limits), *(["what stands behind counts"] if not moved <= most_moved else [])]
        return Finding(
            ok=not over,
            expected=f"{PROMISED}: at most {_words(limits)}, moved {most_moved:.2g}",
            observed=f"{_words(errors)}, moved {moved:.2g}",
            note="; ".join([f"largest gradient error in {self.worst}", *self.notes]),
            errors=as_found,
        )

    def _agreed(self) -> tuple[FunctionErrors, float]:
        values = torch.tensor([*asdict(self.errors).values(), _finite(self.moved)], dtype=torch.float64)
        values = values.to(self.loop.context.device)
        if self.evidence.several_ranks:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        *errors, moved = values.tolist()
        return FunctionErrors(*errors), moved


def _draws(evidence: Evidence) -> bool:
    """Whether something in the asked model drops values at random: a graph has that compiled in, eager can be told."""
    config = evidence.cell.config
    drops = config.model.dropout > 0 or (config.workload.name == "lora" and config.workload.lora_dropout > 0)
    return drops and evidence.cell.axes["compile"] != "eager"


@contextmanager
def undropped(evidence: Evidence) -> Iterator[None]:
    """Inside, nothing is dropped at random, where that does not need another graph."""
    modules = [] if evidence.cell.axes["compile"] != "eager" else list(evidence.built.model.modules())
    dropping = [
        part for part in modules if part.training and (isinstance(part, nn.Dropout) or hasattr(part, "dropout"))
    ]
    for module in dropping:
        module.training = False
    try:
        yield
    finally:
        for module in dropping:
            module.training = True


def _is_row_by_row(evidence: Evidence) -> bool:
    """Whether a token's values depend on no other's but by attention: scales of 8-bit formats are taken over many."""
    config = evidence.cell.config
    return config.precision.backend in ("torch", "bitsandbytes") or config.precision.recipe == "rowwise"


def _part_errors(
    formulas: Formulas, prefix: str, name: str, found: Tensor | None, wanted: Tensor
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Name of each part of a parameter → relative error of its gradient, and of its projection on the right one."""
    found = torch.zeros_like(wanted) if found is None else found
    least = NEGLIGIBLE * float(wanted.norm())
    pairs = zip(formulas.parts(name, found).items(), formulas.parts(name, wanted).values(), strict=True)
    for (part, ours), theirs in pairs:
        norm = float(theirs.norm())
        if norm > least:
            product = float((ours * theirs).sum())
            yield prefix + part, (_finite(float((ours - theirs).norm()) / norm), _finite(abs(product / norm**2 - 1)))
        elif norm == 0 and bool(ours.any()):
            yield prefix + part, (MOST_ERROR, MOST_ERROR)


def _finite(value: float) -> float:
    return min(value, MOST_ERROR) if math.isfinite(value) else MOST_ERROR


def _words(errors: FunctionErrors) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in asdict(errors).items())

"""The three questions that a training loop is asked, and how far its answers are from those of the formulas.

All targets of a step are ignored but a few early ones: then the loss is that of these places alone, and a reference
that computes a prefix of some tens of tokens knows it and every gradient. Asked again, everything behind the prefix is
different; asked the last time, the places are late and the formulas go to the end of the sequence.
"""

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn

from benchrunner.worker.steps.training_loop import TrainingLoop
from benchrunner.worker.validity.finding import Facts
from benchrunner.worker.validity.function_tolerances import FunctionErrors
from benchrunner.worker.validity.gathering import gradients_of, weights_of
from benchrunner.worker.validity.questions import (
    JUDGED_STEPS,
    MOST_FEW,
    STEP,
    Asked,
    affordable_micro_steps,
    budget_s,
    early,
    late,
)
from benchrunner.worker.validity.reference import Formulas, Question, gradients, losses
from benchrunner.worker.validity.rounding import Rounded, unit_roundoff
from benchrunner.worker.validity.sampling import local

NEGLIGIBLE = 1e-5
"""Of its matrix's gradient: a part below it has none but rounding errors (keys' biases, which softmax cancels)."""
EXPLAINED = 6.0
"""Times what rounding alone does to a gradient: healthy cells have up to 4.0 in fp32 and 2.7 in bf16, in any part."""
MIN_ELEMENTS = 64
"""Of a gradient that says something of the scale of all."""
FEW_PARTS = 8
"""Of fewer a median is less sure."""
Parts = dict[str, tuple[float, float, int]]
"""Part of a parameter → relative error of its gradient, error of its projection, elements."""
MOST_TRIES = 10
MOST_ERROR = 1e9
"""Stands for an error that is not finite."""
ATTENDING = ("(query)", "(key)")
"""Ends of the names of parts that attention's own function shows in."""
FLOPS_PER_SECOND = {"cpu": 2e10, "cuda": 2e13}
"""What plain fp32 reaches at least, to know what fits into the budget."""


@dataclass(slots=True)
class Answers:
    """How far the answers were from the right ones, on this rank."""

    errors: FunctionErrors = field(default_factory=FunctionErrors)
    worst: str = ""
    """The part whose gradient was furthest off."""
    moved: float = 0.0
    """By how much the early loss changed with what stands behind."""
    notes: list[str] = field(default_factory=list)
    is_attention_judged: bool = True
    """Whether the gradients of any block's queries or keys say something: rounding can be all that there is."""


@dataclass(slots=True, kw_only=True)
class Inquiry:
    """The three questions to a training loop."""

    facts: Facts
    loop: TrainingLoop
    formulas: Formulas
    limits: FunctionErrors | None
    """None where there are none for the precision."""
    num_micro: int
    """Micro-batches that the first question is asked with: those of a step, or fewer where the budget has no room for
    one."""
    answers: Answers = field(default_factory=Answers)

    @property
    def num_few(self) -> int:
        """Micro-batches of the questions after the first, which has shown that all of a step count."""
        return min(self.num_micro, MOST_FEW)

    def run(self) -> Answers:
        """Ask what the budget has room for; the loop is left without gradients and with its own counts."""
        num_consumed, num_all = len(self.loop.consumed), self.facts.cell.sizes.accumulation_steps
        if self.num_micro < num_all:
            self.answers.notes.append(
                f"asked with {self.num_micro} of {num_all} micro-batches: the budget has no room for a whole step"
            )
        with _undropped(self.facts):
            self._ask_early()
            self._ask_late()
        self.loop.optimizer.zero_grad(set_to_none=True)
        del self.loop.consumed[num_consumed:]
        return self.answers

    def _ask_early(self) -> None:
        asked = self._made(lambda: early(self.loop.context, self.num_micro))
        before = self._answer(asked)
        self._compare(asked, before)
        few = self.num_few
        if not self._has_room(few if few == self.num_micro else 2 * few):
            self.answers.notes.append(
                "not asked again with other tokens behind: the budget has no room for a second step"
            )
            return
        if few < self.num_micro:
            asked = self._made(lambda: early(self.loop.context, few))
            before = self._answer(asked)
        after = self._answer(self._made(lambda: early(self.loop.context, few, behind=1)))
        self.answers.moved = abs(after - before) / _counted(asked)

    def _has_room(self, num_micro: int) -> bool:
        """For so many micro-batches more; some are kept for the check `optimizer`."""
        return affordable_micro_steps(self.facts) >= num_micro + JUDGED_STEPS

    def _ask_late(self) -> None:
        if not self._has_room(self.num_few):
            self.answers.notes.append("places after the prefix not asked for: the budget has no room for one step more")
            return
        asked = self._made(lambda: late(self.loop.context, self.num_few))
        tokens = asked.question.tokens.numel()
        late_s, room_s = forward_s(self.facts, tokens), budget_s(self.facts) / 2
        if late_s > room_s:
            self.answers.notes.append(f"places after the prefix not asked for: the formulas take {late_s:.0f} s")
            return
        answer = self._answer(asked)
        self._compare(asked, answer, with_gradients=4 * late_s <= room_s)

    def _made(self, make: Callable[[], Asked]) -> Asked:
        """A question, where every rank has one: data that a rank does not expect have no place for it."""
        return self.facts.exchange.together(make)

    def _answer(self, asked: Asked) -> float:
        """This rank's loss; its gradients are left in place.

        Few targets make large gradients: where they overflow, the step is skipped, which lowers the loss scale and
        changes nothing else.
        """
        for _ in range(MOST_TRIES):
            self.loop.optimizer.zero_grad(set_to_none=True)
            torch.manual_seed(0)
            loss = self.loop.ask(STEP, asked.batches, asked.weight)
            if not self._overflowed():
                return loss
            self.loop.apply()
        raise RuntimeError("gradients overflow under every loss scale")

    def _overflowed(self) -> bool:
        """Whether any rank has a gradient that the loss scale made infinite."""
        if self.loop.loss_scale() == 1:
            return False
        gradients = [one.grad for one in self.facts.built.decoder.parameters() if one.grad is not None]
        is_over = any(not bool(local(one).isfinite().all()) for one in gradients)
        return any(self.facts.exchange.gather(is_over))

    def _compare(self, asked: Asked, loss: float, *, with_gradients: bool = True) -> None:
        formulas, source = self.formulas, weights_of(self.facts.built)
        right = float(losses(formulas, source, replace(asked.question, weights=asked.own)).sum())
        self.answers.errors = self.answers.errors.worst(
            FunctionErrors(loss=finite(abs(loss - right) / _counted(asked)))
        )
        if not with_gradients:
            return
        parts: Parts = {}
        for unit, wanted in gradients(formulas, source, asked.question):
            found = gradients_of(self.facts.built, unit, self.loop.loss_scale() * asked.weight)
            prefix = "" if unit is None else f"blocks.{unit}."
            for name, gradient in wanted.items():
                parts |= _part_errors(formulas, prefix, name, found[name], gradient)
        self._note_parts(self._unexplained(asked.question, parts))

    def _unexplained(self, question: Question, parts: Parts) -> Parts:
        """The parts without those that are too far off, but no further than rounding alone can bring them."""
        if self.limits is None or self.facts.exchange.most(_largest(parts))[0] <= self.limits.gradient:
            return parts
        most = self.limits.gradient
        moved = _moved_by_rounding(self.facts, self.formulas, question)
        kept = {name: part for name, part in parts.items() if not most < part[0] <= EXPLAINED * moved.get(name, 0.0)}
        if vague := parts.keys() - kept.keys():
            self.answers.notes.append(
                f"{len(vague)} of {len(parts)} gradients are smaller than what rounding does to them"
            )
        self.answers.is_attention_judged &= any(name.endswith(ATTENDING) for name in kept)
        return kept

    def _note_parts(self, parts: Parts) -> None:
        error, name = max(((error, name) for name, (error, _, _) in parts.items()), default=(0.0, ""))
        if error > self.answers.errors.gradient or not self.answers.worst:
            self.answers.worst = name
        self.answers.errors = self.answers.errors.worst(
            FunctionErrors(
                gradient=error,
                median=statistics.median([error for error, _, _ in parts.values()] or [0.0]),
                scale=_scale(parts),
            )
        )


def _counted(asked: Asked) -> float:
    """What the places asked for count in this rank's loss: 1, or less where not all micro-batches were asked."""
    return float(asked.own.sum())


def _largest(parts: Parts) -> float:
    return max((part[0] for part in parts.values()), default=0.0)


def _moved_by_rounding(facts: Facts, formulas: Formulas, question: Question) -> dict[str, float]:
    """Part → relative change of its gradient when each result of the formulas is off by its rounding."""
    shape = {field.name: getattr(formulas, field.name) for field in fields(formulas)}
    rounded = Rounded(**shape, roundoff=unit_roundoff(facts.cell.config.precision))
    source, found = weights_of(facts.built), dict[str, float]()
    pairs = zip(gradients(formulas, source, question), gradients(rounded, source, question), strict=True)
    for (unit, exact), (_, moved) in pairs:
        prefix = "" if unit is None else f"blocks.{unit}."
        for name, gradient in exact.items():
            found |= {part: one[0] for part, one in _part_errors(formulas, prefix, name, moved[name], gradient)}
    return found


@contextmanager
def _undropped(facts: Facts) -> Iterator[None]:
    """Inside, nothing is dropped at random, where that does not need another graph."""
    modules = [] if facts.cell.axes["compile"] != "eager" else list(facts.built.model.modules())
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


def _part_errors(
    formulas: Formulas, prefix: str, name: str, found: Tensor | None, wanted: Tensor
) -> Iterator[tuple[str, tuple[float, float, int]]]:
    """Name of each part of a parameter → relative error of its gradient, and of its projection on the right one; its
    elements.
    """
    found = torch.zeros_like(wanted) if found is None else found
    least = NEGLIGIBLE * float(wanted.norm())
    pairs = zip(formulas.parts(name, found).items(), formulas.parts(name, wanted).values(), strict=True)
    for (part, ours), theirs in pairs:
        norm = float(theirs.norm())
        if norm > least:
            product = float((ours * theirs).sum())
            error, scale = float((ours - theirs).norm()) / norm, abs(product / norm**2 - 1)
            yield prefix + part, (finite(error), finite(scale), theirs.numel())
        elif norm == 0 and bool(ours.any()):
            yield prefix + part, (MOST_ERROR, MOST_ERROR, theirs.numel())


def _scale(parts: Parts) -> float:
    """The median error of scale, less of it where few parts make it (an adapter has two)."""
    scales = _large(parts) or [0.0]
    return statistics.median(scales) * min(1.0, math.sqrt(len(scales) / FEW_PARTS))


def _large(parts: Parts) -> list[float]:
    """The errors of scale: rounding turns a gradient of a few elements along itself too."""
    all_scales = [scale for _, scale, _ in parts.values()]
    return [scale for _, scale, elements in parts.values() if elements >= MIN_ELEMENTS] or all_scales


def forward_s(facts: Facts, num_tokens: int) -> float:
    """Seconds that the formulas take at most for a forward pass of so many tokens."""
    return 2.0 * num_tokens * facts.built.num_parameters / FLOPS_PER_SECOND[facts.context.device.type]


def finite(value: float) -> float:
    """The value, or the most that a record can hold."""
    return min(value, MOST_ERROR) if math.isfinite(value) else MOST_ERROR

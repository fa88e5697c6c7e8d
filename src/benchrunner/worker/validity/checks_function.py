"""Does the measured model compute what its label says: asked as it was measured, judged by formulas of our own.

Nothing but data changes: loop, wrappers, graphs, shapes, precision and loss scale are those that were measured.
Training answers with losses and gradients, a forward pass with logits, a generation with logits and its cache.
"""

from collections.abc import Callable
from dataclasses import asdict, replace

from torch import Tensor

from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.validity.finding import Facts, Finding, unknown
from benchrunner.worker.validity.function_tolerances import NUM_LAYERS, FunctionErrors, tolerance
from benchrunner.worker.validity.gathering import own_parameters, weights_of
from benchrunner.worker.validity.inference_questions import Judge, forward_errors, generation_errors
from benchrunner.worker.validity.inquiry import Answers, Inquiry, finite, forward_s
from benchrunner.worker.validity.louder import draws, louder
from benchrunner.worker.validity.questions import NUM_QUESTIONS, NUM_SEQUENCES, affordable, budget_s
from benchrunner.worker.validity.reference import Formulas

MEASURED = {
    "training": ("gradient", "median", "scale", "loss"),
    "forward": ("logits", "context"),
    "generation": ("logits", "context", "cache"),
}
"""What is asked of → the errors that it has."""


def function(facts: Facts) -> Finding:
    """Losses and gradients of the measured step agree with the formulas of the model family."""
    if why := _unasked(facts):
        return unknown(why)
    num_steps, num_micro = affordable(facts, NUM_QUESTIONS)
    if num_steps < 1:
        return unknown("the budget has no room for a step")
    if foreign := _foreign_names(facts):
        return Finding(ok=False, expected="the parameters of the model family", observed=foreign)
    answers = _answers(facts, num_micro)
    return unknown("this workload has nothing that can be asked") if answers is None else _finding(facts, answers)


def _answers(facts: Facts, num_micro: int) -> Answers | None:
    formulas = _formulas(facts)
    with louder(facts.built, facts.cell, facts.exchange):
        if facts.loop is not None:
            return Inquiry(
                facts=facts,
                loop=facts.loop,
                formulas=formulas,
                limits=_limits(facts),
                num_micro=num_micro,
            ).run()
        judge = Judge(formulas=formulas, source=weights_of(facts.built))
        if facts.decoding is not None:
            return _generation_answers(facts, judge, facts.decoding)
        return None if facts.logits is None else _forward_answers(facts, judge, facts.logits)


def _generation_answers(facts: Facts, judge: Judge, decoding: Decoding) -> Answers:
    options = facts.cell.config.generate
    late_s = forward_s(facts, (options.prompt_length + options.new_tokens) * NUM_SEQUENCES)
    is_late = late_s <= budget_s(facts)
    answers = Answers(errors=generation_errors(facts.context, judge, decoding, late=is_late))
    if not is_late:
        answers.notes.append(f"a sample's last token not asked for: the formulas take {late_s:.0f} s")
    return answers


def _forward_answers(facts: Facts, judge: Judge, logits: Callable[[Tensor], Tensor]) -> Answers:
    errors, moved = forward_errors(facts.context, judge, logits, late=False)
    answers = Answers(errors=errors, moved=moved)
    late_s = forward_s(facts, facts.cell.sizes.seq_len * NUM_SEQUENCES)
    if late_s > budget_s(facts):
        answers.notes.append(f"places after the prefix not asked for: the formulas take {late_s:.0f} s")
        return answers
    answers.errors = errors.worst(forward_errors(facts.context, judge, logits, late=True)[0])
    return answers


def _unasked(facts: Facts) -> str | None:
    """Why the check abstains, if it has to; the same on every rank."""
    cell = facts.cell
    if cell.config.model.dropout > 0 and draws(cell):
        return f"model.dropout={cell.config.model.dropout:g} compiled: the formulas cannot draw the same values"
    return None


def _foreign_names(facts: Facts) -> str | None:
    """What the model has too little or too much of."""
    formulas = _formulas(facts)
    if len(facts.built.decoder.blocks) != formulas.model.num_layers:
        return f"{len(facts.built.decoder.blocks)} blocks"
    for unit in (None, *range(formulas.model.num_layers)):
        names, wanted = set(own_parameters(facts.built, unit)), formulas.names(unit)
        where = "" if unit is None else f" in block {unit}"
        if missing := sorted(wanted - names):
            return f"no {missing[0]}{where}"
        if more := sorted(names - wanted):
            return f"{more[0]}{where}, which the formulas do not have"
    return None


def _formulas(facts: Facts) -> Formulas:
    model, config = facts.cell.config.model, facts.cell.config
    packs_head = config.precision.backend == "bitsandbytes" and config.precision.scope == "all"
    return Formulas(
        model=replace(model, tie_embeddings=model.tie_embeddings and not packs_head), workload=config.workload
    )


def _finding(facts: Facts, answers: Answers) -> Finding:
    """The verdict over all ranks: the same on each."""
    cell = facts.cell
    limits = _limits(facts)
    errors, moved = _agreed(facts, answers)
    names = MEASURED["training" if facts.loop else "generation" if facts.decoding else "forward"]
    as_found = {name: getattr(errors, name) for name in names} | {NUM_LAYERS: float(cell.config.model.num_layers)}
    if limits is None:
        why = f"no known-good run of precision={cell.axes['precision']} was measured yet"
        return Finding(ok=None, observed=f"{_words(errors, names)}, moved {moved:.2g}", note=why, errors=as_found)
    may_move = limits.loss if facts.loop else limits.logits
    most_moved = 0.0 if _is_row_by_row(facts) else may_move
    if not all(facts.exchange.gather(answers.is_attention_judged)) and not errors.exceeding(limits):
        why = "rounding is all that the gradients of queries and keys show"
        return Finding(ok=None, observed=f"{_words(errors, names)}, moved {moved:.2g}", note=why, errors=as_found)
    over = [*errors.exceeding(limits), *(["what stands behind counts"] if not moved <= most_moved else [])]
    return Finding(
        ok=not over,
        expected=f"as the formulas have it: {_words(limits, names)}, moved {most_moved:.2g} at most",
        observed=f"{_words(errors, names)}, moved {moved:.2g}",
        note="; ".join(
            [*([f"largest gradient error in {answers.worst}"] if answers.worst else []), *dict.fromkeys(answers.notes)]
        )
        or None,
        errors=as_found,
    )


def _limits(facts: Facts) -> FunctionErrors | None:
    """What is allowed to the cell."""
    cell = facts.cell
    dropout = cell.config.workload.lora_dropout if draws(cell) else 0.0
    return tolerance(cell.axes["precision"], cell.config.model.num_layers, dropout)


def _agreed(facts: Facts, answers: Answers) -> tuple[FunctionErrors, float]:
    *errors, moved = facts.exchange.most(*asdict(answers.errors).values(), finite(answers.moved))
    return FunctionErrors(*errors), moved


def _is_row_by_row(facts: Facts) -> bool:
    """Whether a token's values depend on no other's but by attention: scales of 8-bit formats are taken over many."""
    config = facts.cell.config
    return config.precision.backend in ("torch", "bitsandbytes") or config.precision.recipe == "rowwise"


def _words(errors: FunctionErrors, names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {getattr(errors, name):.2g}" for name in names)

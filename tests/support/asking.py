"""Facts of small cells for the checks that ask for more steps, with a lie or without, in this process."""

from benchrunner.core.faults import parse_fault
from benchrunner.worker.axes.attention import attention_backend
from benchrunner.worker.engines.engine import build
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.validity.exchange import Exchange
from benchrunner.worker.validity.finding import Facts
from benchrunner.worker.validity.probe import Probes
from benchrunner.worker.workloads import forward, generate, train
from cells import make_cell, make_context

SMALL = ["model.num_layers=2", "model.vocab_size=256", "seq_len=32", "micro_batch_size=2"]
SHORT = ["generate.prompt_length=16", "generate.new_tokens=6"]


def ask(check, fault, *words, step_s=1e-3, num_steps=2):
    """What `check` finds in a cell of these words that tells the lie, after so many steps, each said to have taken so
    long.
    """
    context = make_context(make_cell(*SMALL, *words))
    with planted(parse_fault(fault), context), attention_backend(context.cell):
        workload = context.cell.axes["workload"]
        if workload in ("forward", "generate"):
            return {"forward": _ask_forward, "generate": _ask_generation}[workload](check, context, step_s)
        return _ask_training(check, context, step_s, num_steps)


def _evidence(context, built, step_s, **more):
    return Facts(
        context=context,
        built=built,
        result={"step_times_s": [step_s]},
        probes=Probes(),
        rest_bytes=0,
        exchange=Exchange(context),
        **more,
    )


def _ask_training(check, context, step_s, num_steps):
    loop = train.TrainingLoop(context, build(context))
    loop.prepare(range(num_steps))
    for step in range(num_steps):
        loop.step(step)
    return check(_evidence(context, loop.built, step_s, loop=loop, optimizer=loop.optimizer, num_steps=num_steps))


def _ask_forward(check, context, step_s):
    with forward.inference(context) as built:
        return check(_evidence(context, built, step_s, logits=forward.ForwardLoop(context, built).logits))


def _ask_generation(check, context, step_s):
    with generate.inference(context) as built:
        return check(_evidence(context, built, step_s, decoding=generate.Decoding(built, context.cell, context.device)))

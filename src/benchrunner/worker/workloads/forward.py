"""The forward loop: logits of a whole batch in inference mode, nothing else."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from benchrunner.core.rank_result import Choices, RankResult
from benchrunner.worker.axes.attention import attention_backend, chosen_backend
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.engines.engine import build
from benchrunner.worker.measure.window import Steps, measure
from benchrunner.worker.steps import data
from benchrunner.worker.validity.checks import Check, check_inference
from benchrunner.worker.validity.exchange import Exchange
from benchrunner.worker.validity.finding import Finding, Output, unknown
from benchrunner.worker.validity.probe import Probes, profile_once
from benchrunner.worker.workloads.result import rank_result

LOGITS_TOLERANCE = 0.25
"""Of their spread: the last tokens of one batch are few."""

MEDIAN_OF_NORMAL = 0.6745
"""Median of |x| ÷ standard deviation: a tied head gives each token a large logit for itself, which this leaves out."""


def run(context: Context) -> RankResult:
    """Run forward passes as the cell says and return the rank's result (keys: docs/metrics.md).

    Raises:
        FloatingPointError: a logit is not finite.
    """
    with attention_backend(context.cell), inference(context) as built:
        loop = ForwardLoop(context, built)
        window = measure(context, Steps(prepare=loop.prepare, run=loop.step))
        choices: Choices = {"attention": chosen_backend(context.cell, context.device), **built.choices}
        result = rank_result(context, built, window) | {"losses": [], "choices": choices}
        own: dict[str, Check] = {"logits": lambda facts: loop.check_logits()}
        context.keep(result)
        facts = {"num_steps": loop.num_steps, "output": loop.output(), "consumed": tuple(loop.consumed)}
        probe = functools.partial(loop.probe, window["step_times_s"])
        check_inference(context, built, result, probe, own, logits=loop.logits, **facts)
        return result


@contextmanager
def inference(context: Context) -> Iterator[Built]:
    """The built model; inside, nothing is recorded for a backward pass.

    It is built outside: parameters that inference mode makes cannot be changed by anything else.
    """
    context.phase("build")
    built = build(context)
    built.model.eval()
    with torch.inference_mode():
        yield built


class ForwardLoop:
    """The batches drawn, and what became of them."""

    def __init__(self, context: Context, built: Built) -> None:
        self.context = context
        self.built = built
        self._cell = context.cell
        self._batches: dict[int, list[Tensor]] = {}
        self.num_steps = 0
        """Passes so far."""
        self._num_tokens = 0
        self._last_logits: Tensor | None = None
        self._no_logits = ""
        """Why there are none."""
        self.consumed: list[Tensor] = []
        """Tokens of every batch that went through the model, kept to be compared."""

    def prepare(self, steps: range) -> None:
        """Draw the batches of these steps onto the device."""
        for step in self.context.drawing(steps):
            self._batches[step] = data.draw_step(self._cell, step, self.context.rank, self.context.device)

    def step(self, step: int) -> None:
        """One pass over this rank's part of the global batch; nothing here waits for the device."""
        batches = self._batches.pop(step)
        self.consumed += (batch[:, :-1] for batch in batches)
        self._num_tokens += sum(self.logits(batch).shape[:2].numel() for batch in batches)
        self.num_steps += 1

    def probe(self, step_times_s: Sequence[float], exchange: Exchange) -> Probes:
        """One more pass under the profiler, and one whose last logits are kept."""
        probes = profile_once(self._pass, self.context, step_times_s, exchange)
        self._no_logits = exchange.agree("the pass for logits", self._keep_logits) or ""
        return probes

    def _pass(self) -> int:
        """Returns how many tokens it processed."""
        return self.logits(self._first_batch()).shape[:2].numel()

    def _keep_logits(self) -> None:
        self._last_logits = self.logits(self._first_batch())[:, -1].float()

    def _first_batch(self) -> Tensor:
        return data.draw_step(self._cell, 0, self.context.rank, self.context.device)[0]

    def logits(self, batch: Tensor) -> Tensor:
        """The logits [B, T, vocabulary] of a batch [B, T + 1], whose last tokens are targets that nobody asks for."""
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with self.built.forward_context():
            logits: Tensor = self.built.model(batch[:, :-1])
        return logits

    def output(self) -> Output:
        """Tokens that logits came back for, a step of this rank."""
        sizes = self._cell.sizes
        claimed = sizes.global_batch_size // sizes.world_size * sizes.seq_len
        return Output(claimed=claimed, seen=self._num_tokens / max(self.num_steps, 1), what="tokens a step and rank")

    def check_logits(self) -> Finding:
        """From our own init logits are normal with standard deviation σ·√d: norms and blocks are alive.

        Raises:
            FloatingPointError: they are not finite.
        """
        model, logits = self._cell.config.model, self._last_logits
        if logits is None or self._no_logits:
            return unknown(self._no_logits)
        if not torch.isfinite(logits).all():
            raise FloatingPointError("the logits are not finite")
        expected = model.init_std * model.d_model**0.5
        observed = logits.abs().median().item() / MEDIAN_OF_NORMAL
        return Finding(
            ok=abs(observed / expected - 1) < LOGITS_TOLERANCE,
            expected=f"standard deviation {expected:.3f} ± {LOGITS_TOLERANCE:.0%}",
            observed=f"{observed:.3f}",
        )

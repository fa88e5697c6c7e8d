"""Generation: samples of prefill and token-by-token decoding with a static key-value cache."""

import functools
import math
import statistics

import torch
from torch import Tensor

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.rank_result import GenerationSample, GenerationTimes, RankMetrics, RankResult
from benchrunner.worker.axes.attention import attention_backend, decode_backend
from benchrunner.worker.context import Context
from benchrunner.worker.engines.built import Built
from benchrunner.worker.measure.timer import make_timer
from benchrunner.worker.measure.window import Steps, measure
from benchrunner.worker.steps import data
from benchrunner.worker.steps.decoding import NOT_YET, Decoding
from benchrunner.worker.validity import checks_choice
from benchrunner.worker.validity.checks import Check, check_inference
from benchrunner.worker.validity.exchange import Exchange
from benchrunner.worker.validity.finding import Finding, Output, unknown
from benchrunner.worker.validity.probe import Probes, agreed_budget
from benchrunner.worker.validity.profiled_sample import profile_sample
from benchrunner.worker.workloads.forward import inference
from benchrunner.worker.workloads.result import rank_result

WARMUP_SAMPLES = 3
"""The first is the cold one; CUDA graphs record a function in its second call and replay it from the third on."""

CACHE_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02}
"""Relative error of logits decoded from the cache, by compute dtype, times the square root of the number of layers:
rounding errors of the layers add up like a random walk. Three times what sound cells show: Llama-2-7B in bf16 on an
H200, 32 layers, 0.053 eager and 0.094 compiled. Others are 8-bit: see EIGHT_BIT_TOLERANCE."""

EIGHT_BIT_TOLERANCE = 0.25
"""Scales of 8-bit formats are taken over a call's tokens: one at a time they differ from all at once."""

MOST_CACHE_TOLERANCE = 0.5
"""However deep the model: logits that have nothing to do with each other differ by 1.4."""


def run(context: Context) -> RankResult:
    """Generate as the cell says and return the rank's result (keys: docs/metrics.md).

    `step_times_s` are the samples of the window; `samples` has their parts, after those of the cold one.
    """
    cell = context.cell
    num_samples = max(1, cell.config.generate.num_samples - 1)
    with attention_backend(cell), inference(context) as built:
        loop = GenerationLoop(context, Decoding(built, cell, context.device))
        steps = Steps(prepare=loop.prepare, run=loop.sample)
        window = measure(context, steps, warmup_steps=WARMUP_SAMPLES, num_steps=num_samples)
        result = rank_result(context, built, window) | _generation_result(context, loop.times_s(), num_samples)
        result["choices"] = {"attention": decode_backend(cell, context.device), **built.choices}
        loop.check(built, result)
        return result


def _generation_result(context: Context, samples: list[GenerationTimes], num_measured: int) -> RankResult:
    cell, measured = context.cell, samples[-num_measured:]
    tokens = cell.sizes.global_batch_size * cell.config.generate.new_tokens
    return {
        "losses": [],
        "tokens_per_step": tokens,
        "padded_tokens_per_step": tokens,
        "metrics": generation_metrics(cell, context.hardware.get("memory_bandwidth_bytes_per_second"), measured),
        "samples": [_sample(samples[0], cold=True), *(_sample(times, cold=False) for times in measured)],
    }


def _sample(times: GenerationTimes, *, cold: bool) -> GenerationSample:
    return {**times, "cold": cold}


class GenerationLoop:
    """Samples of one batch of prompts each, and the times of their two parts."""

    def __init__(self, context: Context, decoding: Decoding) -> None:
        self.context = context
        self.decoding = decoding
        self._timer = make_timer(context.device)
        self._prompts: dict[int, Tensor] = {}
        self._last_prompt: Tensor | None = None
        self._num_steps = context.cell.config.generate.new_tokens - 1
        self.consumed: list[Tensor] = []
        """The prompts of every sample, kept to be compared."""
        self._cache_difference: float | None = None
        self._no_cache_error = ""
        """Why there is none."""

    def prepare(self, samples: range) -> None:
        """Draw the prompts of these samples onto the device."""
        for sample in self.context.drawing(samples):
            self._prompts[sample] = data.draw_prompts(self.context.cell, sample, self.context.rank, self.context.device)

    def sample(self, sample: int) -> None:
        """Prefill and decode one batch.

        The device is idle when it starts, so that the time to the first token has the host's part in it; within the
        sample nothing waits.
        """
        self._last_prompt = self._prompts.pop(sample)
        self.consumed.append(self._last_prompt)
        if self.context.device.type == "cuda":
            torch.cuda.synchronize(self.context.device)
        self._timer.mark()
        self.decoding.prefill(self._last_prompt)
        self._timer.mark()
        for _ in range(self._num_steps):
            self.decoding.step()
        self._timer.mark()

    def times_s(self) -> list[GenerationTimes]:
        """Seconds of prefill (to the first token) and decode (all others) of every sample so far."""
        parts = self._timer.step_times_s()  # prefill, decode, pause between two samples, and again
        return [
            {"prefill_s": prefill_s, "decode_s": decode_s}
            for prefill_s, decode_s in zip(parts[::3], parts[1::3], strict=True)
        ]

    def check(self, built: Built, result: RankResult) -> None:
        """The checks of every workload on one more sample, and that of the cache, into `result`."""
        self.context.keep(result)
        facts = {"num_steps": len(self.consumed), "output": self.output(), "consumed": tuple(self.consumed)}
        own: dict[str, Check] = {"cache": lambda facts: self.check_cache(), "choice": checks_choice.choice}
        probe = functools.partial(self.probe, result)
        check_inference(self.context, built, result, probe, own, decoding=self.decoding, **facts)

    def probe(self, result: RankResult, exchange: Exchange) -> Probes:
        """The last sample's cache, and one more sample, profiled; where the budget has no room, a shorter one."""
        self._no_cache_error = exchange.agree("the cache's logits", self._compare_cache) or ""
        probes = Probes(num_micro_steps=1)
        sample_s, budget_s = agreed_budget(result["step_times_s"], exchange)
        num_steps, first = self._num_steps, len(self.consumed)
        self._num_steps = min(num_steps, int(num_steps * budget_s / sample_s)) if sample_s > 0 else num_steps
        self.prepare(range(first, first + 1))

        def run() -> None:
            sample = functools.partial(self.sample, first)
            probes.sample = profile_sample(sample, self.decoding, self._num_steps + 1, self.context.device)

        failure = exchange.agree("the profiled sample", run)
        self._num_steps = num_steps
        if failure is not None:
            probes.forget(failure)
        probes.take_sample(self.context.cell)
        return probes

    def output(self) -> Output:
        """New tokens of the last sample, each of the vocabulary."""
        tokens, vocab_size = self.decoding.progress.tokens, self.context.cell.config.model.vocab_size
        produced = int(((tokens > NOT_YET) & (tokens < vocab_size)).sum())
        return Output(claimed=tokens.numel(), seen=produced, what="new tokens in a sample")

    def check_cache(self) -> Finding:
        """Logits after the last sample's cache are those of its whole sequence without cache.

        Raises:
            FloatingPointError: they are not finite.
        """
        limit, error = cache_tolerance(self.context.cell), self._cache_difference
        if error is None or self._no_cache_error:
            return unknown(self._no_cache_error)
        if not math.isfinite(error):
            raise FloatingPointError("the logits are not finite")
        return Finding(
            ok=error <= limit,
            expected=f"logits within {limit:.2g} of those without cache",
            observed=f"relative error {error:.2g}",
        )

    def _compare_cache(self) -> None:
        """The relative error of the logits from the cache; not finite where the logits are not."""
        assert self._last_prompt is not None
        expected = self.decoding.recomputed_logits(self._last_prompt).float()
        self._cache_difference = float((self.decoding.next_logits().float() - expected).norm() / expected.norm())


def cache_tolerance(cell: Cell) -> float:
    """How far logits decoded from the cache may be from those of the whole sequence, relative to their norm."""
    a_layer = CACHE_TOLERANCE.get(cell.config.precision.compute_dtype, EIGHT_BIT_TOLERANCE)
    return min(a_layer * math.sqrt(cell.config.model.num_layers), MOST_CACHE_TOLERANCE)


def generation_metrics(
    cell: Cell, bandwidth_bytes_per_second: float | None, samples: list[GenerationTimes]
) -> RankMetrics:
    """The headline numbers of one replica: medians over the samples, and the best time a token."""
    options, batch_size = cell.config.generate, cell.sizes.micro_batch_size
    first_token_s = statistics.median(sample["prefill_s"] for sample in samples)
    num_decodes = options.new_tokens - 1
    tokens_s = [sample["decode_s"] / num_decodes for sample in samples] if num_decodes else []
    token_s = statistics.median(tokens_s) if tokens_s else None
    metrics: RankMetrics = {
        "time_to_first_token_s": first_token_s,
        "prefill_tokens_per_second": batch_size * options.prompt_length / first_token_s,
        "time_per_output_token_s": token_s,
        "time_per_output_token_min_s": min(tokens_s, default=None),
        "decode_tokens_per_second": batch_size / token_s if token_s else None,
        "bandwidth_utilization": None,
    }
    if token_s and bandwidth_bytes_per_second:
        read = arithmetic.decode_bytes_per_token(cell.config, cell.sizes)
        metrics["bandwidth_utilization"] = read / token_s / bandwidth_bytes_per_second
    return metrics

"""What a generation reports: times of its parts, work done, bytes read, and whether the cache is right."""

import json
import statistics

import pytest
import torch

from benchrunner.core import arithmetic
from benchrunner.core.faults import parse_fault
from benchrunner.outcome import metrics
from benchrunner.worker.engines.engine import build
from benchrunner.worker.faults.plant import planted
from benchrunner.worker.steps.decoding import Decoding
from benchrunner.worker.workloads import generate
from cells import make_cell, make_context

SMALL = [
    "workload=generate",
    "model.num_layers=2",
    "model.vocab_size=96",
    "generate.prompt_length=5",
    "generate.new_tokens=8",
    "generate.num_samples=4",
]


def make_loop(*words, fault=None):
    context = make_context(cell := make_cell(*SMALL, *words))
    with planted(parse_fault(fault), context), torch.inference_mode():
        loop = generate.GenerationLoop(context, Decoding(build(context), cell, context.device))
        loop.prepare(range(1))
        loop.sample(0)
    return loop


@pytest.fixture(scope="module")
def result():
    return generate.run(make_context(make_cell(*SMALL, "micro_batch_size=2", "generate.top_k=10")))


def test_samples_are_the_cold_one_and_those_of_the_window(result):
    assert [sample["cold"] for sample in result["samples"]] == [True, False, False, False]
    assert len(result["step_times_s"]) == 3
    for sample, step_s in zip(result["samples"][1:], result["step_times_s"], strict=True):
        assert 0 < sample["prefill_s"] + sample["decode_s"] <= step_s


def test_metrics_are_medians_over_the_warm_samples(result):
    warm, metrics = result["samples"][1:], result["metrics"]
    first_s = statistics.median(sample["prefill_s"] for sample in warm)
    token_s = statistics.median(sample["decode_s"] for sample in warm) / 7
    assert metrics["time_to_first_token_s"] == first_s
    assert metrics["prefill_tokens_per_second"] == pytest.approx(2 * 5 / first_s)
    assert metrics["time_per_output_token_s"] == pytest.approx(token_s)
    assert metrics["decode_tokens_per_second"] == pytest.approx(2 / token_s)
    assert metrics["time_per_output_token_min_s"] <= metrics["time_per_output_token_s"]
    assert metrics["bandwidth_utilization"] is None


def test_a_step_is_a_sample_of_new_tokens(result):
    assert result["tokens_per_step"] == 2 * 8
    assert result["losses"] == []
    assert result["num_parameters"] == arithmetic.num_parameters(make_cell(*SMALL).config.model)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_headline_has_the_metrics(result):
    headline = metrics.headline(make_cell(*SMALL, "micro_batch_size=2"), [result], {})
    assert headline["decode_tokens_per_second"] == result["metrics"]["decode_tokens_per_second"]
    assert headline["tokens_per_second_per_device"] == 16 / headline["step_time_median_s"]


def test_bandwidth_is_what_a_decode_reads():
    cell = make_cell(*SMALL, "precision=fp32")
    metrics = generate.generation_metrics(cell, 1e9, [{"prefill_s": 1.0, "decode_s": 0.7}])
    read = 4 * arithmetic.matmul_parameters(cell.config.model)
    read += statistics.fmean(arithmetic.kv_cache_bytes(cell.config.model, 1, 5 + index, 4) for index in range(1, 8))
    assert metrics["bandwidth_utilization"] == pytest.approx(read / 0.1 / 1e9)


def test_a_single_token_has_no_time_per_output_token():
    result = generate.run(make_context(make_cell(*SMALL, "generate.new_tokens=1", "generate.num_samples=1")))
    assert result["metrics"]["time_per_output_token_s"] is None
    assert result["metrics"]["time_to_first_token_s"] > 0
    assert [sample["cold"] for sample in result["samples"]] == [True, False]


def test_healthy_samples_pass_their_checks(result):
    assert {name: check["ok"] for name, check in result["checks"].items() if name in ("work", "cache")} == {
        "work": True,
        "cache": True,
    }


@pytest.mark.parametrize(
    ("fault", "check"), [("half_blocks", "work"), ("recompute_prefix", "work"), ("same_batch", "data")]
)
def test_lies_are_seen(fault, check):
    with planted(parse_fault(fault), context := make_context(make_cell(*SMALL))):
        checks = generate.run(context)["checks"]
    failed = {name for name, said in checks.items() if said["ok"] is False}
    assert check in failed and failed <= {check, "function"}


def test_a_sample_that_never_decodes_is_seen(monkeypatch):
    """A loop that makes its tokens in another way than by a decode each."""

    def sample(self, index):
        self._last_prompt = self._prompts.pop(index)
        self.consumed.append(self._last_prompt)
        for mark in range(3):
            self._timer.mark()
            if mark < 2:
                self.decoding.prefill(self._last_prompt)
        self.decoding.progress.tokens.fill_(0)

    monkeypatch.setattr(generate.GenerationLoop, "sample", sample)
    work = generate.run(make_context(make_cell(*SMALL)))["checks"]["work"]
    assert work["ok"] is False and work["observed"] == "2 prefills and 0 decodes"


def test_a_token_too_few_is_seen():
    output = make_loop(fault="short_batch").output()
    assert (output.claimed, output.seen) == (8, 7)


def test_where_the_prefill_makes_the_only_token_none_can_be_left_out():
    with pytest.raises(RuntimeError, match="no token to leave out"):
        make_loop("generate.new_tokens=1", fault="short_batch")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@torch.inference_mode()
def test_a_wrong_cache_is_seen(precision):
    loop = make_loop(f"precision={precision}")
    loop._compare_cache()
    assert loop.check_cache().ok
    for layer in loop.decoding.cache.layers:
        layer.values.copy_(layer.values.roll(1, dims=2))
    loop._compare_cache()
    assert loop.check_cache().ok is False
